"""headrace.v1.MeshService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib import metadata
from pathlib import Path

from headrace.v1 import mesh_pb2 as pb
from headrace.v1 import mesh_pb2_grpc
from headrace_autoscaler.api.boundary import Context, answers, streams
from headrace_autoscaler.api.convert_models import instance_pb, summary_pb
from headrace_autoscaler.api.convert_time import duration, timestamp
from headrace_autoscaler.api.convert_usage import standing_pb
from headrace_autoscaler.api.log_files import LogFiles
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.budgets import BudgetState
from headrace_autoscaler.domain import RouterView, StandbyTarget
from headrace_autoscaler.ports import Fleet
from headrace_common.clock import Clock

DEFAULT_TAIL = 200
POLL_PERIOD_S = 0.25


class MeshServicer(mesh_pb2_grpc.MeshServiceServicer):
    def __init__(self, catalogue: StoredCatalogue, fleet: Fleet, clock: Clock, logs_dir: Path) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._clock = clock
        self._logs_dir = logs_dir
        self._version = metadata.version("headrace")

    @answers
    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        fleet = self._fleet.overview()
        models = sorted(self._catalogue.models(), key=lambda model: model.spec.name)
        return pb.GetStatusResponse(
            version=self._version,
            epoch=fleet.epoch,
            uptime=duration(max(0.0, self._clock.wall() - fleet.started_at)),
            routers=[_router(router) for router in fleet.routers],
            standby=[instance_pb(instance) for instance in fleet.standby],
            standby_target=_standby_target(fleet.standby_target),
            models=[summary_pb(model, self._fleet.view(model.spec.name)) for model in models],
            cpu_enforcement=fleet.enforcement.cpu,
            memory_enforcement=fleet.enforcement.memory,
            budgets=[
                standing_pb(standing)
                for _, standings in sorted(self._fleet.standings().items())
                for standing in standings
                if standing.state is not BudgetState.OK
            ],
        )

    @streams
    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> AsyncIterator[pb.ReadLogsResponse]:
        files = LogFiles(self._logs_dir, request.model)
        lines = await asyncio.to_thread(files.newest, request.tail or DEFAULT_TAIL)
        while True:
            for line in lines:
                yield pb.ReadLogsResponse(line=line)
            if not request.follow:
                return
            await asyncio.sleep(POLL_PERIOD_S)
            lines = await asyncio.to_thread(files.added)


def _standby_target(target: StandbyTarget | None) -> pb.StandbyTarget | None:
    if target is None:
        return None
    return pb.StandbyTarget(runners=target.runners, reason=target.reason, inputs=dict(target.inputs))


def _router(router: RouterView) -> pb.RouterStatus:
    return pb.RouterStatus(
        id=router.id,
        queued=router.queued,
        in_flight=router.in_flight,
        requests=router.requests,
        refused=router.refused,
        connected_at=timestamp(router.connected_at),
    )
