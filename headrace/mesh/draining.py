"""Takes a router out of service so that no request that it accepted fails.

The order matters. Envoy first tells open connections to go elsewhere (GOAWAY, `Connection: close`)
with whatever it answers next; then the router refuses new requests (UNAVAILABLE, which clients may
send elsewhere) and answers what it has; then Envoy closes its port, and gets the time to write the
last answers out. Only after that may it be stopped: SIGTERM to Envoy drops what is in flight. The port
is not closed sooner, because the router's own socket, which the drain is asked over, goes with it.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterable
from pathlib import Path

import grpc

from headrace.client import methods
from headrace.control.v1 import process_pb2
from headrace_common.logs import get_logger

_ADMIN_TIMEOUT_S = 2.0
# Bounded: some answers, such as a watch of health, never end.
_FLUSH_S = 1.0
_POLL_S = 0.02
_IN_FLIGHT = "/stats?filter=downstream_(rq_active|cx_tx_bytes_buffered)$"


async def drain_router(runtime: Path, router: str, timeout_s: float) -> int:
    """Drains one router.

    Args:
        runtime: where its sockets are.
        router: its process name.
        timeout_s: what requests in hand get.

    Returns:
        How many requests were given up on.
    """
    admin = runtime / f"{router}-admin.sock"
    await _admin(admin, "POST", "/drain_listeners?graceful&skip_exit")
    abandoned = await _drain_process(runtime / f"{router}.sock", timeout_s)
    await _admin(admin, "POST", "/drain_listeners")
    if abandoned == 0:
        await _flushed(admin)
    return abandoned


def in_flight(stats: Iterable[str]) -> int:
    """What Envoy still has to write, out of its text statistics: requests, and bytes, of everyone but its admin."""
    total = 0
    for line in stats:
        name, _, value = line.rpartition(": ")
        if not name.startswith("http.admin.") and not name.startswith("listener.admin.") and value.strip().isdecimal():
            total += int(value)
    return total


async def _drain_process(path: Path, timeout_s: float) -> int:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        request = process_pb2.DrainRequest(timeout_ms=max(1, round(timeout_s * 1000)))
        try:
            response: process_pb2.DrainResponse = await methods.DRAIN.on(channel)(request, timeout=timeout_s + 5)
        except grpc.RpcError as error:
            get_logger().warning("drain failed", socket=str(path), error=error.details())
            return 0
    return response.abandoned


async def _flushed(admin: Path) -> None:
    """Waits, for a bounded time, until Envoy has written out every answer."""
    try:
        async with asyncio.timeout(_FLUSH_S):
            # Envoy has no event to wait for.
            while in_flight((await _admin(admin, "GET", _IN_FLIGHT)).splitlines()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        get_logger().warning("answers not written out in time", admin=str(admin))


async def _admin(path: Path, method: str, target: str) -> str:
    """Asks Envoy's admin interface; "" where it does not answer, which a stop must survive."""
    try:
        return await asyncio.to_thread(_exchange, path, method, target)
    except (OSError, http.client.HTTPException) as error:
        get_logger().warning("envoy's admin did not answer", admin=str(path), target=target, error=str(error))
        return ""


def _exchange(path: Path, method: str, target: str) -> str:
    connection = _UnixConnection(path)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        body = response.read().decode(errors="replace")
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"{response.status}: {body.strip()}")
    return body


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ADMIN_TIMEOUT_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
