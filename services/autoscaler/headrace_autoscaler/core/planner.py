"""Where instances start and which stop: a snapshot in, actions with reasons out.

Linear in models + instances. Nothing is started that takes a tenant, a model or the machine over its
limit. What is verified for a deploy is outside the limits while it is verified; afterwards it stays only if it
fits. Instances that a minimum or present demand asks for never make room, so that no two models can take turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from headrace_autoscaler.core.plans import (
    Action,
    DrainInstance,
    Holding,
    Key,
    LoadOnStandby,
    Plan,
    Snapshot,
    StartStandby,
    StopStandby,
    Want,
)
from headrace_autoscaler.core.room import (
    NOTHING,
    Shortage,
    Usage,
    add,
    machine_refusal,
    model_refusal,
    shortage,
    subtract,
    tenant_refusal,
)
from headrace_autoscaler.domain import Limits, Resources


def plan(snapshot: Snapshot) -> Plan:
    return _Planning(snapshot).run()


class _Planning:
    """One run. Books what it decides, so that later decisions of the same run see it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._actions: list[Action] = []
        self._blocked: dict[Key, str] = {}
        self._bound: dict[Key, str] = {}
        self._standby = deque(snapshot.standby)
        self._waiting = 0
        self._live: dict[Key, list[Holding]] = {}
        self._used = Usage()
        self._freeing = Usage()
        for holding in snapshot.holdings:
            self._used.add(holding.tenant, holding.model, holding.resources)
            if holding.draining:
                self._freeing.add(holding.tenant, holding.model, holding.resources)
            else:
                self._live.setdefault(holding.key, []).append(holding)
        self._drained: set[str] = set()
        self._placed: set[Key] = set()
        self._outside = {each.id for each in snapshot.holdings if not each.admitted}
        self._admitted: list[str] = []
        self._refill_held = False
        self._spares = self._find_spares()

    def run(self) -> Plan:
        self._drain_unwanted()
        self._drain_surplus()
        self._admit_verified()
        self._drain_over_limit()
        for key in self._snapshot.verifications:
            self._verify(key)
        short = [want for want in self._snapshot.wants if self._missing(want) > 0]
        # Everybody's first instance comes before anybody's second.
        for want in short:
            if not self._live.get(want.key):
                self._start_one(want, first=True)
        for want in short:
            self._start_rest(want)
        self._keep_standby()
        return Plan(tuple(self._actions), self._blocked, self._bound, tuple(self._admitted), self._refill_held)

    def _missing(self, want: Want) -> int:
        """What is to be replaced does not stand in for what replaces it."""
        return want.desired - sum(not holding.slow for holding in self._live.get(want.key, ()))

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
                    self._drain(holding, want.held_back)
                continue
            # One that loads is left to finish: its start is paid for, and demand may be back. Nor does it
            # stand in for one that is ready: until it is, that one answers.
            ready = [each for each in self._live.get(want.key, ()) if each.ready]
            slow_then_newest_first = sorted(ready, key=lambda holding: (not holding.slow, -holding.started_at))
            for holding in slow_then_newest_first[: max(0, len(ready) - want.desired)]:
                slow = "slower than its peers: " if holding.slow else ""
                self._drain(holding, f"{slow}{len(ready)} ready, {want.desired} wanted")

    def _admit_verified(self) -> None:
        """What was verified outside the limits stays only inside them. What goes soon does not count against it:
        a redeploy at the limit works."""
        wants = {want.key: want for want in self._snapshot.wants}
        passing = {key for key, want in wants.items() if want.retiring} | self._snapshot.protected
        staying = [each for key in wants if key not in passing for each in self._live.get(key, ())]
        newcomers = [each for each in staying if each.id in self._outside and each.id not in self._drained]
        if not newcomers:
            return
        kept = Usage()
        for holding in staying:
            if holding.id not in self._outside and holding.id not in self._drained:
                kept.add(holding.tenant, holding.model, holding.resources)
        # Those that somebody asks for first; the oldest among equals.
        for holding in sorted(newcomers, key=lambda each: (wants[each.key].spare, each.started_at)):
            self._admit(wants[holding.key], holding, kept)

    def _admit(self, want: Want, holding: Holding, kept: Usage) -> None:
        taken = self._take_spares(want, kept, Usage())
        if isinstance(taken, str):
            self._drain(holding, f"its first load was beyond the limits: {taken}")
            self._live[want.key] = [each for each in self._live[want.key] if each.id != holding.id]
            return
        for spare in taken:
            kept.remove(spare.tenant, spare.model, spare.resources)
            self._drain(spare, f"makes room for model '{want.model}'")
        kept.add(holding.tenant, holding.model, holding.resources)
        self._outside.discard(holding.id)
        self._admitted.append(holding.id)

    def _drain_over_limit(self) -> None:
        """What nobody needs goes at once where its tenant is over its limit."""
        gone = {want.key for want in self._snapshot.wants if want.retiring} | self._snapshot.protected
        used: dict[str, Resources] = {}
        for key, holdings in self._live.items():
            for holding in holdings:
                if key not in gone and holding.id not in self._drained:
                    used[holding.tenant] = add(used.get(holding.tenant, NOTHING), holding.resources)
        for holding in reversed(self._spares):
            limits = self._snapshot.limits.get(holding.tenant)
            if limits is None or holding.id in self._drained or holding.key in gone:
                continue
            others = subtract(used[holding.tenant], holding.resources)
            if shortage(limits, others, holding.resources):
                used[holding.tenant] = others
                self._drain(holding, f"tenant '{holding.tenant}' is over its limit")

    def _drain(self, holding: Holding, reason: str) -> None:
        if holding.id not in self._drained:
            self._drained.add(holding.id)
            self._freeing.add(holding.tenant, holding.model, holding.resources)
            self._actions.append(DrainInstance(holding.id, reason))

    def _verify(self, key: Key) -> None:
        if self._standby:
            self._actions.append(LoadOnStandby(self._standby.popleft(), *key, "deployed: a first load", True))
        else:
            self._waiting += 1

    def _start_rest(self, want: Want) -> None:
        first = 0 if self._live.get(want.key) else 1
        if first and want.key not in self._placed:
            return
        for _ in range(self._missing(want) - first):
            if not self._start_one(want, first=False):
                return

    def _start_one(self, want: Want, first: bool) -> bool:
        """False: nothing more can be started for this revision in this plan."""
        refusal = want.held_back or (None if want.paused else self._room_for(want, first))
        if refusal is None:
            return False
        if refusal:
            if want.held_back or not self._replace_in_place(want):
                self._refuse(want, refusal)
            return False
        if not self._standby and self._snapshot.start_refusal and not self._snapshot.starting:
            self._refuse(want, self._snapshot.start_refusal)
            return False
        self._used.add(want.tenant, want.model, want.resources)
        self._placed.add(want.key)
        if self._standby:
            self._actions.append(LoadOnStandby(self._standby.popleft(), want.model, want.revision, "wanted"))
        else:
            self._waiting += 1
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

    def _room_for(self, want: Want, first: bool) -> str | None:
        """ "" there is room; None: room is being made; else why there is none."""
        refusal = self._refusal_now(want)
        # Taking from one model to give another its second instance would only move the shortage.
        if not refusal or not first:
            return refusal
        taken = self._take_spares(want, self._used, self._freeing)
        if isinstance(taken, str):
            return taken
        for holding in taken:
            self._drain(holding, f"makes room for model '{want.model}'")
        return None

    def _refusal_now(self, want: Want) -> str:
        for scope, limits, used in self._scopes(want, self._used):
            if short := shortage(limits, used, want.resources):
                return _refusal(scope, want, short)
        return ""

    def _take_spares(self, want: Want, used: Usage, freeing: Usage) -> list[Holding] | str:
        """Spare instances without which `want` will fit everywhere, or why it would not. Nothing is drained yet."""
        chosen: list[Holding] = []
        scopes = zip(self._scopes(want, used), self._scopes(want, freeing), strict=True)
        for (scope, limits, taken), (_, _, going) in scopes:
            held = subtract(taken, going)
            left = held
            for holding in chosen:
                left = subtract(left, holding.resources) if _in_scope(holding, want, scope) else left
            for holding in reversed(self._spares) if not want.spare else ():
                if shortage(limits, left, want.resources) is None:
                    break
                if self._takable(holding, want, scope) and holding not in chosen:
                    chosen.append(holding)
                    left = subtract(left, holding.resources)
            if short := shortage(limits, left, want.resources):
                return _refusal(scope, want, replace(short, used=getattr(held, short.dimension)))
        return chosen

    def _takable(self, holding: Holding, want: Want, scope: str) -> bool:
        free = holding.id not in self._drained and holding.id not in self._outside
        return free and holding.key != want.key and _in_scope(holding, want, scope)

    def _scopes(self, want: Want, usage: Usage) -> Iterator[tuple[str, Limits, Resources]]:
        nominal = self._snapshot.limits.get(want.tenant, Limits())
        yield "model", want.limits, usage.models.get(want.model, NOTHING)
        yield "tenant", nominal, usage.tenants.get(want.tenant, NOTHING)
        yield "machine", self._snapshot.capacity, usage.total

    def _keep_standby(self) -> None:
        snapshot = self._snapshot
        missing = snapshot.standby_target + self._waiting - len(self._standby) - snapshot.starting
        wanted = missing
        if snapshot.hold_refill and self._loading():
            wanted = min(missing, self._waiting - len(self._standby) - snapshot.starting)
            self._refill_held = missing > max(0, wanted)
        if not snapshot.start_refusal:
            for _ in range(min(wanted, snapshot.start_limit - snapshot.starting)):
                why = "a model waits for a runner" if self._waiting else "the standby pool is short"
                self._actions.append(StartStandby(why))
        if snapshot.starting == 0 and not self._waiting:
            for _ in range(-missing):
                self._actions.append(StopStandby(self._standby.pop(), "more stand by than are wanted"))

    def _loading(self) -> bool:
        """A load is under way, begins now, or begins as soon as there is a runner."""
        begun = any(isinstance(action, LoadOnStandby) for action in self._actions)
        return begun or self._waiting > 0 or any(not each.ready for held in self._live.values() for each in held)


def _in_scope(holding: Holding, want: Want, scope: str) -> bool:
    if scope == "model":
        return holding.model == want.model
    return scope == "machine" or holding.tenant == want.tenant


def _refusal(scope: str, want: Want, short: Shortage) -> str:
    if scope == "model":
        return model_refusal(want.model, short)
    return tenant_refusal(want.tenant, want.model, short) if scope == "tenant" else machine_refusal(want.model, short)
