"""Protobuf to and from what the runner's parts understand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from headrace.runner.v1 import runner_pb2 as pb
from headrace.v1 import models_pb2
from headrace_runner.core.lifecycle import Holding, Standing, State
from headrace_runner.core.signature import Signature, TensorSpec
from headrace_runner.core.threads import intra_op_threads
from headrace_runner.domain import Loaded, LoadPlan, ModelFile, RawTensor, WarmupSample
from headrace_runner.engines.base import LoadedModel, OnGpu

_STATES: dict[State, pb.RunnerState] = {
    State.STARTING: pb.RUNNER_STATE_STARTING,
    State.STANDBY: pb.RUNNER_STATE_STANDBY,
    State.LOADING: pb.RUNNER_STATE_LOADING,
    State.READY: pb.RUNNER_STATE_READY,
    State.DRAINING: pb.RUNNER_STATE_DRAINING,
    State.GONE: pb.RUNNER_STATE_GONE,
}


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def holding_of(request: pb.LoadRequest) -> Holding:
    return Holding(request.instance_id, request.tenant, request.model, request.revision, request.version)


def plan_of(request: pb.LoadRequest, default_max_batch_size: int, slots: int = 1) -> LoadPlan:
    return LoadPlan(
        directory=Path(request.directory),
        files=tuple(ModelFile(file.path, file.sha256, file.size_bytes) for file in request.files),
        entry_point=request.entry_point,
        engine=request.engine,
        options=dict(request.engine_options),
        threads=intra_op_threads(request.shape.cpu_millicores, os.cpu_count() or 1, in_cgroup=request.cpu_in_cgroup),
        expected=_signature_of(request.signature) if request.HasField("signature") else None,
        max_batch_size=request.max_batch_size,
        default_max_batch_size=default_max_batch_size,
        warmup=tuple(_sample_of(sample) for sample in request.warmup),
        requests_wait=request.requests_wait,
        slots=slots,
    )


def load_response(loaded: Loaded, resident_bytes: int) -> pb.LoadResponse:
    return pb.LoadResponse(
        signature=models_pb2.Signature(
            inputs=_specs(loaded.signature.inputs),
            outputs=_specs(loaded.signature.outputs),
            batchable=loaded.signature.batchable,
        ),
        max_batch_size=loaded.max_batch_size,
        batching=loaded.batching,
        platform=loaded.platform,
        phases={phase: duration(seconds) for phase, seconds in loaded.phases_s.items()},
        resident_bytes=resident_bytes,
        profile_us=loaded.profile_us,
    )


def status(standing: Standing, **facts: Any) -> pb.RunnerStatus:
    """`facts`: the fields of RunnerStatus that are not part of the standing."""
    message = pb.RunnerStatus(state=_STATES[standing.state], epoch=standing.epoch, reason=standing.reason, **facts)
    if standing.holding is not None:
        message.instance_id = standing.holding.instance_id
        message.tenant = standing.holding.tenant
        message.model = standing.holding.model
        message.revision = standing.holding.revision
        message.version = standing.holding.version
    return message


def gpu_facts(model: LoadedModel | None) -> dict[str, int]:
    """The fields of RunnerStatus about GPU memory; empty where the engine does not measure it."""
    measured = model.gpu_memory() if isinstance(model, OnGpu) else None
    if measured is None:
        return {}
    return {"gpu_memory_used_bytes": measured.used_bytes, "gpu_memory_total_bytes": measured.total_bytes}


def _signature_of(message: models_pb2.Signature) -> Signature:
    def specs(tensors: Sequence[models_pb2.TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(t.name, t.datatype, tuple(t.shape), t.optional) for t in tensors)

    return Signature(specs(message.inputs), specs(message.outputs), message.batchable)


def _specs(specs: Sequence[TensorSpec]) -> list[models_pb2.TensorSpec]:
    return [
        models_pb2.TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape, optional=spec.optional)
        for spec in specs
    ]


def _sample_of(sample: pb.WarmupSample) -> WarmupSample:
    inputs = tuple(RawTensor(t.name, t.datatype, tuple(t.shape), t.data) for t in sample.inputs)
    return WarmupSample(sample.name, sample.batch_size, inputs)
