"""Where instances start and which stop: a snapshot in, actions with reasons out.

Linear in models + instances. Nothing is started that takes a tenant, a model or the machine over its
limit. What is verified for a deploy is outside the limits for as long as nobody needs it: it is the
first to make room.
"""

from __future__ import annotations

from collections import deque

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
        self._spares = self._find_spares()

    def run(self) -> Plan:
        self._drain_unwanted()
        self._drain_surplus()
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
        return Plan(tuple(self._actions), self._blocked, self._bound)

    def _missing(self, want: Want) -> int:
        return want.desired - len(self._live.get(want.key, ()))

    def _find_spares(self) -> list[Holding]:
        """Instances that may make room; the last one goes first, which is the longest idle."""
        spare = sorted((want for want in self._snapshot.wants if want.spare), key=lambda want: want.idle_s)
        return [holding for want in spare for holding in self._live.get(want.key, ()) if holding.ready]

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
            # One that loads is left to finish: its start is paid for, and demand may be back. Nor does it
            # stand in for one that is ready: until it is, that one answers.
            ready = [each for each in self._live.get(want.key, ()) if each.ready]
            newest_first = sorted(ready, key=lambda holding: -holding.started_at)
            for holding in newest_first[: max(0, len(ready) - want.desired)]:
                self._drain(holding, f"{len(ready)} ready, {want.desired} wanted")

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

    def _refuse(self, want: Want, reason: str) -> None:
        self._bound[want.key] = reason
        if not self._live.get(want.key):
            self._blocked[want.key] = reason

    def _room_for(self, want: Want, first: bool) -> str | None:
        """ "" there is room; None: room is being made; else why there is none."""
        nominal = self._snapshot.limits.get(want.tenant, Limits())
        tenant_used = self._used.tenants.get(want.tenant, NOTHING)
        tenant_freeing = self._freeing.tenants.get(want.tenant, NOTHING)
        model_used = self._used.models.get(want.model, NOTHING)
        model_freeing = self._freeing.models.get(want.model, NOTHING)
        machine = self._snapshot.capacity
        making_room = False
        for limits, used, freeing, scope in (
            (want.limits, model_used, model_freeing, "model"),
            (nominal, tenant_used, tenant_freeing, "tenant"),
            (machine, self._used.total, self._freeing.total, "machine"),
        ):
            short = shortage(limits, used, want.resources)
            if short is None:
                continue
            # Taking from one model to give another its second instance would only move the shortage.
            if not first or not self._make_room(want, limits, subtract(used, freeing), scope):
                return _refusal(scope, want, short)
            making_room = True
        return None if making_room else ""

    def _make_room(self, want: Want, limits: Limits, used: Resources, scope: str) -> bool:
        """Drains spare instances until `want` will fit; False, with nothing drained, if it never would."""
        chosen: list[Holding] = []
        for holding in reversed(self._spares):
            if shortage(limits, used, want.resources) is None:
                break
            if holding.id not in self._drained and _in_scope(holding, want, scope):
                chosen.append(holding)
                used = subtract(used, holding.resources)
        if shortage(limits, used, want.resources) is not None:
            return False
        for holding in chosen:
            self._drain(holding, f"makes room for model '{want.model}'")
        return True

    def _keep_standby(self) -> None:
        snapshot = self._snapshot
        target = snapshot.standby_target + self._waiting
        missing = target - len(self._standby) - snapshot.starting
        if not snapshot.start_refusal:
            for _ in range(min(missing, snapshot.start_limit - snapshot.starting)):
                why = "a model waits for a runner" if self._waiting else "the standby pool is short"
                self._actions.append(StartStandby(why))
        if snapshot.starting == 0 and not self._waiting:
            for _ in range(-missing):
                self._actions.append(StopStandby(self._standby.pop(), "more stand by than are wanted"))


def _in_scope(holding: Holding, want: Want, scope: str) -> bool:
    if holding.key == want.key:
        return False
    if scope == "model":
        return holding.model == want.model
    return scope == "machine" or holding.tenant == want.tenant


def _refusal(scope: str, want: Want, short: Shortage) -> str:
    if scope == "model":
        return model_refusal(want.model, short)
    return tenant_refusal(want.tenant, want.model, short) if scope == "tenant" else machine_refusal(want.model, short)
