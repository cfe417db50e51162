"""headrace.v1.UsageService."""

from __future__ import annotations

from headrace.v1 import usage_pb2 as pb
from headrace.v1 import usage_pb2_grpc
from headrace_autoscaler.api.boundary import Context, answers
from headrace_autoscaler.api.convert_time import seconds
from headrace_autoscaler.api.convert_usage import usage_pb
from headrace_autoscaler.catalogue import StoredCatalogue


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    def __init__(self, catalogue: StoredCatalogue, currency: str) -> None:
        self._catalogue = catalogue
        self._currency = currency

    @answers
    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        rows = await self._catalogue.usage(request.tenant or None, seconds(request.since))
        return pb.GetUsageResponse(rows=[usage_pb(row, self._currency) for row in rows])
