"""headrace.v1.ModelService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from headrace.v1 import models_pb2 as pb
from headrace.v1 import models_pb2_grpc
from headrace_autoscaler.api.boundary import Context, answers, caller_of
from headrace_autoscaler.api.convert_jobs import job_pb, optimization_of, variants_pb
from headrace_autoscaler.api.convert_models import explanation_pb, model_pb
from headrace_autoscaler.api.convert_specs import deploy_request
from headrace_autoscaler.artifacts import ArtifactStore, FileHeader
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.jobs import serving_variant
from headrace_autoscaler.deploy import DeployService
from headrace_autoscaler.domain import DeployFailure, Model
from headrace_autoscaler.jobs.service import JobService
from headrace_autoscaler.ports import Fleet
from headrace_common.errors import InvalidArgument, NotFound
from headrace_common.validation import validate

MAX_CHUNK_BYTES = 4 << 20


class ModelServicer(models_pb2_grpc.ModelServiceServicer):
    def __init__(
        self,
        catalogue: StoredCatalogue,
        deploys: DeployService,
        jobs: JobService,
        artifacts: ArtifactStore,
        fleet: Fleet,
    ) -> None:
        self._catalogue = catalogue
        self._deploys = deploys
        self._jobs = jobs
        self._artifacts = artifacts
        self._fleet = fleet

    @answers
    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb.UploadArtifactRequest], context: Context
    ) -> pb.UploadArtifactResponse:
        artifact = await self._artifacts.receive(_parts(request_iterator), announced=True)
        return pb.UploadArtifactResponse(artifact=artifact.name, size_bytes=artifact.size_bytes)

    @answers
    async def DeployModel(self, request: pb.DeployModelRequest, context: Context) -> pb.DeployModelResponse:
        caller = caller_of(context)
        deploy = deploy_request(request.model, caller.tenant)
        caller.check_may_change(deploy.spec.name, deploy.spec.tenant)
        model = await self._deploys.deploy(deploy, wait=request.wait)
        return pb.DeployModelResponse(model=self._shown(model))

    @answers
    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=self._shown(self._found(request.name)))

    @answers
    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        models = self._catalogue.models_of(request.tenant) if request.tenant else self._catalogue.models()
        ordered = sorted(models, key=lambda model: model.spec.name)
        return pb.ListModelsResponse(models=[self._shown(model) for model in ordered])

    @answers
    async def ExplainModel(self, request: pb.ExplainModelRequest, context: Context) -> pb.ExplainModelResponse:
        return explanation_pb(self._fleet.explain(self._found(request.name).spec))

    @answers
    async def OptimizeModel(self, request: pb.OptimizeModelRequest, context: Context) -> pb.OptimizeModelResponse:
        self._check_may_change(request.name, context)
        job = await self._jobs.submit(request.name, request.samples, optimization_of(request.optimization))
        return pb.OptimizeModelResponse(job=job_pb(job, self._catalogue.model(job.model), None))

    @answers
    async def CancelOptimization(
        self, request: pb.CancelOptimizationRequest, context: Context
    ) -> pb.CancelOptimizationResponse:
        self._check_may_change(request.name, context)
        job = await self._jobs.cancel(request.name)
        return pb.CancelOptimizationResponse(job=job_pb(job, self._catalogue.model(job.model), None))

    @answers
    async def ListVariants(self, request: pb.ListVariantsRequest, context: Context) -> pb.ListVariantsResponse:
        model, job = self._found(request.name), self._jobs.job(request.name)
        shown = job_pb(job, model, self._jobs.progress(request.name))
        return pb.ListVariantsResponse(job=shown, variants=variants_pb(job, model))

    @answers
    async def UseVariant(self, request: pb.UseVariantRequest, context: Context) -> pb.UseVariantResponse:
        self._check_may_change(request.name, context)
        return pb.UseVariantResponse(model=self._shown(await self._jobs.use(request.name, request.variant)))

    @answers
    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Context) -> pb.DeleteModelResponse:
        owners = self._deploys.owners(request.name)
        if not owners:
            raise NotFound(_not_found(request.name, self._catalogue.failure(request.name)))
        caller = caller_of(context)
        if caller.named and caller.tenant in owners:
            owners = frozenset({caller.tenant})
        caller.check_may_change(request.name, min(owners))
        await self._deploys.delete(request.name, owners)
        return pb.DeleteModelResponse()

    def _shown(self, model: Model) -> pb.Model:
        name = model.spec.name
        shown = model_pb(model, self._fleet.view(name), self._catalogue.failure(name))
        if (job := self._catalogue.job(name)) is not None:
            shown.job.CopyFrom(job_pb(job, model, self._jobs.progress(name)))
            shown.variant = serving_variant(job, model)
        return shown

    def _check_may_change(self, name: str, context: Context) -> None:
        caller_of(context).check_may_change(name, self._found(name).spec.tenant)

    def _found(self, name: str) -> Model:
        model = self._catalogue.model(name)
        if model is None:
            raise NotFound(_not_found(name, self._catalogue.failure(name)))
        return model


def _not_found(name: str, failure: DeployFailure | None) -> str:
    if failure is None:
        return f"there is no model {name!r}"
    at = datetime.fromtimestamp(failure.at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"there is no model {name!r}: its last deploy failed at {at}: {failure.reason}"


async def _parts(requests: AsyncIterator[pb.UploadArtifactRequest]) -> AsyncIterator[FileHeader | bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            validate(request)
            yield FileHeader(request.file.path, request.file.size_bytes, request.file.sha256)
            continue
        # The same rule as in the proto, without handing megabytes to the validator.
        if len(request.chunk) > MAX_CHUNK_BYTES:
            raise InvalidArgument(f"chunk: {len(request.chunk)} bytes, expected at most {MAX_CHUNK_BYTES}")
        yield request.chunk
