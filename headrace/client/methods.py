"""The calls that headrace makes, as typed descriptions that any channel can carry out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from headrace.control.v1 import process_pb2
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2, models_pb2, tenants_pb2, usage_pb2

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One gRPC method.

    Attributes:
        path: "/package.Service/Method".
        request: message class that is sent.
        response: message class that comes back.
        repeatable: sending it twice does what sending it once does, so it may be retried.
    """

    path: str
    request: type[Request]
    response: type[Response]
    repeatable: bool = True

    def on(self, channel: Any, kind: str = "unary_unary") -> Any:
        """The callable that grpc makes of it: `kind` is a method of `grpc.Channel`."""
        return getattr(channel, kind)(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )


_OIP = "/inference.GRPCInferenceService/"
_MODELS = "/headrace.v1.ModelService/"
_TENANTS = "/headrace.v1.TenantService/"
_MESH = "/headrace.v1.MeshService/"
_PROCESS = "/headrace.control.v1.ProcessService/"

INFER = Method(_OIP + "ModelInfer", inference_pb2.ModelInferRequest, inference_pb2.ModelInferResponse)
STEP = Method(_OIP + "ModelInfer", inference_pb2.ModelInferRequest, inference_pb2.ModelInferResponse, repeatable=False)
"""Of a sequence, past its beginning: sent twice, it may be two steps."""
STREAM_INFER = Method(
    _OIP + "ModelStreamInfer", inference_pb2.ModelInferRequest, inference_pb2.ModelStreamInferResponse
)
SERVER_LIVE = Method(_OIP + "ServerLive", inference_pb2.ServerLiveRequest, inference_pb2.ServerLiveResponse)
SERVER_READY = Method(_OIP + "ServerReady", inference_pb2.ServerReadyRequest, inference_pb2.ServerReadyResponse)
MODEL_READY = Method(_OIP + "ModelReady", inference_pb2.ModelReadyRequest, inference_pb2.ModelReadyResponse)
METADATA = Method(_OIP + "ModelMetadata", inference_pb2.ModelMetadataRequest, inference_pb2.ModelMetadataResponse)

UPLOAD = Method(_MODELS + "UploadArtifact", models_pb2.UploadArtifactRequest, models_pb2.UploadArtifactResponse)
# Every deploy is a new revision, so a lost answer must not make two.
DEPLOY = Method(
    _MODELS + "DeployModel", models_pb2.DeployModelRequest, models_pb2.DeployModelResponse, repeatable=False
)
GET_MODEL = Method(_MODELS + "GetModel", models_pb2.GetModelRequest, models_pb2.GetModelResponse)
EXPLAIN_MODEL = Method(_MODELS + "ExplainModel", models_pb2.ExplainModelRequest, models_pb2.ExplainModelResponse)
LIST_MODELS = Method(_MODELS + "ListModels", models_pb2.ListModelsRequest, models_pb2.ListModelsResponse)
# A second job would take the place of the first, and begin anew; so would a second deploy of a variant.
OPTIMIZE_MODEL = Method(
    _MODELS + "OptimizeModel", models_pb2.OptimizeModelRequest, models_pb2.OptimizeModelResponse, repeatable=False
)
CANCEL_OPTIMIZATION = Method(
    _MODELS + "CancelOptimization",
    models_pb2.CancelOptimizationRequest,
    models_pb2.CancelOptimizationResponse,
    repeatable=False,
)
LIST_VARIANTS = Method(_MODELS + "ListVariants", models_pb2.ListVariantsRequest, models_pb2.ListVariantsResponse)
USE_VARIANT = Method(
    _MODELS + "UseVariant", models_pb2.UseVariantRequest, models_pb2.UseVariantResponse, repeatable=False
)
# A second DeleteModel says NOT_FOUND, which would look like a failure.
DELETE_MODEL = Method(
    _MODELS + "DeleteModel", models_pb2.DeleteModelRequest, models_pb2.DeleteModelResponse, repeatable=False
)

SET_TENANT = Method(_TENANTS + "SetTenant", tenants_pb2.SetTenantRequest, tenants_pb2.SetTenantResponse)
GET_TENANT = Method(_TENANTS + "GetTenant", tenants_pb2.GetTenantRequest, tenants_pb2.GetTenantResponse)
LIST_TENANTS = Method(_TENANTS + "ListTenants", tenants_pb2.ListTenantsRequest, tenants_pb2.ListTenantsResponse)
DELETE_TENANT = Method(
    _TENANTS + "DeleteTenant", tenants_pb2.DeleteTenantRequest, tenants_pb2.DeleteTenantResponse, repeatable=False
)

GET_USAGE = Method("/headrace.v1.UsageService/GetUsage", usage_pb2.GetUsageRequest, usage_pb2.GetUsageResponse)
GET_STATUS = Method(_MESH + "GetStatus", mesh_pb2.GetStatusRequest, mesh_pb2.GetStatusResponse)
READ_LOGS = Method(_MESH + "ReadLogs", mesh_pb2.ReadLogsRequest, mesh_pb2.ReadLogsResponse)

SCRAPE_METRICS = Method(_PROCESS + "ScrapeMetrics", process_pb2.ScrapeMetricsRequest, process_pb2.ScrapeMetricsResponse)
DRAIN = Method(_PROCESS + "Drain", process_pb2.DrainRequest, process_pb2.DrainResponse)
