"""Where instances start and which stop: a snapshot in, actions with reasons out.

Linear in models + instances. Nothing is started that takes a tenant, a model or the machine over its
limit. What is verified for a deploy is outside the limits while it is verified; afterwards it stays only if it
fits. Instances that a minimum or present demand asks for make room only where they run on what their tenant has
borrowed, and only for whoever asks for its own: so no two models can take turns.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from headrace_autoscaler.core.booking import Booking, makes_room
from headrace_autoscaler.core.plans import Key, LoadOnStandby, Plan, Snapshot, StartStandby, StopStandby, Want
from headrace_autoscaler.core.room import why
from headrace_autoscaler.core.stops import (
    admit_verified,
    drain_over_limit,
    drain_surplus,
    drain_unwanted,
    stop_over_limit,
)


def plan(snapshot: Snapshot) -> Plan:
    return _Planning(snapshot).run()


class _Planning(Booking):
    """One run: first what goes, then what starts."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(snapshot)
        self._blocked: dict[Key, str] = {}
        self._bound: dict[Key, str] = {}
        self._waiting = 0
        self._unserved = 0
        self._begun: set[Key] = set()
        self._borrowing: dict[str, deque[tuple[Want, bool]]] = {}
        self._refill_held = False

    def run(self) -> Plan:
        drain_unwanted(self)
        drain_surplus(self)
        admit_verified(self)
        stop_over_limit(self)
        drain_over_limit(self)
        for key in self.snapshot.verifications:
            self._verify(key)
        short = [want for want in self.snapshot.wants if self._missing(want) > 0]
        # Everybody's first instance comes before anybody's second, and what is a tenant's own before what it borrows.
        for want in short:
            if not self.live.get(want.key) and not self._put_off(want, first=True):
                self._start_one(want, first=True)
        for want in short:
            self._start_rest(want)
        self._start_borrowing()
        self._keep_standby()
        return Plan(
            tuple(self.actions), self._blocked, self._bound, tuple(self.admitted), self._refill_held, self._unserved
        )

    def _missing(self, want: Want) -> int:
        """What is to be replaced does not stand in for what replaces it."""
        return want.desired - sum(not (holding.slow or holding.leaving) for holding in self.live.get(want.key, ()))

    def _verify(self, key: Key) -> None:
        if self.standby:
            self.actions.append(LoadOnStandby(self.standby.popleft(), *key, "deployed: a first load", True))
        else:
            self._waiting += 1

    def _start_rest(self, want: Want) -> None:
        first = 0 if self.live.get(want.key) else 1
        if first and want.key not in self._begun:
            return
        for _ in range(self._missing(want) - first):
            if not self._put_off(want, first=False) and not self._start_one(want, first=False):
                return

    def _put_off(self, want: Want, first: bool) -> bool:
        """It would borrow: when everybody has got its own."""
        if not self.staying.borrows(want):
            return False
        self._begun.add(want.key)
        self._borrowing.setdefault(want.tenant, deque()).append((want, first))
        return True

    def _start_borrowing(self) -> None:
        """What is spare goes to the lowest dominant share over weight, one instance at a time."""
        heap = [(self.used.quotas.share(tenant), tenant) for tenant in self._borrowing]
        heapify(heap)
        stuck: set[Key] = set()
        while heap:
            tenant = heappop(heap)[1]
            want, first = self._borrowing[tenant].popleft()
            if want.key not in stuck and not self._start_one(want, first, own=False):
                stuck.add(want.key)
            if self._borrowing[tenant]:
                heappush(heap, (self.used.quotas.share(tenant), tenant))

    def _start_one(self, want: Want, first: bool, *, own: bool = True) -> bool:
        """False: nothing more can be started for this revision in this plan. One for which room is being made
        counts as started: so all of it is made at once."""
        refusal = want.held_back or (None if want.paused else self._room_for(want, first, own))
        if refusal is None:
            return not first and not want.paused
        if refusal:
            if want.held_back or not self._replace_in_place(want):
                self._refuse(want, refusal)
            return False
        if not self.standby and self.snapshot.start_refusal and not self.snapshot.starting:
            self._refuse(want, self.snapshot.start_refusal)
            return False
        self.used.promise(want)
        self.staying.promise(want)
        self._begun.add(want.key)
        if self.standby:
            runner, reason = self.standby.popleft(), want.start_reason
            self.actions.append(LoadOnStandby(runner, want.model, want.revision, reason, resources=want.resources))
        else:
            self._waiting += 1
            self._unserved += 1
        return True

    def _replace_in_place(self, want: Want) -> bool:
        """Drains what is to be replaced, because there is no room for another beside it."""
        for holding in self.live.get(want.key, ()):
            if holding.slow and holding.ready:
                self.drain(holding, "slower than its peers, and there is no room for another beside it")
                return True
        return False

    def _refuse(self, want: Want, reason: str) -> None:
        self._bound[want.key] = reason
        if not self.live.get(want.key):
            self._blocked[want.key] = reason

    def _room_for(self, want: Want, first: bool, own: bool) -> str | None:
        """ "" there is room; None: room is being made; else why there is none."""
        self.jobs_give_way(want, self.used)
        refusal = self.used.refusal(want)
        if refusal is None and not own:
            # Others wait for what goes now: nobody borrows that meanwhile.
            refusal = self.staying.refusal(want)
        if refusal is None:
            return ""
        # Taking from one model to give another its second instance would only move the shortage; taking back
        # what is lent does not, unless it were for a change of shape.
        resizes = any(holding.leaving for holding in self.live.get(want.key, ()))
        if not first and (resizes or not (own and self.used.lenders_claim(want, refusal))):
            return why(refusal)
        # Nobody needs it, so nobody gives back for it; whoever asks for it will have it.
        if want.spare and self.staying.is_lent(want):
            return None
        taken = self.make_room(want, self.staying, spares=first, claims=own)
        if isinstance(taken, str):
            return taken
        for holding in taken:
            self.drain(holding, makes_room(holding, want))
        self.staying.promise(want)
        return None

    def _keep_standby(self) -> None:
        snapshot = self.snapshot
        missing = snapshot.standby_target + self._waiting - len(self.standby) - snapshot.starting
        wanted = missing
        if snapshot.hold_refill and self._starting_cold():
            wanted = min(missing, self._waiting - len(self.standby) - snapshot.starting)
            self._refill_held = missing > max(0, wanted)
        if not snapshot.start_refusal:
            for _ in range(min(wanted, snapshot.start_limit - snapshot.starting)):
                why = "a model waits for a runner" if self._waiting else "the standby pool is short"
                self.actions.append(StartStandby(why))
        if snapshot.starting == 0 and not self._waiting:
            for _ in range(-missing):
                self.actions.append(StopStandby(self.standby.pop(), "more stand by than are wanted"))

    def _starting_cold(self) -> bool:
        """A load is under way, begins now, or begins as soon as there is a runner; or a first answer is due."""
        begun = any(isinstance(action, LoadOnStandby) for action in self.actions)
        held = (each for held in self.live.values() for each in held)
        return begun or self._waiting > 0 or any(not each.ready or each.answer_due for each in held)
