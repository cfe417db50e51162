"""The connection to the autoscaler: demand up; catalogue, placements and leases down."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol

import grpc

from headrace.control.v1 import control_pb2, control_pb2_grpc
from headrace_common.logs import get_logger
from headrace_router.connections import LOCAL_OPTIONS

_log = get_logger()
FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 2.0
REMEMBERED = 256
"""Versions of which we know when we said that they were applied."""
_OPTIONS = (*LOCAL_OPTIONS, ("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
"""The whole catalogue is one message, with each model's config.pbtxt and initial states."""
LONGEST_LEASE_S = 3600.0
"""Older than this is what answers something that we do not remember."""


@dataclass(frozen=True, slots=True)
class Report:
    """A demand report and what to do once it has been sent: until then its counts stay due."""

    message: control_pb2.DemandReport
    commit: Callable[[], None]


class ControlUser(Protocol):
    """Who obeys the autoscaler. Called in the event loop."""

    def apply(self, update: control_pb2.StateUpdate, read_at: float) -> None:
        """As one step: nobody sees half of it.

        Args:
            read_at: from then on leases run; monotonic seconds.
        """
        ...

    def excess(self) -> Iterable[control_pb2.Excess]:
        """All that is in hand beyond the leases that are obeyed now."""
        ...

    def demand(self) -> Report:
        """What came since the last report that was committed."""
        ...


class Refused(Exception):
    """What the autoscaler sent must not be obeyed; the stream is given up."""


class ControlClient:
    """Keeps a Sync stream as long as `run` runs. While there is none, what was obeyed last holds."""

    def __init__(self, target: str, router_id: str, demand_period_s: float, user: ControlUser) -> None:
        self.connected = False
        self.highest_epoch = 0
        self._target = target
        self._router_id = router_id
        self._period_s = demand_period_s
        self._user = user
        self._applied: int | None = None
        self._sent_at: dict[int, float] = {}
        self._urgent = asyncio.Event()

    def urgent(self) -> None:
        """Reports at once, or as soon as there is a stream."""
        self._urgent.set()

    async def run(self) -> None:
        """Until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            while True:
                had_state = await self._attempt(stub)
                backoff_s = FIRST_BACKOFF_S if had_state else min(backoff_s * 2, LONGEST_BACKOFF_S)
                await asyncio.sleep(backoff_s)

    async def _attempt(self, stub: Any) -> bool:
        """One stream, to its end. Whether anything of it was obeyed."""
        was_connected = False
        self._applied = None
        call = stub.Sync()
        try:
            await self._converse(call)
        except Refused as error:
            _log.warning("autoscaler refused", reason=str(error))
        except grpc.aio.AioRpcError as error:
            if self.connected:
                _log.warning("autoscaler lost; serving goes on", reason=f"{error.code().name}: {error.details()}")
        except Exception:  # noqa: BLE001 - the next stream is tried, whatever ended this one
            _log.exception("control stream failed")
        finally:
            was_connected, self.connected = self.connected, False
            call.cancel()
        return was_connected

    async def _converse(self, call: Any) -> None:
        self._sent_at = {0: time.monotonic()}
        hello = control_pb2.Hello(
            router_id=self._router_id, software_version=_version(), highest_epoch=self.highest_epoch
        )
        await call.write(control_pb2.SyncRequest(hello=hello))
        writes = asyncio.Lock()
        reporter = asyncio.create_task(self._report(call, writes))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._obey(response)
                self._sent_at[response.update.version] = time.monotonic()
                async with writes:
                    await call.write(self._told(control_pb2.SyncRequest(applied_version=self._applied)))
        finally:
            reporter.cancel()
            await asyncio.wait([reporter])
            if not reporter.cancelled() and (error := reporter.exception()):
                _log.info("demand reports ended", reason=repr(error))

    def _told(self, request: control_pb2.SyncRequest) -> control_pb2.SyncRequest:
        """With what is in hand at the moment of writing: a report that waited for a smaller lease knows of that."""
        request.excess.extend(self._user.excess())
        return request

    def _obey(self, response: control_pb2.SyncResponse) -> None:
        if response.epoch < self.highest_epoch:
            raise Refused(f"epoch {response.epoch} is below {self.highest_epoch}: it has been replaced")
        self.highest_epoch = response.epoch
        update = response.update
        if not update.full and (self._applied is None or update.version != self._applied + 1):
            raise Refused(f"delta {update.version} does not follow {self._applied}; a full state is needed")
        read_at = time.monotonic()
        self._shorten(update.leases, read_at)
        self._user.apply(update, read_at)
        self._applied = update.version
        self.connected = True

    def _shorten(self, leases: Iterable[control_pb2.QuotaLease], now: float) -> None:
        """A lease runs from when we sent what it answers, however long it was on its way to us."""
        answered = 0
        for lease in leases:
            if lease.ttl.ToNanoseconds():
                age_s = now - self._sent_at.get(lease.answers, now - LONGEST_LEASE_S)
                lease.ttl.FromNanoseconds(max(1, lease.ttl.ToNanoseconds() - int(age_s * 1e9)))
            answered = max(answered, lease.answers)
        recent = sorted(version for version in self._sent_at if version >= answered)[-REMEMBERED:]
        self._sent_at = {version: self._sent_at[version] for version in recent}

    async def _report(self, call: Any, writes: asyncio.Lock) -> None:
        """Every period, and at once when urgent. A report counts as sent once it has been written."""
        while True:
            # Not wait_for: on Python 3.11 it can swallow the cancellation that ends this task.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period_s):
                    await self._urgent.wait()
            urgent = self._urgent.is_set()
            self._urgent.clear()
            report = self._user.demand()
            report.message.urgent = urgent
            try:
                async with writes:
                    await call.write(self._told(control_pb2.SyncRequest(demand=report.message)))
            except BaseException:
                if urgent:
                    self._urgent.set()
                call.cancel()
                raise
            report.commit()


def _version() -> str:
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "unknown"
