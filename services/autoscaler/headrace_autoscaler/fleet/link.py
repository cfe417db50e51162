"""Talking to one runner: RunnerService, in the fleet's own types."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2

from headrace.runner.v1 import runner_pb2, runner_pb2_grpc
from headrace.v1 import models_pb2, resources_pb2
from headrace_autoscaler.domain import Enforcement, Loaded, Resources, Revision, Signature, TensorSpec
from headrace_autoscaler.fleet.runners import Assignment, GpuMemory, RunnerReport, RunnerState

_OPTIONS = (
    # A runner's socket appears within a second of its start: look often.
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_LAST_ANSWERS_S = 0.5
"""For calls to a runner that has gone: they are about to fail by themselves."""


class LoadRefused(Exception):
    """The engine refused the model; the message is its reason."""


class LoadFailed(Exception):
    """The load did not come to an end: the runner died, or it took too long."""


@dataclass(frozen=True, slots=True)
class LoadAnswer:
    """What a load found out, and how long it took without and with the warm-up."""

    loaded: Loaded
    load_s: float
    warm_s: float


class RunnerLink:
    """One channel to one runner."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = runner_pb2_grpc.RunnerServiceStub(self._channel)

    async def watch(self) -> AsyncIterator[RunnerReport]:
        """What it says of itself, now and at every change; ends when the stream breaks."""
        stream = self._stub.WatchStatus(runner_pb2.WatchStatusRequest(), wait_for_ready=True)
        try:
            async for message in stream:
                yield report_of(message.status)
        except grpc.aio.AioRpcError:
            return
        finally:
            stream.cancel()

    async def load(
        self,
        epoch: int,
        runner: str,
        assignment: Assignment,
        revision: Revision,
        directory: str,
        shape: resources_pb2.InstanceShape,
        enforcement: Enforcement,
        timeout_s: float,
        requests_wait: bool = False,
    ) -> LoadAnswer:
        """Answers when the runner is ready. `requests_wait`: for this one, as no other one runs.

        Raises:
            LoadRefused, LoadFailed
        """
        request = load_request(epoch, runner, assignment, revision, directory, shape, enforcement)
        request.requests_wait = requests_wait
        try:
            response = await self._stub.Load(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise LoadRefused(error.details() or "the engine gave no reason") from None
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise LoadFailed(f"the load took longer than {timeout_s:g} s (autoscaler.load_timeout_s)") from None
            raise LoadFailed(error.details() or error.code().name) from None
        except asyncio.CancelledError:
            if _told_to_stop():
                raise
            raise LoadFailed("the runner died during the load") from None
        phases = {name: each.ToNanoseconds() / 1e9 for name, each in response.phases.items()}
        warm_s = phases.pop("warm", 0.0)
        return LoadAnswer(loaded_of(response), sum(phases.values()), warm_s)

    async def unload(self, epoch: int, grace_s: float, reason: str) -> bool:
        """Whether the runner took it."""
        grace = duration_pb2.Duration()
        grace.FromNanoseconds(int(grace_s * 1e9))
        request = runner_pb2.UnloadRequest(epoch=epoch, grace=grace, reason=reason)
        try:
            await self._stub.Unload(request, timeout=5.0)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            return False
        return True

    async def requests(self) -> int | None:
        """Requests that it has executed; None: it did not answer."""
        try:
            return int((await self._stub.GetStats(runner_pb2.GetStatsRequest(), timeout=1.0)).requests)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            return None
        except asyncio.CancelledError:
            if _told_to_stop():
                raise
            return None

    async def close(self) -> None:
        await self._channel.close(grace=_LAST_ANSWERS_S)


def _told_to_stop() -> bool:
    """Whether it is us who were cancelled. Otherwise the channel was closed under the call, because the
    runner is gone."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def load_request(
    epoch: int,
    runner: str,
    assignment: Assignment,
    revision: Revision,
    directory: str,
    shape: resources_pb2.InstanceShape,
    enforcement: Enforcement,
) -> runner_pb2.LoadRequest:
    request = runner_pb2.LoadRequest(
        epoch=epoch,
        instance_id=runner,
        tenant=assignment.tenant,
        model=revision.model,
        revision=revision.revision,
        version=revision.version,
        directory=directory,
        files=[
            runner_pb2.ModelFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes)
            for file in revision.files
        ],
        entry_point=revision.entry_point,
        engine=revision.engine,
        engine_options=dict(revision.engine_options),
        shape=shape,
        max_batch_size=revision.max_batch_size or 0,
        slots=revision.slots or 0,
        cpu_in_cgroup=enforcement.cpu_in_cgroup,
        memory_in_cgroup=enforcement.memory_in_cgroup,
    )
    if revision.loaded is not None:
        request.signature.CopyFrom(signature_message(revision.loaded.signature))
        request.max_batch_size = revision.loaded.max_batch_size
    for sample in revision.warmup:
        inputs = [
            runner_pb2.Tensor(name=each.name, datatype=each.datatype, shape=each.shape, data=each.data)
            for each in sample.inputs
        ]
        request.warmup.add(name=sample.name, batch_size=sample.batch_size, inputs=inputs)
    return request


def signature_message(signature: Signature) -> models_pb2.Signature:
    return models_pb2.Signature(
        inputs=[_tensor_message(tensor) for tensor in signature.inputs],
        outputs=[_tensor_message(tensor) for tensor in signature.outputs],
        batchable=signature.batchable,
    )


def _tensor_message(tensor: TensorSpec) -> models_pb2.TensorSpec:
    return models_pb2.TensorSpec(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, optional=tensor.optional
    )


def loaded_of(response: runner_pb2.LoadResponse) -> Loaded:
    return Loaded(
        signature=Signature(
            tuple(_tensor_of(tensor) for tensor in response.signature.inputs),
            tuple(_tensor_of(tensor) for tensor in response.signature.outputs),
            response.signature.batchable,
        ),
        max_batch_size=response.max_batch_size,
        batching=response.batching,
        platform=response.platform,
        resident_bytes=response.resident_bytes,
        profile_us=tuple(sorted(response.profile_us.items())),
    )


def _tensor_of(tensor: models_pb2.TensorSpec) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape), tensor.optional)


def report_of(status: runner_pb2.RunnerStatus) -> RunnerReport:
    assignment = None
    if status.model:
        shape = status.shape
        assignment = Assignment(
            status.model,
            status.revision,
            status.version,
            status.tenant,
            Resources(shape.cpu_millicores, shape.memory_bytes, shape.gpu_millis, shape.gpu_memory_bytes),
        )
    return RunnerReport(
        RunnerState(max(1, status.state)),
        status.pid,
        status.epoch,
        assignment,
        status.resident_bytes,
        status.reason,
        status.over_memory,
        status.private_bytes,
        _gpu_memory_of(status),
    )


def _gpu_memory_of(status: runner_pb2.RunnerStatus) -> GpuMemory | None:
    if not status.HasField("gpu_memory_used_bytes") or not status.gpu_memory_total_bytes:
        return None
    return GpuMemory(status.gpu_memory_used_bytes, status.gpu_memory_total_bytes)
