"""What a client can ask a mesh, each as a value: the method, the request, and how its answer is read.

Both clients send these; how a call waits is all that is theirs. What raises here raises `InvalidArgument`, before
anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from headrace.client import methods
from headrace.client.inference import infer_request, output_arrays
from headrace.client.messages import build, timestamp
from headrace.client.methods import Method
from headrace.client.tensors import Array, TensorLike
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2

Answer = TypeVar("Answer")


def _as_it_is(response: Any) -> Any:
    return response


def _listed(field: str) -> Callable[[Any], list[Any]]:
    return lambda response: list(getattr(response, field))


def _nothing(_: Any) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One unary call.

    Attributes:
        method: says whether it may be sent again.
        answer: from the method's response to what the caller gets.
    """

    method: Method[Any, Any]
    request: Message
    answer: Callable[[Any], Answer] = _as_it_is


def infer(
    name: str,
    inputs: Mapping[str, TensorLike],
    *,
    sequence_id: int | str,
    sequence_start: bool,
    **options: Any,
) -> Call[dict[str, Array]]:
    """`options` are those of `infer_request`."""
    request = infer_request(name, inputs, sequence_id=sequence_id, sequence_start=sequence_start, **options)
    is_later_step = sequence_id and not sequence_start
    return Call(methods.STEP if is_later_step else methods.INFER, request, output_arrays)


def metadata(name: str, version: str) -> Call[inference_pb2.ModelMetadataResponse]:
    return Call(methods.METADATA, build(inference_pb2.ModelMetadataRequest, name=name, version=version))


def ready(name: str, version: str) -> Call[bool]:
    """Of a model; "": of the mesh."""
    if not name:
        return Call(methods.SERVER_READY, inference_pb2.ServerReadyRequest(), attrgetter("ready"))
    request = build(inference_pb2.ModelReadyRequest, name=name, version=version)
    return Call(methods.MODEL_READY, request, attrgetter("ready"))


def deploy_request(spec: models_pb2.ModelSpec, wait: bool) -> models_pb2.DeployModelRequest:
    """Holds a copy of the spec, whose source the client may yet replace by an artifact."""
    return build(models_pb2.DeployModelRequest, model=spec, wait=wait)


def deploy(request: models_pb2.DeployModelRequest) -> Call[models_pb2.Model]:
    return Call(methods.DEPLOY, request, attrgetter("model"))


def models(tenant: str) -> Call[list[models_pb2.Model]]:
    return Call(methods.LIST_MODELS, build(models_pb2.ListModelsRequest, tenant=tenant), _listed("models"))


def model(name: str) -> Call[models_pb2.Model]:
    return Call(methods.GET_MODEL, build(models_pb2.GetModelRequest, name=name), attrgetter("model"))


def explain(name: str) -> Call[models_pb2.ExplainModelResponse]:
    return Call(methods.EXPLAIN_MODEL, build(models_pb2.ExplainModelRequest, name=name))


def optimize(name: str, samples: str, asked: models_pb2.Optimization) -> Call[models_pb2.OptimizeJob]:
    """`samples` is an artifact that was uploaded."""
    request = build(models_pb2.OptimizeModelRequest, name=name, samples=samples, optimization=asked)
    return Call(methods.OPTIMIZE_MODEL, request, attrgetter("job"))


def cancel_optimization(name: str) -> Call[models_pb2.OptimizeJob]:
    request = build(models_pb2.CancelOptimizationRequest, name=name)
    return Call(methods.CANCEL_OPTIMIZATION, request, attrgetter("job"))


def variants(name: str) -> Call[models_pb2.ListVariantsResponse]:
    return Call(methods.LIST_VARIANTS, build(models_pb2.ListVariantsRequest, name=name))


def use_variant(name: str, variant: str) -> Call[models_pb2.Model]:
    request = build(models_pb2.UseVariantRequest, name=name, variant=variant)
    return Call(methods.USE_VARIANT, request, attrgetter("model"))


def delete(name: str) -> Call[None]:
    return Call(methods.DELETE_MODEL, build(models_pb2.DeleteModelRequest, name=name), _nothing)


def set_tenant(spec: tenants_pb2.TenantSpec) -> Call[tenants_pb2.Tenant]:
    return Call(methods.SET_TENANT, build(tenants_pb2.SetTenantRequest, tenant=spec), attrgetter("tenant"))


def tenants() -> Call[list[tenants_pb2.Tenant]]:
    return Call(methods.LIST_TENANTS, tenants_pb2.ListTenantsRequest(), _listed("tenants"))


def tenant(name: str) -> Call[tenants_pb2.Tenant]:
    return Call(methods.GET_TENANT, build(tenants_pb2.GetTenantRequest, name=name), attrgetter("tenant"))


def delete_tenant(name: str) -> Call[None]:
    return Call(methods.DELETE_TENANT, build(tenants_pb2.DeleteTenantRequest, name=name), _nothing)


def usage(tenant: str, since: datetime | None) -> Call[list[usage_pb2.UsageRow]]:
    request = build(usage_pb2.GetUsageRequest, tenant=tenant)
    if since is not None:
        request.since.CopyFrom(timestamp(since))
    return Call(methods.GET_USAGE, request, _listed("rows"))


def status() -> Call[mesh_pb2.GetStatusResponse]:
    return Call(methods.GET_STATUS, mesh_pb2.GetStatusRequest())


def logs(model: str, follow: bool, tail: int) -> mesh_pb2.ReadLogsRequest:
    """No unary call: its lines come as a stream."""
    return build(mesh_pb2.ReadLogsRequest, model=model, follow=follow, tail=tail)
