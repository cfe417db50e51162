"""The `grpc.aio.ServicerContext` of a call on an ASGI connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc

from headrace_common.asgi_grpc.call import Call
from headrace_common.asgi_grpc.metadata import Headers, Metadatum, encode_metadata
from headrace_common.asgi_grpc.requests import Requests

_Pairs = Iterable[tuple[str, str | bytes]]
_COMPRESSIONS = {grpc.Compression.Gzip: "gzip", grpc.Compression.Deflate: "deflate"}


class AsgiServicerContext(grpc.aio.ServicerContext):
    """What servicer methods get; the same calls mean the same as on a `grpc.aio` server."""

    def __init__(self, call: Call, requests: Requests, serialise: Callable[[Any], bytes] | None) -> None:
        self._call = call
        self._requests = requests
        self._serialise = serialise
        self._metadata: tuple[Metadatum, ...] | None = None
        self._trailing: tuple[tuple[str, str | bytes], ...] = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._compress_next = True
        self._callbacks: list[Callable[[Any], None]] = []
        self._cancelled = False
        self._done = False

    async def read(self) -> Any:
        return await self._requests.read()

    async def write(self, message: Any) -> None:
        await self._call.start([])
        data = message if self._serialise is None else self._serialise(message)
        await self._call.write(data, compress=self._compress_next)
        self._compress_next = True

    async def send_initial_metadata(self, initial_metadata: _Pairs) -> None:
        if self._call.started:
            raise grpc.aio.UsageError("Send initial metadata failed: already sent")
        await self._call.start(encode_metadata(initial_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: _Pairs = ()) -> NoReturn:
        trailing = tuple(trailing_metadata)
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, "abort() was called with OK"
        self._code, self._details = code, details
        self._trailing = trailing or self._trailing
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: _Pairs) -> None:
        self._trailing = tuple(trailing_metadata)

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        if self._metadata is None:
            self._metadata = self._call.metadata()
        return self._metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        if self._call.started:
            raise RuntimeError("Compression setting must be specified before sending initial metadata")
        encoding = _COMPRESSIONS.get(compression, "")
        self._call.response_encoding = encoding if self._call.accepts(encoding) else ""

    def disable_next_message_compression(self) -> None:
        self._compress_next = False

    def peer(self) -> str:
        client = self._call.scope.get("client")
        return "unix:" if client is None else f"ipv4:{client[0]}:{client[1]}"

    def peer_identities(self) -> Iterable[bytes] | None:
        return None

    def peer_identity_key(self) -> str | None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        return self._call.time_left_s

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._trailing

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str:
        return self._details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._cancelled or self._call.gone

    def done(self) -> bool:
        return self._done

    async def finish(self) -> None:
        """Sends the status that the servicer chose; OK where it chose none."""
        await self._call.end(self._code or grpc.StatusCode.OK, self._details, self._trailers())

    async def fail(self, code: grpc.StatusCode, message: str, extra: _Pairs) -> None:
        """Sends a status that the host chose, with the trailing metadata of both."""
        self._code, self._details = code, message
        await self._call.end(code, message, self._trailers() + encode_metadata(extra))

    def close(self, cancelled: bool) -> None:
        """At the end of the call, however it ended; runs the callbacks."""
        self._done = True
        self._cancelled = cancelled
        for callback in self._callbacks:
            callback(self)

    def _trailers(self) -> Headers:
        return encode_metadata(self._trailing)
