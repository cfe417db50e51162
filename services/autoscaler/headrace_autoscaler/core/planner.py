"""Where instances start and which stop: a snapshot in, actions with reasons out.

Linear in models + instances. Nothing is started that takes a tenant, a model or the machine over its
limit. What is verified for a deploy is outside the limits while it is verified; afterwards it stays only if it
fits. Instances that a minimum or present demand asks for make room only where they run on what their tenant has
borrowed, and only for whoever asks for its own: so no two models can take turns.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from headrace_autoscaler.core.plans import (
    Action,
    DrainInstance,
    Holding,
    Key,
    LoadOnStandby,
    Plan,
    Snapshot,
    StartStandby,
    StopJob,
    StopStandby,
    Want,
)
from headrace_autoscaler.core.quota import Limit, Refusal
from headrace_autoscaler.core.room import MACHINE, Room, why
from headrace_autoscaler.core.victims import Victims


def plan(snapshot: Snapshot) -> Plan:
    return _Planning(snapshot).run()


class _Planning:
    """One run. Books what it decides, so that later decisions of the same run see it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._actions: list[Action] = []
        self._jobs = list(snapshot.jobs)
        self._blocked: dict[Key, str] = {}
        self._bound: dict[Key, str] = {}
        self._standby = deque(snapshot.standby)
        self._waiting = 0
        self._unserved = 0
        self._live: dict[Key, list[Holding]] = {}
        self._used = self._room()
        self._staying = self._room()
        for holding in snapshot.holdings:
            self._used.add(holding)
            if not holding.draining:
                self._staying.add(holding)
                self._live.setdefault(holding.key, []).append(holding)
        self._drained: set[str] = set()
        self._begun: set[Key] = set()
        self._borrowing: dict[str, deque[tuple[Want, bool]]] = {}
        self._outside = {each.id for each in snapshot.holdings if not each.admitted}
        self._admitted: list[str] = []
        self._refill_held = False
        self._spares = self._find_spares()
        self._victims = Victims(self._spares, self._live)

    def _room(self) -> Room:
        room = Room(self._snapshot.tenants, self._snapshot.capacity, self._snapshot.wants)
        for job in self._jobs:
            room.add(job)
        return room

    def run(self) -> Plan:
        self._drain_unwanted()
        self._drain_surplus()
        self._admit_verified()
        self._stop_over_limit()
        self._drain_over_limit()
        for key in self._snapshot.verifications:
            self._verify(key)
        short = [want for want in self._snapshot.wants if self._missing(want) > 0]
        # Everybody's first instance comes before anybody's second, and what is a tenant's own before what it borrows.
        for want in short:
            if not self._live.get(want.key) and not self._put_off(want, first=True):
                self._start_one(want, first=True)
        for want in short:
            self._start_rest(want)
        self._start_borrowing()
        self._keep_standby()
        return Plan(
            tuple(self._actions), self._blocked, self._bound, tuple(self._admitted), self._refill_held, self._unserved
        )

    def _missing(self, want: Want) -> int:
        """What is to be replaced does not stand in for what replaces it."""
        return want.desired - sum(not (holding.slow or holding.leaving) for holding in self._live.get(want.key, ()))

    def _find_spares(self) -> list[Holding]:
        """Instances that may make room; the last one goes first, which is the longest idle."""
        spares: list[Holding] = []
        for want in sorted((want for want in self._snapshot.wants if want.spare), key=lambda want: want.idle_s):
            ready = [holding for holding in self._live.get(want.key, ()) if holding.ready]
            spares += sorted(ready, key=lambda holding: holding.started_at)[want.minimum :]
        return spares

    def _drain_unwanted(self) -> None:
        known = {want.key for want in self._snapshot.wants} | self._snapshot.protected
        for key, holdings in self._live.items():
            if key not in known:
                for holding in holdings:
                    self._drain(holding, "the model or this revision of it is gone")

    def _drain_surplus(self) -> None:
        for want in self._snapshot.wants:
            if want.key in self._snapshot.protected:
                continue
            if want.spent:
                for holding in self._live.get(want.key, ()):
                    if holding.ready:  # One that loads would be taken for one that cannot.
                        self._drain(holding, want.held_back)
                continue
            # One that loads is left to finish: its start is paid for, and demand may be back. Nor does it
            # stand in for one that is ready: until it is, that one answers.
            ready = [each for each in self._live.get(want.key, ()) if each.ready and not each.leaving]
            for holding in sorted(ready, key=lambda each: _going_order(want, each))[
                : max(0, len(ready) - want.desired)
            ]:
                slow = "slower than its peers: " if holding.slow else ""
                self._drain(holding, f"{slow}{len(ready)} ready, {want.desired} wanted")
            if want.at_once or len(ready) >= want.desired:
                self._drain_leaving(want)

    def _drain_leaving(self, want: Want) -> None:
        for holding in self._live.get(want.key, ()):
            if holding.leaving and holding.ready:
                self._drain(holding, f"resized: {want.start_reason}")

    def _admit_verified(self) -> None:
        """What was verified outside the limits stays only inside them. What goes soon does not count against it:
        a redeploy at the limit works."""
        wants = {want.key: want for want in self._snapshot.wants}
        passing = {key for key, want in wants.items() if want.retiring} | self._snapshot.protected
        staying = [each for key in wants if key not in passing for each in self._live.get(key, ())]
        newcomers = [each for each in staying if each.id in self._outside and each.id not in self._drained]
        if not newcomers:
            return
        kept = self._room()
        for holding in staying:
            if holding.id not in self._outside and holding.id not in self._drained:
                kept.add(holding)
        # Those that somebody asks for first; the oldest among equals.
        for holding in sorted(newcomers, key=lambda each: (wants[each.key].spare, each.started_at)):
            self._admit(wants[holding.key], holding, kept)

    def _admit(self, want: Want, holding: Holding, kept: Room) -> None:
        self._jobs_give_way(want, kept)
        taken = self._make_room(want, kept, spares=True, claims=True)
        if isinstance(taken, str):
            self._drain(holding, f"its first load was beyond the limits: {taken}")
            self._live[want.key] = [each for each in self._live[want.key] if each.id != holding.id]
            return
        for spare in taken:
            kept.remove(spare)
            self._drain(spare, _makes_room(spare, want))
        kept.add(holding)
        self._outside.discard(holding.id)
        self._admitted.append(holding.id)

    def _stop_over_limit(self) -> None:
        """A job goes at once where its tenant is over its limit, before any instance does."""
        if not self._jobs:
            return
        staying, going_on = self._room_that_stays(), []
        for job in reversed(self._jobs):
            staying.remove(job)
            refusal = staying.refusal(Want(job.model, 0, job.tenant, job.resources, 1))
            if refusal is not None and refusal.tenant != MACHINE and _is_over(refusal):
                self._stop(job, f"tenant '{job.tenant}' is over its limit")
            else:
                staying.add(job)
                going_on.append(job)
        self._jobs = going_on[::-1]

    def _room_that_stays(self) -> Room:
        """With jobs and live instances, those aside that go anyway."""
        gone = {want.key for want in self._snapshot.wants if want.retiring} | self._snapshot.protected
        staying = self._room()
        for key, holdings in self._live.items():
            for holding in holdings:
                if key not in gone and holding.id not in self._drained:
                    staying.add(holding)
        return staying

    def _drain_over_limit(self) -> None:
        """What nobody needs goes at once where its tenant is over its limit."""
        if not self._spares:
            return
        wants = {want.key: want for want in self._snapshot.wants}
        staying = self._room_that_stays()
        for holding in reversed(self._spares):
            if not staying.holds(holding):
                continue
            staying.remove(holding)
            refusal = staying.refusal(wants[holding.key])
            if refusal is not None and refusal.tenant != MACHINE and _is_over(refusal):
                self._drain(holding, f"tenant '{holding.tenant}' is over its limit")
            else:
                staying.add(holding)

    def _drain(self, holding: Holding, reason: str) -> None:
        if holding.id not in self._drained:
            self._drained.add(holding.id)
            self._staying.remove(holding)
            self._victims.gone(holding)
            self._actions.append(DrainInstance(holding.id, reason))

    def _verify(self, key: Key) -> None:
        if self._standby:
            self._actions.append(LoadOnStandby(self._standby.popleft(), *key, "deployed: a first load", True))
        else:
            self._waiting += 1

    def _start_rest(self, want: Want) -> None:
        first = 0 if self._live.get(want.key) else 1
        if first and want.key not in self._begun:
            return
        for _ in range(self._missing(want) - first):
            if not self._put_off(want, first=False) and not self._start_one(want, first=False):
                return

    def _put_off(self, want: Want, first: bool) -> bool:
        """It would borrow: when everybody has got its own."""
        if not self._staying.borrows(want):
            return False
        self._begun.add(want.key)
        self._borrowing.setdefault(want.tenant, deque()).append((want, first))
        return True

    def _start_borrowing(self) -> None:
        """What is spare goes to the lowest dominant share over weight, one instance at a time."""
        heap = [(self._used.quotas.share(tenant), tenant) for tenant in self._borrowing]
        heapify(heap)
        stuck: set[Key] = set()
        while heap:
            tenant = heappop(heap)[1]
            want, first = self._borrowing[tenant].popleft()
            if want.key not in stuck and not self._start_one(want, first, own=False):
                stuck.add(want.key)
            if self._borrowing[tenant]:
                heappush(heap, (self._used.quotas.share(tenant), tenant))

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
        if not self._standby and self._snapshot.start_refusal and not self._snapshot.starting:
            self._refuse(want, self._snapshot.start_refusal)
            return False
        self._used.promise(want)
        self._staying.promise(want)
        self._begun.add(want.key)
        if self._standby:
            runner, reason = self._standby.popleft(), want.start_reason
            self._actions.append(LoadOnStandby(runner, want.model, want.revision, reason, resources=want.resources))
        else:
            self._waiting += 1
            self._unserved += 1
        return True

    def _replace_in_place(self, want: Want) -> bool:
        """Drains what is to be replaced, because there is no room for another beside it."""
        for holding in self._live.get(want.key, ()):
            if holding.slow and holding.ready:
                self._drain(holding, "slower than its peers, and there is no room for another beside it")
                return True
        return False

    def _refuse(self, want: Want, reason: str) -> None:
        self._bound[want.key] = reason
        if not self._live.get(want.key):
            self._blocked[want.key] = reason

    def _room_for(self, want: Want, first: bool, own: bool) -> str | None:
        """ "" there is room; None: room is being made; else why there is none."""
        self._jobs_give_way(want, self._used)
        refusal = self._used.refusal(want)
        if refusal is None and not own:
            # Others wait for what goes now: nobody borrows that meanwhile.
            refusal = self._staying.refusal(want)
        if refusal is None:
            return ""
        # Taking from one model to give another its second instance would only move the shortage; taking back
        # what is lent does not, unless it were for a change of shape.
        resizes = any(holding.leaving for holding in self._live.get(want.key, ()))
        if not first and (resizes or not (own and self._used.lenders_claim(want, refusal))):
            return why(refusal)
        # Nobody needs it, so nobody gives back for it; whoever asks for it will have it.
        if want.spare and self._staying.is_lent(want):
            return None
        taken = self._make_room(want, self._staying, spares=first, claims=own)
        if isinstance(taken, str):
            return taken
        for holding in taken:
            self._drain(holding, _makes_room(holding, want))
        self._staying.promise(want)
        return None

    def _jobs_give_way(self, want: Want, room: Room) -> None:
        """Stops jobs if it fits into the room without them and not with them: they begin anew later."""
        if not self._jobs or room.refusal(want) is None:
            return
        for job in self._jobs:
            room.remove(job)
        fits = room.refusal(want) is None
        self._jobs_go_on(want, room, fits)

    def _jobs_go_on(self, want: Want, room: Room, fits: bool) -> None:
        """Puts jobs back into a room that is without them. Where it fits there, those in its way are stopped, the last
        ones first."""
        staying: list[Holding] = []
        for job in self._jobs:
            room.add(job)
            if not fits or room.refusal(want) is None:
                staying.append(job)
                continue
            room.remove(job)
            self._stop(job, f"gave way to model '{want.model}'")
        self._jobs = staying

    def _stop(self, job: Holding, reason: str) -> None:
        for room in (self._used, self._staying):
            if room.holds(job):
                room.remove(job)
        self._actions.append(StopJob(job.id, reason))

    def _make_room(self, want: Want, room: Room, *, spares: bool, claims: bool) -> list[Holding] | str:
        """Instances without which `want` will fit everywhere, or why it would not. Nothing is drained yet; jobs have
        been stopped for it, so that none of them costs an instance."""
        for job in self._jobs:
            room.remove(job)
        taken, refusal = self._victims.choose(want, room, self._outside, spares=spares, claims=claims)
        for holding in taken:
            room.remove(holding)
        self._jobs_go_on(want, room, refusal is None)
        for holding in taken:
            room.add(holding)
        return taken if refusal is None else room.why_like(want, refusal)

    def _keep_standby(self) -> None:
        snapshot = self._snapshot
        missing = snapshot.standby_target + self._waiting - len(self._standby) - snapshot.starting
        wanted = missing
        if snapshot.hold_refill and self._starting_cold():
            wanted = min(missing, self._waiting - len(self._standby) - snapshot.starting)
            self._refill_held = missing > max(0, wanted)
        if not snapshot.start_refusal:
            for _ in range(min(wanted, snapshot.start_limit - snapshot.starting)):
                why = "a model waits for a runner" if self._waiting else "the standby pool is short"
                self._actions.append(StartStandby(why))
        if snapshot.starting == 0 and not self._waiting:
            for _ in range(-missing):
                self._actions.append(StopStandby(self._standby.pop(), "more stand by than are wanted"))

    def _starting_cold(self) -> bool:
        """A load is under way, begins now, or begins as soon as there is a runner; or a first answer is due."""
        begun = any(isinstance(action, LoadOnStandby) for action in self._actions)
        held = (each for held in self._live.values() for each in held)
        return begun or self._waiting > 0 or any(not each.ready or each.answer_due for each in held)


def _going_order(want: Want, holding: Holding) -> tuple[bool, bool, float]:
    """Of what is too much: what is slow, then what nobody would start like that any more, then the newest."""
    return (not holding.slow, holding.resources == want.resources, -holding.started_at)


def _is_over(refusal: Refusal) -> bool:
    """The tenant, or its cohort by what the tenant borrows, is over a limit."""
    return any(binding.kind not in (Limit.MODEL, Limit.BORROWED) for binding in refusal.bindings)


def _makes_room(holding: Holding, want: Want) -> str:
    if holding.tenant == want.tenant:
        return f"makes room for model '{want.model}'"
    return f"makes room for model '{want.model}' of tenant '{want.tenant}'"
