"""Models as `describe` and `list` show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from headrace.v1 import mesh_pb2, models_pb2
from headrace_autoscaler.api.convert_quantities import shape_pb
from headrace_autoscaler.api.convert_specs import model_spec_pb
from headrace_autoscaler.api.convert_time import duration, timestamp
from headrace_autoscaler.core.explaining import Explanation, Obstacle
from headrace_autoscaler.domain import (
    ColdStart,
    DecisionRecord,
    DeployFailure,
    InstanceView,
    Model,
    ModelView,
    Revision,
    RevisionState,
    Signature,
    TensorSpec,
)
from headrace_autoscaler.sequences import public_signature

_VERSION_STATES = {
    RevisionState.LOADING: models_pb2.VERSION_STATE_LOADING,
    RevisionState.SERVING: models_pb2.VERSION_STATE_SERVING,
    RevisionState.RETIRING: models_pb2.VERSION_STATE_RETIRING,
}


def state_of(model: Model, view: ModelView) -> tuple[models_pb2.ModelState, str]:
    """The model's state and, where that is not plain, why."""
    serving = {revision.revision for revision in model.revisions if revision.state is RevisionState.SERVING}
    states = {instance.state for instance in view.instances if instance.revision in serving}
    if model.deleting:
        return models_pb2.MODEL_STATE_DELETING, "its instances answer what they have accepted"
    if not serving:
        return models_pb2.MODEL_STATE_LOADING, "the first load is under way"
    if "ready" in states:
        return models_pb2.MODEL_STATE_READY, view.blocked_reason
    if view.blocked_reason:
        return models_pb2.MODEL_STATE_BLOCKED, view.blocked_reason
    if states & {"starting", "loading"}:
        return models_pb2.MODEL_STATE_STARTING, ""
    return models_pb2.MODEL_STATE_IDLE, ""


def model_pb(model: Model, view: ModelView, failure: DeployFailure | None) -> models_pb2.Model:
    state, reason = state_of(model, view)
    return models_pb2.Model(
        name=model.spec.name,
        tenant=model.spec.tenant,
        state=state,
        reason=reason,
        versions=[_version(revision) for revision in model.revisions],
        instances=[instance_pb(instance) for instance in view.instances],
        min_instances=model.spec.min_instances,
        max_instances=model.spec.max_instances,
        spec=model_spec_pb(model.spec),
        created_at=timestamp(model.created_at),
        cold_starts=models_pb2.ColdStarts(
            count=view.cold_start_count,
            recent=[_cold_start(start) for start in view.cold_starts],
            p95=None if view.cold_start_p95_s is None else duration(view.cold_start_p95_s),
        ),
        decisions=[_decision(decision) for decision in view.decisions],
        last_failure=_failure(_newest(failure, view.outgrown)),
        traffic=models_pb2.Traffic(
            requests=view.traffic.requests,
            cache_hits=view.traffic.cache_hits,
            mean_rate=view.traffic.mean_rate,
            busiest_rate=view.traffic.busiest_rate,
            mean_batch=view.traffic.mean_batch,
            mean_execution=duration(view.traffic.mean_execution_s),
        ),
    )


def explanation_pb(explanation: Explanation) -> models_pb2.ExplainModelResponse:
    return models_pb2.ExplainModelResponse(
        name=explanation.model,
        tenant=explanation.tenant,
        current=explanation.current,
        desired=explanation.desired,
        sentence=explanation.sentence,
        obstacles=_obstacles_pb(explanation.obstacles),
        refused=[
            models_pb2.RefusedRequests(
                tenant=each.tenant, reason=each.reason, count=each.count, obstacles=_obstacles_pb(each.obstacles)
            )
            for each in explanation.refused
        ],
    )


def _obstacles_pb(obstacles: Iterable[Obstacle]) -> list[models_pb2.Obstacle]:
    return [models_pb2.Obstacle(**asdict(each)) for each in obstacles]


def summary_pb(model: Model, view: ModelView) -> mesh_pb2.ModelSummary:
    return mesh_pb2.ModelSummary(
        name=model.spec.name,
        tenant=model.spec.tenant,
        state=state_of(model, view)[0],
        instances=len(view.instances),
        queued=view.queued,
        in_flight=view.in_flight,
        requests=view.requests,
    )


def instance_pb(instance: InstanceView) -> models_pb2.Instance:
    return models_pb2.Instance(
        id=instance.id,
        state=instance.state,
        revision=instance.revision,
        version=instance.version,
        shape=shape_pb(instance.resources),
        started_at=timestamp(instance.started_at),
        pid=instance.pid,
        resident_bytes=instance.resident_bytes,
        requests=instance.requests,
        cpu_enforcement=instance.enforcement.cpu,
        memory_enforcement=instance.enforcement.memory,
        private_bytes=instance.private_bytes,
        profile_us=dict(instance.profile_us),
    )


def _newest(*failures: DeployFailure | None) -> DeployFailure | None:
    return max((each for each in failures if each is not None), key=lambda each: each.at, default=None)


def _failure(failure: DeployFailure | None) -> models_pb2.DeployFailure | None:
    if failure is None:
        return None
    return models_pb2.DeployFailure(at=timestamp(failure.at), reason=failure.reason)


def _version(revision: Revision) -> models_pb2.ModelVersion:
    shown = models_pb2.ModelVersion(
        version=revision.version,
        revision=revision.revision,
        state=_VERSION_STATES[revision.state],
        artifact=revision.artifact,
        size_bytes=sum(file.size_bytes for file in revision.files),
        engine=revision.engine,
        deployed_at=timestamp(revision.deployed_at),
    )
    if revision.loaded is not None:
        shown.signature.CopyFrom(_signature(public_signature(revision.loaded.signature, revision.sequences)))
        shown.max_batch_size = revision.loaded.max_batch_size
        shown.batching = revision.loaded.batching
        shown.profile_us.update(revision.loaded.profile_us)
    return shown


def _signature(signature: Signature) -> models_pb2.Signature:
    return models_pb2.Signature(
        inputs=[_tensor(tensor) for tensor in signature.inputs],
        outputs=[_tensor(tensor) for tensor in signature.outputs],
        batchable=signature.batchable,
    )


def _tensor(tensor: TensorSpec) -> models_pb2.TensorSpec:
    return models_pb2.TensorSpec(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, optional=tensor.optional
    )


def _cold_start(start: ColdStart) -> models_pb2.ColdStart:
    return models_pb2.ColdStart(
        at=timestamp(start.at),
        revision=start.revision,
        decide=duration(start.decide_s),
        place=duration(start.place_s),
        load=duration(start.load_s),
        warm=duration(start.warm_s),
        first_answer=duration(start.first_answer_s),
        total=duration(start.total_s),
        from_standby=start.from_standby,
    )


def _decision(decision: DecisionRecord) -> models_pb2.Decision:
    return models_pb2.Decision(
        at=timestamp(decision.at),
        revision=decision.revision,
        current=decision.current,
        desired=decision.desired,
        reason=decision.reason,
        inputs=dict(decision.inputs),
    )
