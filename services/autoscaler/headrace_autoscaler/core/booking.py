"""What a run of the planner has decided so far: who goes, who stays, and what room that leaves."""

from __future__ import annotations

from collections import deque

from headrace_autoscaler.core.plans import Action, DrainInstance, Holding, Key, Snapshot, StopJob, Want
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.victims import Victims


class Booking:
    """Of one run. What is decided is booked, so that later decisions of the same run see it.

    Attributes:
        used: with all that is held, and what will be.
        staying: the same without what goes.
        live: instances by revision, but for those that drain.
        outside: instances that were let in over the limits.
        spares: instances that may make room.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.actions: list[Action] = []
        self.jobs = list(snapshot.jobs)
        self.standby = deque(snapshot.standby)
        self.live: dict[Key, list[Holding]] = {}
        self.used = self.new_room()
        self.staying = self.new_room()
        for holding in snapshot.holdings:
            self.used.add(holding)
            if not holding.draining:
                self.staying.add(holding)
                self.live.setdefault(holding.key, []).append(holding)
        self.drained: set[str] = set()
        self.outside = {each.id for each in snapshot.holdings if not each.admitted}
        self.admitted: list[str] = []
        self.spares = self._find_spares()
        self.victims = Victims(self.spares, self.live)

    def new_room(self) -> Room:
        room = Room(self.snapshot.tenants, self.snapshot.capacity, self.snapshot.wants)
        for job in self.jobs:
            room.add(job)
        return room

    def _find_spares(self) -> list[Holding]:
        """Instances that may make room; the last one goes first, which is the longest idle."""
        spares: list[Holding] = []
        for want in sorted((want for want in self.snapshot.wants if want.spare), key=lambda want: want.idle_s):
            ready = [holding for holding in self.live.get(want.key, ()) if holding.ready]
            spares += sorted(ready, key=lambda holding: holding.started_at)[want.minimum :]
        return spares

    def room_that_stays(self) -> Room:
        """With jobs and live instances, those aside that go anyway."""
        gone = {want.key for want in self.snapshot.wants if want.retiring} | self.snapshot.protected
        staying = self.new_room()
        for key, holdings in self.live.items():
            for holding in holdings:
                if key not in gone and holding.id not in self.drained:
                    staying.add(holding)
        return staying

    def drain(self, holding: Holding, reason: str) -> None:
        if holding.id not in self.drained:
            self.drained.add(holding.id)
            self.staying.remove(holding)
            self.victims.gone(holding)
            self.actions.append(DrainInstance(holding.id, reason))

    def stop_job(self, job: Holding, reason: str) -> None:
        for room in (self.used, self.staying):
            if room.holds(job):
                room.remove(job)
        self.actions.append(StopJob(job.id, reason))

    def jobs_give_way(self, want: Want, room: Room) -> None:
        """Stops jobs if it fits into the room without them and not with them: they begin anew later."""
        if not self.jobs or room.refusal(want) is None:
            return
        for job in self.jobs:
            room.remove(job)
        fits = room.refusal(want) is None
        self._jobs_go_on(want, room, fits)

    def _jobs_go_on(self, want: Want, room: Room, fits: bool) -> None:
        """Puts jobs back into a room that is without them. Where it fits there, those in its way are stopped, the last
        ones first."""
        staying: list[Holding] = []
        for job in self.jobs:
            room.add(job)
            if not fits or room.refusal(want) is None:
                staying.append(job)
                continue
            room.remove(job)
            self.stop_job(job, f"gave way to model '{want.model}'")
        self.jobs = staying

    def make_room(self, want: Want, room: Room, *, spares: bool, claims: bool) -> list[Holding] | str:
        """Instances without which `want` will fit everywhere, or why it would not. Nothing is drained yet; jobs have
        been stopped for it, so that none of them costs an instance."""
        for job in self.jobs:
            room.remove(job)
        taken, refusal = self.victims.choose(want, room, self.outside, spares=spares, claims=claims)
        for holding in taken:
            room.remove(holding)
        self._jobs_go_on(want, room, refusal is None)
        for holding in taken:
            room.add(holding)
        return taken if refusal is None else room.why_like(want, refusal)


def makes_room(holding: Holding, want: Want) -> str:
    if holding.tenant == want.tenant:
        return f"makes room for model '{want.model}'"
    return f"makes room for model '{want.model}' of tenant '{want.tenant}'"
