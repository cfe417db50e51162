"""A mesh on loopback that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from headrace.client.methods import Method
from headrace.errors import HeadraceError
from headrace_common.status import DETAILS_KEY, wire_status


@dataclass
class Seen:
    request: Any
    metadata: dict[str, str]
    remaining_s: float | None


@dataclass
class ScriptedMesh:
    """`on` scripts a method: an answer, an error, a function of the request, or a list of these, used up in turn."""

    url: str = ""
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    _handlers: dict[str, Any] = field(default_factory=dict)

    def on(self, method: Method[Any, Any], script: Any, kind: str = "unary_unary") -> None:
        script = list(script) if isinstance(script, list) else script
        behaviour = self._streaming(method, script) if kind.endswith("stream") else self._single(method, script)
        self._handlers[method.path] = getattr(grpc, f"{kind}_rpc_method_handler")(
            behaviour,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def requests(self, method: Method[Any, Any]) -> list[Any]:
        return [seen.request for seen in self.seen.get(method.path, [])]

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(call.method)

    def _single(self, method: Method[Any, Any], script: Any) -> Callable[[Any, Any], Any]:
        def behave(request: Any, context: Any) -> Any:
            if not hasattr(request, "DESCRIPTOR"):
                request = list(request)
            self._note(method, request, context)
            outcome = script.pop(0) if isinstance(script, list) else script
            if callable(outcome) and not isinstance(outcome, method.response):
                outcome = outcome(request)
            return _answer(outcome, context)

        return behave

    def _streaming(self, method: Method[Any, Any], script: Any) -> Callable[[Any, Any], Iterator[Any]]:
        def behave(request: Any, context: Any) -> Iterator[Any]:
            self._note(method, request, context)
            for outcome in script(request) if callable(script) else script:
                yield _answer(outcome, context)

        return behave

    def _note(self, method: Method[Any, Any], request: Any, context: Any) -> None:
        seen = Seen(request, dict(context.invocation_metadata()), context.time_remaining())
        self.seen.setdefault(method.path, []).append(seen)


def _answer(outcome: Any, context: Any) -> Any:
    if isinstance(outcome, HeadraceError):
        status = wire_status(outcome)
        if status.details:
            context.set_trailing_metadata(((DETAILS_KEY, status.details),))
        context.abort(status.code, status.message)
    if isinstance(outcome, grpc.StatusCode):
        context.abort(outcome, "")
    return outcome


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, mesh: ScriptedMesh) -> None:
        self._mesh = mesh

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._mesh.service(handler_call_details)


@contextmanager
def scripted_mesh() -> Iterator[ScriptedMesh]:
    mesh = ScriptedMesh()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=(("grpc.max_receive_message_length", -1),))
        server.add_generic_rpc_handlers((_Handlers(mesh),))
        port = server.add_insecure_port("127.0.0.1:0")
        mesh.url = f"http://127.0.0.1:{port}"
        server.start()
        try:
            yield mesh
        finally:
            server.stop(None).wait()
