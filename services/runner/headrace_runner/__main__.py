"""`python -m headrace_runner --context FILE`: one runner process."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import uvloop
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from pydantic import ValidationError

from headrace.runner.v1 import runner_pb2 as pb
from headrace.runner.v1 import runner_pb2_grpc
from headrace_common.clock import SystemClock
from headrace_common.collector import spare_the_collector
from headrace_common.config import ProcessContext, load_context
from headrace_common.ending import leave
from headrace_common.errors import InvalidArgument
from headrace_common.frames import FRAMES_SUFFIX
from headrace_common.grpc_server import add_health, add_process_service, new_server
from headrace_common.life_sign import life_path
from headrace_common.logs import configure_logging, get_logger
from headrace_common.telemetry import Telemetry
from headrace_common.validation import validate
from headrace_runner.bundle_socket import BundleSocket
from headrace_runner.engines.registry import import_engines, prepare
from headrace_runner.measures import Measures
from headrace_runner.pulse import Pulse
from headrace_runner.runner import Runner
from headrace_runner.service import RunnerServicer
from headrace_runner.worker import EngineWorker

_SERVICE = "headrace.runner.v1.RunnerService"
_HEALTHY = {pb.RUNNER_STATE_STANDBY, pb.RUNNER_STATE_READY}
_LAST_ANSWERS_S = 0.5
"""For calls that are being answered when the runner is gone, such as a Load that failed."""
_ENGINE_END_S = 0.5
MOST_REQUEST_BYTES = 256 << 20
"""A load may carry warm-up batches; bundles keep to a far lower limit by themselves."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="headrace_runner", description="One runner process of a headrace mesh.")
    parser.add_argument("--context", type=Path, required=True, metavar="FILE", help="what the mesh tells this process")
    path = parser.parse_args().context
    try:
        context = load_context(path)
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"context {path}: cannot be read: {' '.join(str(error).split())}\n")
        return 2
    configure_logging(context.process, context.mesh.telemetry.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        engine_ended = loop.run(_serve(context))
    context.socket.unlink(missing_ok=True)
    if not engine_ended:
        # It hangs or still loads; its thread ends with the process.
        get_logger().warning("engine_abandoned")
    return 0


async def _serve(context: ProcessContext) -> bool:
    """Until gone. Returns whether the engine's thread has ended."""
    config = context.mesh.runner
    engines = import_engines(config.allow_fake_engine)
    _prepare_validation()
    clock = SystemClock()
    pulse = Pulse(life_path(context.socket))
    pulse.start()
    telemetry = Telemetry.start(context.process, context.mesh.telemetry)
    worker = EngineWorker(clock)
    measures = Measures(telemetry, clock)
    runner = Runner(context.process, engines, worker, measures, clock, config.slots, config.max_batch_size)
    _stop_on_signals(runner, context.mesh.autoscaler.drain_timeout_s)
    await worker.call(lambda: prepare(engines, config.preload_torch))
    try:
        await _serve_grpc(runner, telemetry, context.socket, pulse)
    finally:
        await runner.close()
        pulse.stop()
        ended = worker.stop(_ENGINE_END_S)
        telemetry.shutdown()
    return ended


async def _serve_grpc(runner: Runner, telemetry: Telemetry, socket: Path, pulse: Pulse) -> None:
    server = new_server(MOST_REQUEST_BYTES)
    health = add_health(server)
    runner_pb2_grpc.add_RunnerServiceServicer_to_server(RunnerServicer(runner), server)
    add_process_service(server, telemetry.scrape, runner.drain)
    server.add_insecure_port(f"unix:{socket}")
    # First: who finds the one finds the other.
    bundles = BundleSocket(runner, Path(f"{socket}{FRAMES_SUFFIX}"))
    await bundles.start()
    spare_the_collector()
    await server.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_follow(runner, health, pulse))
            runner.standby()
            await runner.until_gone()
    finally:
        bundles.stop()
        await server.stop(_LAST_ANSWERS_S)


async def _follow(runner: Runner, health: health_aio.HealthServicer, pulse: Pulse) -> None:
    """Health is what the lifecycle says, until gone."""
    async for status in runner.watch():
        pulse.tell(status)
        healthy = status.state in _HEALTHY
        verdict = health_pb2.HealthCheckResponse.SERVING if healthy else health_pb2.HealthCheckResponse.NOT_SERVING
        await health.set("", verdict)
        await health.set(_SERVICE, verdict)


def _stop_on_signals(runner: Runner, grace_s: float) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, runner.unload, grace_s, signal.Signals(number).name)


def _prepare_validation() -> None:
    """The first check of a request compiles the rules, which a load must not wait for."""
    try:
        validate(pb.LoadRequest())
    except InvalidArgument:
        return


if __name__ == "__main__":
    leave(main())
