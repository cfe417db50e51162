"""The autoscaler's parts, wired together, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from headrace.control.v1 import control_pb2_grpc
from headrace_autoscaler import api
from headrace_autoscaler.artifacts import ArtifactStore
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.control.board import Board
from headrace_autoscaler.control.server import ControlServicer
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.deploy import DeployService
from headrace_autoscaler.deploy_plan import Offer
from headrace_autoscaler.fleet.books import Opening
from headrace_autoscaler.fleet.fleet import FleetParts, RunnerFleet
from headrace_autoscaler.jobs.files import JobFiles
from headrace_autoscaler.jobs.optimizer import ProcessOptimizer
from headrace_autoscaler.jobs.service import JobService
from headrace_autoscaler.measures import observe_fleet
from headrace_autoscaler.providers.base import InstanceProvider
from headrace_autoscaler.providers.local import LocalProvider, open_cgroups
from headrace_autoscaler.providers.machine import capacity
from headrace_autoscaler.shape_catalog import load_catalog
from headrace_autoscaler.stopping import Stopping
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_autoscaler.succession import take_over
from headrace_common.clock import SystemClock
from headrace_common.collector import spare_the_collector
from headrace_common.config import MIB, ProcessContext
from headrace_common.gpus import find_gpus, own_gpu
from headrace_common.grpc_server import add_health, add_process_service, new_server
from headrace_common.logs import get_logger
from headrace_common.telemetry import Telemetry

_MAX_MESSAGE_BYTES = 64 * MIB
_LAST_ANSWERS_S = 1.0
_SHORT_S = 2.0
"""For a step of the stop that waits for nobody else."""
_NOBODY_WAITS_S = 1.0
_SPARE_S = 4.0
"""For a stop beyond its drain; whoever stops us gives us a little more."""


@dataclass(slots=True)
class _Running:
    """What `run` has started and has to end."""

    server: grpc.aio.Server
    health: Any
    catalogue: StoredCatalogue
    deploys: DeployService
    jobs: JobService
    fleet: RunnerFleet
    control: ControlServicer
    provider: InstanceProvider
    telemetry: Telemetry


class Autoscaler:
    """One autoscaler, from its start to its end."""

    def __init__(self, context: ProcessContext) -> None:
        self._context = context
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._was_replaced = False
        self._log = get_logger()

    def stop(self) -> None:
        """Ends `run`."""
        self._stop.set()

    async def run(self) -> bool:
        """Serves until it is told to stop. Whether it was replaced by a newer autoscaler."""
        running = await self._start()
        self._log.info("serving", socket=str(self._context.socket))
        try:
            await self._stop.wait()
        finally:
            await self._end(running)
        return self._was_replaced

    async def _start(self) -> _Running:
        context, config = self._context, self._context.mesh.autoscaler
        for directory in (context.state_dir, context.logs_dir, context.runtime_dir):
            directory.mkdir(parents=True, exist_ok=True)
        artifacts = ArtifactStore(
            context.state_dir / "artifacts", config.max_artifact_bytes, config.artifact_ttl_s, self._clock
        )
        url = config.database_url or sqlite_url(context.state_dir / "headrace.db")
        store = await asyncio.to_thread(SqlStore.open, url)
        epoch = await take_over(store, context.state_dir / "epoch")
        catalogue = await StoredCatalogue.open(store, artifacts, self._clock)
        prices = LocalPrices.parse(config.price_per_cpu_hour, config.currency)
        board = Board(prices, context.mesh.router.processes, self._clock, catalogue.promised)
        provider = LocalProvider(context, cgroups=await asyncio.to_thread(open_cgroups, context))
        gpu = own_gpu(await asyncio.to_thread(find_gpus))
        room = capacity(config, gpu)
        opening = await asyncio.to_thread(Opening.read, store, self._clock.wall())
        parts = FleetParts(
            context,
            epoch,
            catalogue,
            provider,
            board,
            catalogue.post,
            self._clock,
            room,
            load_catalog(config.catalog).rates,
            opening,
            self._replaced,
        )
        fleet = RunnerFleet(parts)
        offer = Offer(room, context.mesh.runner.allow_fake_engine, gpu.target if gpu is not None else "")
        deploys = DeployService(catalogue, artifacts, fleet, self._clock, config, offer)
        files = JobFiles(artifacts, context.state_dir / "jobs", config.max_samples_bytes)
        jobs = JobService(catalogue, deploys, fleet, files, ProcessOptimizer(), self._clock, config)
        control = ControlServicer(epoch, board, fleet, self._replaced, catalogue.forget_promised)
        telemetry = Telemetry.start(context.process, context.mesh.telemetry)
        observe_fleet(telemetry, fleet)
        server = new_server(_MAX_MESSAGE_BYTES)
        health = add_health(server)
        add_process_service(server, telemetry.scrape, lambda _timeout_s: _stop_serving(health))
        control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
        api.register(
            server,
            catalogue=catalogue,
            deploys=deploys,
            jobs=jobs,
            artifacts=artifacts,
            fleet=fleet,
            clock=self._clock,
            logs_dir=context.logs_dir,
            currency=config.currency,
        )
        await fleet.start()
        deploys.start()
        jobs.start()
        control.start()
        _bind(server, context.socket)
        await server.start()
        # A full pass over what is imported and stored stops all streams for tens of milliseconds.
        spare_the_collector()
        return _Running(server, health, catalogue, deploys, jobs, fleet, control, provider, telemetry)

    async def _end(self, running: _Running) -> None:
        """Routers have been drained by whoever stops the mesh: what runs is not needed any more. One that
        was replaced leaves everything to its successor."""
        routers = running.fleet.router_count
        self._log.info("stopping", replaced=self._was_replaced, routers=routers)
        # Without a router nobody waits for an answer.
        drain_s = self._context.mesh.autoscaler.drain_timeout_s if routers else _NOBODY_WAITS_S
        stopping = Stopping(self._clock, drain_s + _SPARE_S)
        await stopping.step("health", _stop_serving(running.health), _SHORT_S)
        await stopping.step("routers' streams", running.control.close(), _SHORT_S)
        await stopping.step("jobs", running.jobs.close(), _SHORT_S)
        # Before the server: whoever waits for a deploy is told why it ends.
        await stopping.step("deploys", running.deploys.close(), _SHORT_S)
        await stopping.step("last answers", running.server.stop(_LAST_ANSWERS_S), _LAST_ANSWERS_S + _SHORT_S)
        fleet = running.fleet
        await stopping.step("runners", fleet.close() if self._was_replaced else fleet.shut_down(drain_s))
        await stopping.step("provider", running.provider.close(), _SHORT_S)
        await stopping.step("catalogue", running.catalogue.close(), _SHORT_S)
        await stopping.step("telemetry", asyncio.to_thread(running.telemetry.shutdown), _SHORT_S)
        self._log.info("stopped")
        if not self._was_replaced:
            self._context.socket.unlink(missing_ok=True)

    def _replaced(self) -> None:
        self._was_replaced = True
        self._stop.set()


def _bind(server: grpc.aio.Server, socket: Path) -> None:
    # An autoscaler that was killed leaves its socket; nobody else may listen there, as the state
    # directory is locked.
    socket.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{socket}")


async def _stop_serving(health: Any) -> int:
    await health.enter_graceful_shutdown()
    return 0
