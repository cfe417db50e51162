"""Open Inference over gRPC: convert, call, convert. The host maps the errors that are raised here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NoReturn

from headrace.oip import inference_pb2 as pb
from headrace.oip import inference_pb2_grpc
from headrace_common.clock import Clock
from headrace_router.oip import describe
from headrace_router.oip.caller import Caller, caller_of_context
from headrace_router.oip.decode import decode_infer
from headrace_router.oip.encode import encode_infer
from headrace_router.oip.enquiries import Enquiries
from headrace_router.oip.signature import Signatures
from headrace_router.oip.stream import MAX_IN_FLIGHT, InferStream
from headrace_router.ports import Catalogue, DataPlane


class InferenceServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """inference.GRPCInferenceService.

    Of a context it uses `invocation_metadata()`, `time_remaining()` and, where there is one,
    `cancelled()`, so any host that has these will do.

    Args:
        max_in_flight: requests in hand per ModelStreamInfer stream.
    """

    def __init__(
        self, catalogue: Catalogue, plane: DataPlane, clock: Clock, max_in_flight: int = MAX_IN_FLIGHT
    ) -> None:
        self._catalogue = catalogue
        self._plane = plane
        self._clock = clock
        self._max_in_flight = max_in_flight
        self._enquiries = Enquiries(catalogue, plane)
        self._signatures = Signatures()

    async def ServerLive(self, _request: pb.ServerLiveRequest, _context: Any) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, _request: pb.ServerReadyRequest, _context: Any) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._enquiries.server_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        tenant = caller_of_context(context).tenant
        return pb.ModelReadyResponse(ready=self._enquiries.known_and_ready(tenant, request.name, request.version))

    async def ServerMetadata(self, _request: pb.ServerMetadataRequest, _context: Any) -> pb.ServerMetadataResponse:
        return describe.server_metadata()

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        return self._enquiries.metadata(caller_of_context(context).tenant, request.name, request.version)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        return await self._infer(request, caller_of_context(context))

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        caller_of_context(context)  # Who calls is the same for all of a stream: it is refused as a whole.
        stream = InferStream(lambda request: self._infer(request, caller_of_context(context)), self._max_in_flight)
        async with aclosing(stream.answers(request_iterator)) as answers:
            async for answer in answers:
                yield answer

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:
        tenant = caller_of_context(context).tenant
        return pb.ModelConfigResponse(config=self._enquiries.config(tenant, request.name, request.version))

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Any) -> pb.ModelStatisticsResponse:
        return self._enquiries.statistics(caller_of_context(context).tenant, request.name, request.version)

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Any) -> pb.RepositoryIndexResponse:
        return self._enquiries.index(caller_of_context(context).tenant, request.ready)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Any
    ) -> pb.RepositoryModelLoadResponse:
        self._enquiries.load(caller_of_context(context).tenant, request.model_name, request.parameters)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest, context: Any) -> NoReturn:
        self._enquiries.unload(caller_of_context(context).tenant, request.model_name)

    async def _infer(self, request: pb.ModelInferRequest, caller: Caller) -> pb.ModelInferResponse:
        entry = self._catalogue.resolve(caller.tenant, request.model_name, request.model_version)
        inference = decode_infer(request, self._signatures.of(entry), caller, self._clock.monotonic())
        return encode_infer(entry, request.id, await self._plane.infer(inference))
