"""One router's Execute stream: bundles in, results out, slots and the word to leave."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.chunks import Assemblies, ChunkRefused
from headrace_common.clock import Clock
from headrace_common.errors import InvalidArgument
from headrace_common.outbox import Outbox, Sending
from headrace_runner.domain import Loaded
from headrace_runner.execution import DROPPED, WRONG_MODEL, Job, refusal
from headrace_runner.transport import Answer, Contents, memory_of
from headrace_runner.wire import duration
from headrace_runner.worker import EngineWorker


class ExecuteStream:
    """A router that is attached.

    Attributes:
        number: unique in this runner.
        attach: what the router said first.
        refuses: why its bundles are not executed here; None: they are.
        failure: what ends the connection; None: nothing has.
    """

    def __init__(
        self, number: int, attach: pb.Attach, outbox: Sending[pb.ExecuteResponse], worker: EngineWorker, clock: Clock
    ) -> None:
        self.number = number
        self.attach = attach
        self.refuses: str | None = "no slots have been granted"
        self._worker = worker
        self._clock = clock
        self._outbox = outbox
        self._memory = memory_of(attach)
        self._contents = Contents(self._memory)
        self._assemblies = Assemblies()
        self._coming: dict[int, Job] = {}
        self._held: set[int] = set()
        self._half_closed = False
        self.failure: Exception | None = None
        self._granted = False
        self._left = False

    @property
    def in_hand(self) -> int:
        """Bundles received and not yet answered."""
        return len(self._held)

    @property
    def granted(self) -> bool:
        return self._granted

    def grant(self, slots: int, record: Loaded | None) -> None:
        """Opens the stream for bundles. `record`: the load whose times the cold start's record needs."""
        self._granted, self.refuses = True, None
        message = pb.SlotGrant(slots=slots, shared_memory=self._memory is not None)
        if record is not None:
            message.load.CopyFrom(duration(record.load_s))
            message.warm.CopyFrom(duration(record.warm_s))
        self._send(pb.ExecuteResponse(grant=message))

    def leave(self, reason: str) -> None:
        """Asks the router to go. Bundles that crossed this message are still executed if slots were granted."""
        if self._left:
            return
        self._left = True
        if not self._granted:
            self.refuses = reason
        self._send(pb.ExecuteResponse(draining=pb.Draining(reason=reason)))

    def fail(self, error: Exception) -> None:
        """Ends the call with an error."""
        if self.failure is None:
            self.failure = error
            self._outbox.end()

    def receive(self, request: pb.ExecuteRequest) -> None:
        """What the router sent after Attach.

        Raises:
            InvalidArgument: it breaks a rule; nothing more is taken from this router.
        """
        kind = request.WhichOneof("message")
        try:
            if kind == "bundle":
                self._receive(request.bundle)
            elif kind == "chunk":
                self._receive_chunk(request.chunk)
            elif kind == "cancel":
                self._withdraw(request.cancel.bundle_id)
            else:
                raise InvalidArgument(f"Execute: {kind or 'an empty message'} is not expected after attach")
        except ChunkRefused as error:
            raise InvalidArgument(f"Execute: {error}") from None

    def half_close(self) -> None:
        """The router has sent all; what it sent is still answered."""
        self._half_closed = True
        self._finish()

    def close(self) -> None:
        """The connection is over: what has not begun is forgotten."""
        self._worker.drop(self.number)

    def _receive(self, bundle: pb.Bundle) -> None:
        bundle_id = bundle.bundle_id
        if bundle_id in self._held:
            raise InvalidArgument(f"Execute: bundle {bundle_id} is already here; ids are unique per stream")
        self._held.add(bundle_id)
        job = Job(self.number, bundle, self._clock.monotonic(), self._deliver, self._contents)
        sizes = _chunked(bundle)
        if sizes:
            assembly = self._assemblies.begin(bundle_id, sizes)
            job.contents = Contents(self._memory, assembly.tensors)
            if not assembly.complete:
                self._coming[bundle_id] = job
                return
        self._submit(job)

    def _receive_chunk(self, chunk: pb.BundleChunk) -> None:
        if self._assemblies.add(chunk.bundle_id, chunk.tensor_index, chunk.offset, chunk.data):
            self._submit(self._coming.pop(chunk.bundle_id))

    def _submit(self, job: Job) -> None:
        if self.refuses is not None:
            self._deliver(job, refusal(job.bundle.bundle_id, WRONG_MODEL, self.refuses))
        else:
            self._worker.submit(job)

    def _withdraw(self, bundle_id: int) -> None:
        if self._assemblies.drop(bundle_id):
            job: Job | None = self._coming.pop(bundle_id)
        else:
            job = self._worker.withdraw(self.number, bundle_id)
        if job is not None:
            self._deliver(job, refusal(bundle_id, DROPPED, "cancelled by the router"))

    def _deliver(self, job: Job, answer: Answer) -> None:
        bundle_id = job.bundle.bundle_id
        self._held.discard(bundle_id)
        if answer.chunked:
            self._outbox.put_long(bundle_id, answer.messages())
        else:
            self._send(pb.ExecuteResponse(result=answer.result))
        self._finish()

    def _finish(self) -> None:
        if self._half_closed and not self._held:
            self._outbox.close()

    def _send(self, message: pb.ExecuteResponse) -> None:
        self._outbox.put(message)


def _chunked(bundle: pb.Bundle) -> dict[int, int]:
    """Sizes of the inputs that follow in chunks, by index."""
    return {index: tensor.chunked_bytes for index, tensor in enumerate(bundle.inputs) if tensor.chunked_bytes}


async def serve(stream: ExecuteStream, outbox: Outbox[pb.ExecuteResponse], context: Any) -> None:
    """Runs a stream over a gRPC call, until the router has half-closed and all it sent is answered."""
    reader = asyncio.create_task(_read(stream, context))
    try:
        while (message := await outbox.next()) is not None:
            await context.write(message)
            del message  # Or it would be held while the next one is waited for.
    finally:
        stream.close()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    if stream.failure is not None:
        raise stream.failure


async def _read(stream: ExecuteStream, context: Any) -> None:
    try:
        while (request := await context.read()) is not grpc.aio.EOF:
            stream.receive(request)
            del request  # Or it would be held while the next one is waited for.
    except Exception as error:  # noqa: BLE001 - ends the call, by way of its writer
        stream.fail(error)
    stream.half_close()
