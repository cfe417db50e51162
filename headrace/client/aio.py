"""The asynchronous client."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import grpc

from headrace.client import calls, messages, methods
from headrace.client.artifact import ArtifactFile, artifact_files, is_url, samples_files, upload_parts
from headrace.client.calls import Answer, Call
from headrace.client.connection import Connection
from headrace.client.inference import StreamInput, stream_result
from headrace.client.messages import (
    DEFAULT_TIMEOUT_S,
    DEPLOY_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    ModelOptions,
    OptimizeOptions,
)
from headrace.client.methods import Method
from headrace.client.outgoing import AsyncOutgoing, in_thread, stream_requests_async
from headrace.client.retry import DEFAULT_RETRY, RetryPolicy
from headrace.client.status import error_from_call
from headrace.client.tensors import Array, TensorLike
from headrace.errors import HeadraceError
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2


class AsyncClient:
    """A connection to a mesh, for one event loop. Close it, or use it in an `async with` statement.

    Args:
        url: http://HOST:PORT or https://HOST:PORT; None: HEADRACE_URL, or http://127.0.0.1:8080.
        tenant: who calls; None: the tenant "default".
        timeout_s: deadline of every call that is given none of its own, streams aside; retries count into it.
        retry: when `Unavailable` is tried again.
        clock: monotonic seconds.
        jitter: uniform in [0, 1).
        sleep: waits between retries.

    Every method raises a `headrace.errors.HeadraceError`; so does this, if an argument makes no sense.
    """

    def __init__(
        self,
        url: str | None = None,
        tenant: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        retry: RetryPolicy = DEFAULT_RETRY,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = Connection(url, tenant, timeout_s, retry, clock, jitter)
        self.url = self._connection.address.url
        self._sleep = sleep
        # Opened by the first call: a grpc.aio channel belongs to the event loop it is made in.
        self._channel: Any = None

    async def close(self) -> None:
        """Closes the connection; calls in progress are cancelled."""
        self._connection.closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def infer(
        self,
        name: str,
        inputs: Mapping[str, TensorLike],
        version: str = "",
        *,
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        sequence_start: bool = False,
        sequence_end: bool = False,
    ) -> dict[str, Array]:
        """One inference.

        Args:
            name: the model.
            inputs: arrays, or lists, by input name, with the batch dimension where the model has
                one. Strings and bytes are BYTES; the dtype decides the datatype otherwise.
            version: "" is the current one.
            outputs: only these; None: all.
            timeout_s: the mesh drops the request once this has passed; None: the client's.
            priority: the model's priority level, 1 the highest; None: its default.
            request_id: comes back in logs.
            sequence_id, sequence_start, sequence_end: of a stateful model: which sequence this is a step of, and
                whether it is its first and its last. A step past the first is not retried: it might happen twice. Calls
                may overtake each other, so wait for a step's answer before the next.

        Returns:
            Arrays by output name, read-only; BYTES are object arrays of `bytes`.
        """
        call = calls.infer(
            name,
            inputs,
            version=version,
            outputs=outputs,
            priority=priority,
            request_id=request_id,
            sequence_id=sequence_id,
            sequence_start=sequence_start,
            sequence_end=sequence_end,
        )
        return await self._call(call, timeout_s)

    async def stream(
        self,
        name: str,
        inputs: Iterable[StreamInput] | AsyncIterable[StreamInput],
        version: str = "",
        timeout_s: float | None = None,
    ) -> AsyncIterator[tuple[int, dict[str, Array]]]:
        """Many inferences over one stream, which batches and pipelines them.

        Args:
            name: the model.
            inputs: as those of `infer`, or each as a `Step` of a sequence: steps of one sequence may be sent ahead, and
                of several in any order. Taken as the stream has room.
            version: "" is the current one.
            timeout_s: deadline of the whole stream, not of each input; None: none, whatever the client's is.

        Yields:
            Position of the input, and its outputs, as they arrive.

        Raises:
            StreamItemFailed: an input was refused; it names its position.
        """
        deadline_s = None if timeout_s is None else messages.timeout(timeout_s)
        requests = AsyncOutgoing(stream_requests_async(name, inputs, version))
        callable_ = self._callable(methods.STREAM_INFER, "stream_stream")
        with self._errors(requests):
            call = callable_(requests, timeout=deadline_s, metadata=self._connection.metadata)
            try:
                async for response in call:
                    yield stream_result(response)
            finally:
                call.cancel()

    async def metadata(self, name: str, version: str = "") -> inference_pb2.ModelMetadataResponse:
        """The model's inputs and outputs."""
        return await self._call(calls.metadata(name, version))

    async def ready(self, name: str = "", version: str = "") -> bool:
        """Whether the model can be called now, at zero instances too; "": whether the mesh serves."""
        return await self._call(calls.ready(name, version))

    async def upload(self, source: str | Path, name: str, timeout_s: float = UPLOAD_TIMEOUT_S) -> str:
        """Uploads a model's files; the mesh keeps them for an hour unless a deploy uses them.

        Args:
            source: an .onnx or .pt2 file, or a directory in Triton's repository layout.
            name: the model they are for.
            timeout_s: for the whole upload.

        Returns:
            The artifact, for `ModelSpec.artifact`.
        """
        return await self._upload(await asyncio.to_thread(artifact_files, Path(source), name), timeout_s)

    async def _upload(self, files: Sequence[ArtifactFile], timeout_s: float) -> str:
        callable_ = self._callable(methods.UPLOAD, "stream_unary")

        async def send(left: float | None) -> Any:
            parts = AsyncOutgoing(in_thread(upload_parts(files)))
            with self._errors(parts):
                return await callable_(parts, timeout=left, metadata=self._connection.metadata)

        answer: models_pb2.UploadArtifactResponse = await self._attempt(send, timeout_s)
        return answer.artifact

    async def deploy(
        self,
        source: str | Path,
        name: str,
        wait: bool = True,
        timeout_s: float = DEPLOY_TIMEOUT_S,
        **options: Unpack[ModelOptions],
    ) -> models_pb2.Model:
        """Deploys a model, or a new revision of it.

        Args:
            source: an .onnx or .pt2 file or a directory in Triton's repository layout, which is uploaded;
                or an s3://, gs:// or https:// URL, which the mesh fetches if it is configured to.
            name: unique in the mesh.
            wait: return once a real load has succeeded; its failure is the error.
            timeout_s: for the deploy itself; an upload has its own.
            options: see `ModelOptions`.
        """
        spec = messages.model_spec(name, options)
        spec.source = str(source)
        return await self.deploy_spec(spec, wait=wait, timeout_s=timeout_s)

    async def deploy_spec(
        self, spec: models_pb2.ModelSpec, wait: bool = True, timeout_s: float = DEPLOY_TIMEOUT_S
    ) -> models_pb2.Model:
        """Deploys what the spec says; uploads its `source` first if that is a path."""
        request = calls.deploy_request(spec, wait)
        sent = request.model
        if sent.source and not is_url(sent.source):
            sent.artifact = await self.upload(sent.source, sent.name)
            sent.source = ""
        return await self._call(calls.deploy(request), timeout_s)

    async def models(self, tenant: str = "") -> list[models_pb2.Model]:
        """All models; with a tenant, that tenant's."""
        return await self._call(calls.models(tenant))

    async def model(self, name: str) -> models_pb2.Model:
        """Everything about one model."""
        return await self._call(calls.model(name))

    async def explain(self, name: str) -> models_pb2.ExplainModelResponse:
        """What keeps a model from more instances, whose limit that is, and what to do."""
        return await self._call(calls.explain(name))

    async def optimize(
        self,
        name: str,
        samples: str | Path,
        timeout_s: float = UPLOAD_TIMEOUT_S,
        **options: Unpack[OptimizeOptions],
    ) -> models_pb2.OptimizeJob:
        """Queues a job that makes cheaper variants of a deployed model and measures them.

        Args:
            name: the model.
            samples: an .npz file with arrays by the names of the model's inputs, a row per sample; it is uploaded.
            timeout_s: for the upload.
            options: see `OptimizeOptions`.
        """
        asked = messages.optimization(options)
        artifact = await self._upload(await asyncio.to_thread(samples_files, Path(samples)), timeout_s)
        return await self._call(calls.optimize(name, artifact, asked))

    async def cancel_optimization(self, name: str) -> models_pb2.OptimizeJob:
        """Ends a job that is queued or running; what serves is left as it is."""
        return await self._call(calls.cancel_optimization(name))

    async def variants(self, name: str) -> models_pb2.ListVariantsResponse:
        """What the last job found, and which variant serves."""
        return await self._call(calls.variants(name))

    async def use_variant(self, name: str, variant: str, timeout_s: float = DEPLOY_TIMEOUT_S) -> models_pb2.Model:
        """Deploys a variant in place of what serves; "original" rolls back."""
        return await self._call(calls.use_variant(name, variant), timeout_s)

    async def delete(self, name: str) -> None:
        """Drains, stops and forgets a model."""
        await self._call(calls.delete(name))

    async def set_tenant(self, spec: tenants_pb2.TenantSpec) -> tenants_pb2.Tenant:
        """Creates a tenant or replaces what is set of it."""
        return await self._call(calls.set_tenant(spec))

    async def tenants(self) -> list[tenants_pb2.Tenant]:
        """All tenants."""
        return await self._call(calls.tenants())

    async def tenant(self, name: str) -> tenants_pb2.Tenant:
        """One tenant."""
        return await self._call(calls.tenant(name))

    async def delete_tenant(self, name: str) -> None:
        """Forgets a tenant that owns no model."""
        await self._call(calls.delete_tenant(name))

    async def usage(self, tenant: str = "", since: datetime | None = None) -> list[usage_pb2.UsageRow]:
        """The books by hour; "" is every tenant, None is from the beginning."""
        return await self._call(calls.usage(tenant, since))

    async def status(self) -> mesh_pb2.GetStatusResponse:
        """What runs."""
        return await self._call(calls.status())

    async def logs(self, model: str = "", follow: bool = False, tail: int = 0) -> AsyncIterator[str]:
        """Log lines, each a JSON object, oldest first.

        Args:
            model: only lines about it; "": all.
            follow: go on for ever; such a call has no deadline.
            tail: this many of the newest; 0: 200.
        """
        request = calls.logs(model, follow, tail)
        timeout_s = None if follow else self._connection.timeout_s
        with self._errors():
            call = self._callable(methods.READ_LOGS, "unary_stream")(
                request, timeout=timeout_s, metadata=self._connection.metadata
            )
            try:
                async for response in call:
                    yield response.line
            finally:
                call.cancel()

    async def _call(self, call: Call[Answer], timeout_s: float | None = None) -> Answer:
        callable_ = self._callable(call.method, "unary_unary")
        response = await self._attempt(
            lambda left: callable_(call.request, timeout=left, metadata=self._connection.metadata),
            timeout_s,
            call.method.repeatable,
        )
        return call.answer(response)

    async def _attempt(
        self, send: Callable[[float | None], Awaitable[Any]], timeout_s: float | None, repeatable: bool = True
    ) -> Any:
        attempts = self._connection.attempts(timeout_s)
        while True:
            try:
                with self._errors():
                    return await send(self._connection.left_s(attempts))
            except HeadraceError as failure:
                error = failure
            await self._sleep(self._connection.delay_s(attempts, error, repeatable))

    def _callable(self, method: Method[Any, Any], kind: str) -> Any:
        self._connection.check_open()
        if self._channel is None:
            self._channel = self._connection.open(grpc.aio)
        return self._connection.callable(self._channel, method, kind)

    @contextmanager
    def _errors(self, outgoing: AsyncOutgoing[Any] | None = None) -> Iterator[None]:
        try:
            yield
        except (grpc.RpcError, asyncio.CancelledError) as failure:
            # grpc.aio cancels a call whose requests fail, which looks as if our caller had cancelled it.
            if outgoing is not None and outgoing.failure is not None:
                raise outgoing.failure from None
            if isinstance(failure, asyncio.CancelledError):
                raise
            raise error_from_call(failure, self.url) from None
