"""One model in a simulation: its queue, its instances, its policy."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import replace
from typing import Any, Protocol

from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_autoscaler.sim.door import BUDGET_SPENT, Door
from headrace_autoscaler.sim.gate import Gate
from headrace_autoscaler.sim.outcome import END_OF_RUN, Lifetime
from headrace_autoscaler.sim.starts import StartRate

READY, DONE, ARRIVAL, END, TICK = range(5)
"""Kinds of events; of those at one moment, the lower kind comes first."""
QUEUE_FULL = "queue full"
NEVER_ANSWERED = "never answered"

Event = tuple[float, int, int, Any]
"""When, what, a number that orders events of one moment and kind, and the instance or model that it is about."""


class Lenders(Protocol):
    """Who takes back for a model what its tenant has lent. See `taking_back`."""

    def claim(self, lender: ModelRun, count: int, now: float) -> None: ...

    def withdraw(self, lender: ModelRun) -> None: ...


class World:
    """What the models of a run share. Plain data: the per-request path reads it.

    Attributes:
        over: the horizon is past: a model without a request ends.
    """

    def __init__(
        self, arrivals: list[float], services: list[float], gate: Gate, starts: StartRate, began: float | None = None
    ) -> None:
        self.arrivals = arrivals
        self.services = services
        self.gate = gate
        self.starts = starts
        self.began = began
        self.events: list[Event] = []
        self.begin = [math.nan] * len(arrivals)
        self.instance = [-1] * len(arrivals)
        self.lifetimes: list[Lifetime] = []
        self.refused: dict[int, str] = {}
        self.refused_at: dict[int, float] = {}
        self.starts_refused = 0
        self.lenders: Lenders | None = None
        self.over = False


class ModelRun:
    """A first-in-first-out queue bound late: a request waits for the model and not for an instance.

    A request goes to the instance that became free last, so the others stay idle and can be stopped at once.
    """

    __slots__ = (
        "_area_executing", "_area_present", "_area_ready", "_arrivals", "_at", "_cold_start_s", "_completed",
        "_concurrency", "_door", "_executing", "_free", "_held", "_last_arrival", "_next_tick", "_profile", "_queue",
        "_queue_length", "_ready", "_served", "_served_s", "_service_known", "_starting", "_unpaid", "_wish", "_world",
        "ended", "index", "name", "policy", "present", "tenant",
    )  # fmt: skip

    def __init__(
        self, index: int, name: str, tenant: str, policy: Policy, profile: Profile, world: World,
        queue_length: int | None, door: Door | None = None,
    ) -> None:  # fmt: skip
        self.index, self.name, self.tenant, self.policy = index, name, tenant, policy
        self._profile, self._world = profile, world
        self._service_known = profile.service_s is not None
        self._concurrency = profile.concurrency
        self._cold_start_s = profile.cold_start_s or 0.0
        self._queue_length = math.inf if queue_length is None else queue_length
        self._door = door
        self._queue: deque[int] = deque()
        self._unpaid: deque[int] = deque()
        self._wish = Wish(0, "")
        self._free: list[Lifetime] = []
        self._ready: list[Lifetime] = []
        self._starting: list[Lifetime] = []
        self.present = self._executing = self._arrivals = self._completed = self._served = 0
        self._served_s = self._at = self._area_present = self._area_executing = self._area_ready = 0.0
        self._last_arrival: float | None = None
        self._next_tick = 0.0
        self._held = self.ended = False

    @property
    def in_hand(self) -> int:
        """Admitted and not answered."""
        return self.present + len(self._unpaid)

    def begin(self) -> None:
        """Has the policy asked at time 0."""
        self._set_tick(0.0)

    def arrive(self, now: float, request: int) -> None:
        self._advance(now)
        self._arrivals += 1
        self._last_arrival = now
        if self._door is None or self._admit(now, request, self._door):
            self._take_in(now, request)
        if self._held:
            self._wake(now)

    def resume(self, now: float) -> None:
        """The budget is whole again: what has waited for it goes on, in its order."""
        self._advance(now)
        waiting, self._unpaid = self._unpaid, deque()
        for request in waiting:
            self._take_in(now, request)
        if self._held:
            self._wake(now)

    def complete(self, now: float, request: int, instance: Lifetime) -> None:
        self._advance(now)
        self.present -= 1
        self._executing -= 1
        self._completed += 1
        self._served += 1
        self._served_s += self._world.services[request]
        if self._door is not None:
            self._door.leave()
        instance.executing -= 1
        if instance.stopped <= now:
            if not instance.executing:
                self._gone(now, instance)
        elif self._queue:
            self._execute(now, self._queue.popleft(), instance)
        else:
            self._free.append(instance)

    def become_ready(self, now: float, instance: Lifetime) -> None:
        if instance.stopped <= now:
            return
        self._advance(now)
        self._starting.remove(instance)
        self._ready.append(instance)
        for _ in range(self._concurrency):
            if self._queue:
                self._execute(now, self._queue.popleft(), instance)
            else:
                self._free.append(instance)
        if self._held:
            self._wake(now)

    def tick(self, now: float) -> None:
        """Asks the policy, unless this tick was put off or brought forward meanwhile."""
        if now == self._next_tick and not self.ended:
            self._ask(now)

    def end(self, now: float) -> None:
        """Stops every instance; what still waits is never answered."""
        self._advance(now)
        self.ended = True
        for request in (*self._empty_queue(), *self._unpaid):
            self._refuse_late(now, request, NEVER_ANSWERED)
        self._unpaid.clear()
        if self._world.lenders is not None:
            self._world.lenders.withdraw(self)
        self.stop_all(now, END_OF_RUN)

    def stop_all(self, now: float, reason: str) -> None:
        self._stop(now, len(self._ready) + len(self._starting), reason)

    def hold(self, now: float, reason: str) -> None:
        """Its budget is spent: what is not sent waits for the next one, and what runs drains."""
        self._advance(now)
        self._unpaid.extendleft(reversed(self._empty_queue()))
        self.stop_all(now, reason)

    def cut_off(self, now: float, reason: str) -> None:
        """What was admitted under a budget that is spent has had its time. What executes is answered."""
        self._advance(now)
        for request in self._empty_queue():
            self._refuse_late(now, request, BUDGET_SPENT)
            if self._door is not None:
                self._door.leave()
        self.stop_all(now, reason)

    def givable(self) -> list[tuple[Lifetime, bool]]:
        """Ready instances, the oldest first, and whether nobody needs them."""
        ready = sorted(self._ready, key=lambda each: each.number)
        needed = self._wish.needed if self._wish.spare else len(ready)
        return [(instance, place >= needed) for place, instance in enumerate(ready)]

    def drain(self, now: float, instance: Lifetime, reason: str) -> None:
        """Stops one instance, whatever the policy says."""
        self._advance(now)
        self._retire(now, [instance], reason)
        if self._held:
            self._wake(now)

    def _admit(self, now: float, request: int, door: Door) -> bool:
        """False: it is refused, or waits for its budget."""
        refusal = door.refusal(now) or (QUEUE_FULL if not self._free and self._is_full() else "")
        if refusal:
            self._world.refused[request] = refusal
            return False
        door.enter(now)
        if door.holds:
            self._unpaid.append(request)
            return False
        return True

    def _refuse_late(self, now: float, request: int, reason: str) -> None:
        self._world.refused[request] = reason
        self._world.refused_at[request] = now

    def _empty_queue(self) -> list[int]:
        waited = list(self._queue)
        self._queue.clear()
        self.present -= len(waited)
        return waited

    def _is_full(self) -> bool:
        return len(self._queue) >= self._queue_length

    def _take_in(self, now: float, request: int) -> None:
        if self._free:
            self.present += 1
            self._execute(now, request, self._free.pop())
        elif not self._is_full():
            self.present += 1
            self._queue.append(request)
            if not self._ready and not self._starting:
                self._ask(now)
        else:
            self._world.refused[request] = QUEUE_FULL
            if self._door is not None:
                self._door.leave()

    def _advance(self, now: float) -> None:
        passed = now - self._at
        if passed:
            self._area_present += passed * self.present
            self._area_executing += passed * self._executing
            self._area_ready += passed * len(self._ready)
            self._at = now

    def _execute(self, now: float, request: int, instance: Lifetime) -> None:
        world = self._world
        world.begin[request] = now
        world.instance[request] = instance.number
        instance.executing += 1
        self._executing += 1
        heapq.heappush(world.events, (now + world.services[request], DONE, request, instance))

    def _ask(self, now: float) -> None:
        self._advance(now)
        if not self._service_known and self._served:
            latency_s = self._served_s / self._served
            self._profile = replace(self._profile, service_s=latency_s / self._concurrency, latency_s=latency_s)
        wish = self._wish = self.policy.decide(self._reading(now), self._profile)
        if self._world.lenders is not None:
            self._world.lenders.withdraw(self)
        self._area_present = self._area_executing = self._area_ready = 0.0
        self._arrivals = self._completed = 0
        short = False
        running = len(self._ready) + len(self._starting)
        if wish.desired > running:
            short = not self._start(now, wish.desired - running, wish.reason)
        elif wish.desired < running:
            self._stop(now, running - wish.desired, wish.reason)
        self._held = not short and wish.holds_until > self._grid(now)
        self._set_tick(wish.holds_until if self._held else self._grid(now))

    def _reading(self, now: float) -> Reading:
        began = self._world.began
        return Reading(
            now=now,
            wall=0.0 if began is None else began + now,
            arrivals=self._arrivals,
            completed=self._completed,
            concurrency_s=self._area_present,
            busy_s=self._area_executing / self._concurrency,
            ready_s=self._area_ready,
            queued=len(self._queue),
            executing=self._executing,
            oldest_wait_s=now - self._world.arrivals[self._queue[0]] if self._queue else 0.0,
            ready=len(self._ready),
            starting=len(self._starting),
            last_arrival=self._last_arrival,
        )

    def _grid(self, now: float) -> float:
        """The first multiple of the policy's interval after now."""
        interval_s = self.policy.interval_s
        following = (math.floor(now / interval_s) + 1) * interval_s
        return following if following > now else following + interval_s

    def _wake(self, now: float) -> None:
        self._held = False
        self._set_tick(min(self._next_tick, self._grid(now)))

    def _set_tick(self, at: float) -> None:
        self._next_tick = at
        if at < math.inf:
            heapq.heappush(self._world.events, (at, TICK, self.index, self))

    def _start(self, now: float, count: int, reason: str) -> bool:
        """False: the gate refused one, so the rest was not asked for."""
        world = self._world
        for begun in range(count):
            admission = world.gate.start(self.name, self.tenant, now)
            if admission.refused:
                world.starts_refused += 1
                if admission.lent and world.lenders is not None:
                    world.lenders.claim(self, count - begun, now)
                return False
            ready = world.starts.begin(now) + self._cold_start_s
            instance = Lifetime(len(world.lifetimes), self.index, now, ready, reason, admission.node)
            world.lifetimes.append(instance)
            self._starting.append(instance)
            heapq.heappush(world.events, (ready, READY, instance.number, instance))
        return True

    def _stop(self, now: float, count: int, reason: str) -> None:
        """First what starts, newest first; then what is idle, longest first; then what executes least."""
        chosen = self._starting[::-1][:count]
        place = {instance.number: place for place, instance in enumerate(self._free)}
        by_idleness = sorted(self._ready, key=lambda each: (each.executing, place.get(each.number, 0)))
        self._retire(now, chosen + by_idleness[: count - len(chosen)], reason)

    def _retire(self, now: float, chosen: list[Lifetime], reason: str) -> None:
        for instance in chosen:
            if instance.ready > now:
                self._world.starts.withdraw(instance.ready - self._cold_start_s, now)
            instance.stopped = now
            instance.stop_reason = reason
            self._world.gate.stop(self.name, self.tenant)
            if not instance.executing:
                self._gone(now, instance)
        self._starting = [each for each in self._starting if each.stopped > now]
        self._ready = [each for each in self._ready if each.stopped > now]
        self._free = [each for each in self._free if each.stopped > now]

    def _gone(self, now: float, instance: Lifetime) -> None:
        instance.gone = now
        self._world.gate.release(self.name, self.tenant, instance.node, now)
