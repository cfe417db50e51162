"""The connection to one runner: an Execute stream for as long as its placement stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from headrace.runner.v1 import runner_pb2
from headrace_common.clock import Clock
from headrace_common.logs import get_logger
from headrace_common.outbox import Outbox, Sending
from headrace_router.bundles import Read
from headrace_router.connections import CHANNEL_OPTIONS, EXECUTE, Stream
from headrace_router.core.band import Watch
from headrace_router.core.batching import Bundle
from headrace_router.core.latency import LatencyModel
from headrace_router.core.pace import Pace
from headrace_router.domain import RevisionEntry
from headrace_router.transport import Received, Transport, Transports

_log = get_logger()
FIRST_BACKOFF_S = 0.01
LONGEST_BACKOFF_S = 1.0
SMOOTHING = 0.1
"""Weight of the newest bundle in a runner's mean time."""


@dataclass(frozen=True, slots=True)
class Target:
    """One instance, as the autoscaler placed it.

    Attributes:
        target: gRPC target of the runner.
        draining: send nothing new.
        started_from_zero: its first answer completes a cold start, which is reported.
        deciding_s: how long deciding and placing took, where it was started from zero.
    """

    instance_id: str
    model: str
    revision: int
    target: str
    draining: bool = False
    started_from_zero: bool = False
    deciding_s: float = 0.0
    profile: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Sent:
    """A bundle that a runner holds.

    Attributes:
        read: finds what its result does not hold itself; None before there is one.
    """

    bundle: Bundle
    at: float
    cancelled: bool = False
    read: Read | None = None


class RunnerUser(Protocol):
    """Who sends bundles to a runner and hears what became of them. Called in the event loop.

    Attributes:
        latency: the model's over all runners.
    """

    entry: RevisionEntry
    latency: LatencyModel

    def runner_changed(self, runner: Runner) -> None:
        """It has granted slots, or accepts no more."""
        ...

    def bundle_done(self, runner: Runner, sent: Sent, result: runner_pb2.BundleResult) -> None: ...

    def bundles_lost(self, runner: Runner, lost: list[Sent]) -> None:
        """The stream broke."""
        ...

    def runner_ended(self, runner: Runner) -> None:
        """It will not be connected again."""
        ...


class Runner:
    """One placement. `run` is its life; everything else is called in between, from the event loop.

    Attributes:
        free_slots, accepting, solo, recent_s: see `core.dispatch.RunnerSlots`.
        pace, watch: kept by its user.
        ready_at: when the first slots were granted; None before.
        load_s, warm_s: of its start, as the runner told.
        began_at: when the request came that this runner was started for; None: no request did it.
        start_unreported: its first answer still has to complete the report of a cold start.
    """

    def __init__(
        self, placement: Target, user: RunnerUser, router_id: str, clock: Clock, transports: Transports | None = None
    ) -> None:
        self.placement = placement
        self.free_slots = 0
        self.solo = False
        self.recent_s = 0.0
        self.outstanding: dict[int, Sent] = {}
        self.pace = Pace(user.latency)
        self.watch = Watch()
        self.bundles = 0
        self.lost_bundles = 0
        self.connected = False
        self.ready_at: float | None = None
        self.load_s = self.warm_s = 0.0
        self.began_at: float | None = None
        self.start_unreported = placement.started_from_zero
        self._user = user
        self._router_id = router_id
        self._clock = clock
        self._granted = False
        self._draining = False
        self._rejected = False
        self._half_closed = False
        self._leaving = placement.draining
        self._wake = asyncio.Event()
        self._outbox: Sending[bytes] = Outbox()
        self._transports = transports or Transports()
        self._transport = Transport(Transports(), placement.target)  # Of no stream yet.
        self._last_id = 0

    @property
    def accepting(self) -> bool:
        return self._granted and not (self._draining or self._leaving or self._rejected)

    @property
    def serving(self) -> bool:
        """There is a stream on which it has granted slots."""
        return self._granted

    @property
    def outstanding_bundles(self) -> int:
        return len(self.outstanding)

    @property
    def requests(self) -> int:
        """In the bundles that it holds."""
        return sum(len(sent.bundle.items) for sent in self.outstanding.values())

    def send(self, bundle: Bundle, now: float) -> None:
        """Takes a slot. The caller has seen that there is one."""
        self._last_id += 1
        encoded = self._transport.encode(self._last_id, bundle, self._user.entry, now)
        if encoded.chunked:
            self._outbox.put_long(self._last_id, encoded.messages())
        else:
            self._outbox.put(encoded.message)
        self.outstanding[self._last_id] = Sent(bundle, now)
        self.free_slots -= 1
        self.bundles += 1
        self.solo = bundle.suspect

    def cancel(self, bundle_id: int) -> None:
        """Nobody wants the bundle any more: the runner may drop it if it has not begun."""
        sent = self.outstanding[bundle_id]
        if not sent.cancelled:
            sent.cancelled = True
            message = runner_pb2.ExecuteRequest(cancel=runner_pb2.CancelBundle(bundle_id=bundle_id))
            self._outbox.withdraw(bundle_id, message.SerializeToString())

    def leave(self) -> None:
        """The placement is draining or gone: no new bundles, and an end once all are answered."""
        self._leaving = True
        self._wake.set()
        self._user.runner_changed(self)
        self._half_close_if_done()

    def reject(self) -> None:
        """It does not hold our revision: connect anew, later."""
        self._rejected = True
        self._user.runner_changed(self)
        self._half_close_if_done()

    async def run(self) -> None:
        """Until the placement has been left, or the runner has drained. Cancelling loses what it holds."""
        backoff_s = FIRST_BACKOFF_S
        async with grpc.aio.insecure_channel(self.placement.target, options=CHANNEL_OPTIONS) as channel:
            execute = channel.stream_stream(EXECUTE, None, runner_pb2.ExecuteResponse.FromString)
            while not (self._leaving and not self.connected):
                had_slots = await self._attempt(execute)
                if self._draining or self._leaving:
                    return
                backoff_s = FIRST_BACKOFF_S if had_slots else min(backoff_s * 2, LONGEST_BACKOFF_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s):
                        await self._wake.wait()

    def lane_left(self) -> None:
        """`run` has ended."""
        self._user.runner_ended(self)

    async def _attempt(self, execute: Callable[[], Any]) -> bool:
        """One connection, good or bad. Whether it ever granted slots."""
        try:
            await self._stream(execute)
        except grpc.aio.AioRpcError as error:
            self._log_break(f"{error.code().name}: {error.details()}")
        except Exception:  # noqa: BLE001 - the next stream is tried, whatever ended this one
            _log.exception("runner stream failed", instance=self.placement.instance_id)
        finally:
            granted = self._granted
            self._lose()
        return granted

    async def _stream(self, execute: Callable[[], Any]) -> None:
        """One connection, from Attach to its end."""
        stream = Stream(self.placement.instance_id, self._attach, self._receive, lambda: self._ending)
        self._log_break(await stream.run(self.placement.target, execute))

    def _attach(self, outbox: Sending[bytes]) -> None:
        self._outbox = outbox
        self._transport = Transport(self._transports, self.placement.target)
        self._rejected = self._half_closed = False
        placement = self.placement
        attach = runner_pb2.Attach(
            router_id=self._router_id,
            instance_id=placement.instance_id,
            model=placement.model,
            revision=placement.revision,
            shared_memory=self._transport.path,
        )
        self._outbox.put(runner_pb2.ExecuteRequest(attach=attach).SerializeToString())
        self.connected = True
        # The placement may have been left while the connection was made.
        self._half_close_if_done()

    def _receive(self, message: runner_pb2.ExecuteResponse) -> None:
        kind = message.WhichOneof("message")
        if kind == "result":
            self._finish(self._transport.receive(message.result))
        elif kind == "chunk":
            self._finish(self._transport.receive_chunk(message.chunk))
        elif kind == "grant":
            self._grant(message.grant)
        elif kind == "draining":
            self._transport.answered()
            self._draining = True
            self._user.runner_changed(self)
            self._half_close_if_done()
        else:
            _log.error("runner sent what is not understood", instance=self.placement.instance_id, kind=kind)

    def _grant(self, grant: runner_pb2.SlotGrant) -> None:
        self._transport.answered()
        if not self._granted:
            self._transport.granted(grant.shared_memory)
        self.free_slots += grant.slots
        self._granted = True
        if self.ready_at is None:
            self.ready_at = self._clock.monotonic()
            self.load_s = grant.load.ToNanoseconds() / 1e9
            self.warm_s = grant.warm.ToNanoseconds() / 1e9
        self._user.runner_changed(self)

    def _finish(self, received: Received | None) -> None:
        if received is None:
            return
        result = received.result
        sent = self.outstanding.pop(result.bundle_id, None)
        if sent is None:
            _log.error("runner answered a bundle that it does not hold", instance=self.placement.instance_id)
            return
        self._transport.done(result.bundle_id)
        sent.read = received.read
        self.free_slots += 1
        self.solo = False
        took_s = self._clock.monotonic() - sent.at
        self.recent_s += (took_s - self.recent_s) * (SMOOTHING if self.bundles > 1 else 1.0)
        self._user.bundle_done(self, sent, result)
        self._half_close_if_done()

    @property
    def _ending(self) -> bool:
        return self._draining or self._leaving or self._rejected

    def _half_close_if_done(self) -> None:
        if self._ending and self.connected and not self.outstanding and not self._half_closed:
            self._half_closed = True
            self._outbox.close()

    def _lose(self) -> None:
        """The stream is over: what it held runs elsewhere."""
        self._transport.close()
        lost = list(self.outstanding.values())
        self.outstanding.clear()
        self.lost_bundles += len(lost)
        self.free_slots = 0
        self.connected = self._granted = self.solo = False
        self._user.bundles_lost(self, lost)

    def _log_break(self, reason: str) -> None:
        if reason and self._granted and not (self._draining or self._leaving):
            _log.warning(
                "runner stream broke",
                instance=self.placement.instance_id,
                model=self.placement.model,
                bundles=len(self.outstanding),
                reason=reason,
            )
