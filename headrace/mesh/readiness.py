"""When the mesh serves: the front answers, all routers are connected, and a standby runner waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from headrace.client import methods
from headrace.mesh.keeper import Keeper
from headrace.mesh.listening import ListenAddress
from headrace.mesh.process import tail
from headrace.oip import inference_pb2
from headrace.v1 import mesh_pb2

_POLL_S = 0.05
_CALL_S = 2.0
_CRASH_LOOP = 3
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Missing:
    """What there is not yet.

    Attributes:
        process: whose fault it is.
        reason: for people.
    """

    process: str
    reason: str


class NotReady(Exception):
    """The mesh does not come up. The message says why and shows the end of the log that knows more."""


class CannotStart(NotReady):
    """A service says that it cannot start on this machine. The message is one line, with its reason."""


def find_missing(
    status: mesh_pb2.GetStatusResponse | None, front_ready: bool, standby: int, routers: int
) -> Missing | None:
    """Looks at what was seen.

    Args:
        status: the autoscaler's answer; None: it gave none.
        front_ready: whether the public port answered that it is ready.
        standby: runners that are to wait; one of them is enough to begin.
        routers: router processes that were started.
    """
    if status is None:
        return Missing("autoscaler", "the autoscaler does not answer")
    connected = {router.id for router in status.routers}
    for index in range(routers):
        if f"router-{index}" not in connected:
            return Missing(f"router-{index}", f"router-{index} has not connected to the autoscaler")
    if not front_ready:
        return Missing("router-0", "the front does not answer that it is ready")
    if standby and not any(runner.state in ("", "standby") for runner in status.standby):
        return Missing("autoscaler", "no standby runner has come up")
    return None


async def wait_until_ready(
    keepers: Sequence[Keeper], front: ListenAddress, runtime: Path, standby: int, timeout_s: float
) -> None:
    """Polls until nothing is missing.

    Raises:
        CannotStart: a process says so of itself.
        NotReady: the time is up, or a process dies again and again.
    """
    routers = sum(keeper.name.startswith("router-") for keeper in keepers)
    missing: Missing | None = Missing("autoscaler", "the autoscaler does not answer")
    try:
        async with (
            asyncio.timeout(timeout_s),
            grpc.aio.insecure_channel(f"unix:{runtime / 'autoscaler.sock'}", options=_OPTIONS) as inside,
            grpc.aio.insecure_channel(str(front), options=_OPTIONS) as outside,
        ):
            while missing is not None:
                _refuse_to_wait(keepers)
                status, ready = await asyncio.gather(_status(inside), _front_ready(outside))
                missing = find_missing(status, ready, standby, routers)
                if missing is not None:
                    await asyncio.sleep(_POLL_S)
    except TimeoutError:
        blamed = missing or Missing("autoscaler", "no answer in time")
        raise NotReady(
            _with_logs(f"not ready after {timeout_s:g} s: {blamed.reason}", blamed.process, keepers)
        ) from None


def _refuse_to_wait(keepers: Sequence[Keeper]) -> None:
    for keeper in keepers:
        if keeper.refusal:
            raise CannotStart(f"{keeper.name}: {keeper.refusal}")
        if keeper.deaths >= _CRASH_LOOP:
            what = f"{keeper.name} died {keeper.deaths} times while starting, last with {keeper.last_exit}"
            raise NotReady(_with_logs(what, keeper.name, keepers))


def _with_logs(what: str, process: str, keepers: Sequence[Keeper]) -> str:
    log = next(keeper.log for keeper in keepers if keeper.name == process)
    logs = [log, *_newest_runner_log(log.parent)] if process == "autoscaler" else [log]
    parts = [what]
    for path in logs:
        lines = tail(path)
        parts.append(f"the end of {path}:" if lines else f"{path} is empty")
        parts.extend(f"  {line}" for line in lines)
    return "\n".join(parts)


def _newest_runner_log(directory: Path) -> list[Path]:
    return sorted(directory.glob("runner-*.log"), key=lambda path: path.stat().st_mtime)[-1:]


async def _status(channel: grpc.aio.Channel) -> mesh_pb2.GetStatusResponse | None:
    try:
        response: mesh_pb2.GetStatusResponse = await methods.GET_STATUS.on(channel)(
            mesh_pb2.GetStatusRequest(), timeout=_CALL_S
        )
    except grpc.RpcError:
        return None
    return response


async def _front_ready(channel: grpc.aio.Channel) -> bool:
    try:
        response: inference_pb2.ServerReadyResponse = await methods.SERVER_READY.on(channel)(
            inference_pb2.ServerReadyRequest(), timeout=_CALL_S
        )
    except grpc.RpcError:
        return False
    return response.ready
