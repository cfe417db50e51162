"""The desired state of all routers: what the fleet announces, as messages, with a session per router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TypeVar

from headrace.control.v1 import control_pb2
from headrace_autoscaler.control import messages
from headrace_autoscaler.control.session import Session
from headrace_autoscaler.core.leased_limits import is_limited
from headrace_autoscaler.core.leases import LeaseBook
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.promises import Promise, Promised
from headrace_autoscaler.core.quota import TenantQuota, quota_of
from headrace_autoscaler.core.refused import RefusalLog, Refused
from headrace_autoscaler.core.wants import Use, WantMeter, needed
from headrace_autoscaler.domain import Limits, Model, Tenant
from headrace_autoscaler.fleet.announcements import NO_NOTICES, BudgetNotice, BudgetNotices, PlacementNotice
from headrace_autoscaler.fleet.reports import DemandEntry, Report
from headrace_common.clock import Clock
from headrace_common.identity import DEFAULT_TENANT

LEASE_TTL_S = 10.0
_ABSENT_ROUTER_S = 10.0
"""A router that has not come back after this is taken to hold nothing."""
_BLIP_S = 3.0
"""A router that is back within this has gone on serving: until then it is taken to need what it needed."""

_UNLIMITED = Limits()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Leased:
    """What is leased of a tenant, or of a model's own limits. Quota: of a tenant, for what it lends and borrows."""

    tenant: str
    model: str = ""
    weight: float = 1.0
    limits: Limits = _UNLIMITED
    quota: TenantQuota | None = None


class Board:
    """`fleet.Announcements`, for any number of routers.

    Args:
        processes: routers that are configured; limits are divided among that many.
        promised: what limits were that routers may still obey, as of now and of whenever state is announced.
    """

    def __init__(
        self, prices: LocalPrices, processes: int, clock: Clock, promised: Callable[[], Promised] = dict
    ) -> None:
        self._prices = prices
        self._processes = processes
        self._clock = clock
        self._mark = 0
        self._sessions: dict[str, Session] = {}
        self._incomplete_since = clock.monotonic()
        self._known_models: dict[str, tuple[Model, tuple[str, ...], BudgetNotice | None]] = {}
        self._known_placements: dict[str, PlacementNotice] = {}
        self._models: dict[str, control_pb2.ModelEntry] = {}
        self._placements: dict[str, control_pb2.Placement] = {}
        self._limits: dict[str, _Leased] = {}
        self._notices: Mapping[str, BudgetNotice] = {}
        # Routers may still obey what an autoscaler before us has lent them.
        self._book = LeaseBook(processes, LEASE_TTL_S, clock.monotonic() + LEASE_TTL_S, promised())
        self._promised = promised
        self._outdated: dict[str, tuple[Promise, int]] = {}
        self._renewal = 0
        self._meters: dict[str, WantMeter] = {}
        self._left_at: dict[str, float] = {}
        self._refusals = RefusalLog()

    # fleet.Announcements

    def announce(
        self,
        models: Iterable[Model],
        blocked: Mapping[Key, str],
        placements: Iterable[PlacementNotice],
        tenants: Iterable[Tenant],
        budgets: BudgetNotices = NO_NOTICES,
    ) -> int:
        models = tuple(models)
        self._outdated = {
            key: before if (before := self._outdated.get(key)) and before[0] is promise else (promise, self._renewal)
            for key, promise in self._promised().items()
        }
        changed_models = self._set_models(models, blocked, budgets.models)
        changed_placements = self._set_placements({notice.instance: notice for notice in placements})
        changed_leases = self._set_limits(models, tenants, budgets.leases)
        if changed_models or changed_placements or changed_leases:
            self._mark += 1
            for session in self._sessions.values():
                session.touch(changed_models, changed_placements, changed_leases)
        return self._mark

    def heard_since(self, mark: int) -> bool:
        if not self._complete and self._clock.monotonic() - self._incomplete_since < _ABSENT_ROUTER_S:
            return False
        return all(session.heard_since(mark) for session in self._sessions.values())

    def refused(self, model: str) -> tuple[Refused, ...]:
        return self._refusals.refused(model, self._book, self._clock.monotonic())

    # Sessions

    def has_part(self, router: str) -> bool:
        """Whether it is one of the routers that limits are divided among."""
        return router in self._book.routers

    def open(self, router: str) -> Session:
        """A new session for this router, in place of any that it had."""
        now = self._clock.monotonic()
        session = self._sessions[router] = Session(router, now, self._renewal)
        self._left_at.pop(router, None)
        self._meters.setdefault(router, WantMeter(now))
        return session

    def serves(self, session: Session) -> bool:
        """Not one that its router has replaced: nobody would obey what it is sent, and the book would take it for
        what the router has."""
        return self._sessions.get(session.router) is session

    def close(self, session: Session) -> bool:
        """Whether the router is gone with it; not if it has a newer one."""
        if not self.serves(session):
            return False
        was_complete = self._complete
        del self._sessions[session.router]
        now = self._clock.monotonic()
        if was_complete and not self._complete:
            self._incomplete_since = now
        self._left_at[session.router] = now
        return True

    def update_for(self, session: Session) -> control_pb2.StateUpdate:
        keys = session.leases_due(self._limits)
        serial, shares = self._book.issue(session.router, keys, session.heard_at, self._clock.monotonic())
        leases = {}
        for key, share in shares.items():
            each = self._limits[key]
            leases[key] = messages.lease(
                each.tenant, each.model, each.weight, share, LEASE_TTL_S, session.answers, self._notices.get(key)
            )
        update = session.take(self._mark, self._models, self._placements, leases)
        session.issued(update.version, serial)
        return update

    def holds(self, session: Session, excess: Mapping[str, Limits]) -> None:
        """What the router has in hand beyond its leases, by their keys; what is not named is not."""
        if self.serves(session):
            self._book.holds(session.router, excess, self._clock.monotonic())

    def applied(self, session: Session, version: int) -> None:
        """The router says that it obeys this version, so no lease from before."""
        first = session.answers == 0
        serial = session.applied(version, self._clock.monotonic())
        if self.serves(session) and serial:
            freed = self._book.applied(session.router, serial)
            if first and freed:
                # Until now it was taken to obey all that somebody before us may have lent it.
                self.move_leases()

    def reported(self, report: Report) -> None:
        """Leases move with what routers report."""
        meter = self._meters.get(report.router)
        if meter is not None:
            uses, now = map(_use, report.entries), self._clock.monotonic()
            wants = meter.report(uses, now, complete=not report.urgent, period_s=report.period_s, own=self._own_rate)
            self._book.want(report.router, wants)
            for entry in report.entries:
                if entry.refusals:
                    waiting = replace(_use(entry), in_hand=entry.level.queued)
                    missing = ceil(needed(waiting)) - waiting.in_hand
                    self._refusals.note(
                        report.router, entry.tenant, entry.model, entry.refusals, missing, self._book, now
                    )

    def move_leases(self) -> None:
        """Sends what has to move from router to router. Call it every now and then."""
        now = self._clock.monotonic()
        for router in [each for each, left_at in self._left_at.items() if now - left_at >= _BLIP_S]:
            del self._left_at[router], self._meters[router]
            self._book.want(router, {})
        for router, keys in self._book.moves(self._sessions, now).items():
            self._sessions[router].touch(leases=keys)

    def refresh_leases(self) -> None:
        """Renews what expires. Call it well within the time to live."""
        expiring = [key for key, each in self._limits.items() if is_limited(each.limits)]
        self._renewal += 1
        for session in self._sessions.values():
            session.renew(expiring, self._renewal)

    def outdated(self) -> Promised:
        """What was promised that no router obeys any more: each has applied all that there was to say since."""
        sessions = [self._sessions.get(router) for router in self._book.routers]
        renewed = min(-1 if session is None else session.renewed for session in sessions)
        return {key: promise for key, (promise, renewal) in self._outdated.items() if renewal < renewed}

    def _own_rate(self, key: str) -> float:
        each = self._limits.get(key)
        return (each.limits.requests_per_second or 0.0) if each is not None else 0.0

    @property
    def _complete(self) -> bool:
        return len(self._sessions) >= self._processes

    def _set_models(
        self, models: tuple[Model, ...], blocked: Mapping[Key, str], budgets: Mapping[str, BudgetNotice]
    ) -> set[str]:
        known = {
            model.spec.name: (
                model,
                tuple(blocked.get((each.model, each.revision), "") for each in model.revisions),
                budgets.get(model.spec.name),
            )
            for model in models
        }
        changed = _differences(self._known_models, known)
        self._known_models = known
        for name in tuple(changed):
            old = self._models.pop(name, None)
            if name in known:
                self._models[name] = messages.model_entry(known[name][0], blocked, self._processes, budgets.get(name))
                if self._models[name] == old:
                    changed.discard(name)
        return changed

    def _set_placements(self, known: dict[str, PlacementNotice]) -> set[str]:
        changed = _differences(self._known_placements, known)
        self._known_placements = known
        for instance in changed:
            self._placements.pop(instance, None)
            if instance in known:
                self._placements[instance] = messages.placement(known[instance], self._prices)
        return changed

    def _set_limits(
        self, models: tuple[Model, ...], tenants: Iterable[Tenant], budgets: Mapping[str, BudgetNotice]
    ) -> set[str]:
        limits = {DEFAULT_TENANT: _Leased(DEFAULT_TENANT)}
        limits.update({each.name: _leased(each) for each in tenants})
        for model in models:
            spec = model.spec
            if is_limited(spec.limits):
                limits[f"{spec.tenant}/{spec.name}"] = _Leased(spec.tenant, spec.name, limits=spec.limits)
            if spec.tenant not in limits:
                limits[spec.tenant] = _Leased(spec.tenant)
        for key in budgets.keys() - limits.keys():
            tenant, _, name = key.partition("/")
            limits[key] = _Leased(tenant, name)
        changed = _differences(self._limits, limits)
        retold = _differences(self._notices, budgets) & limits.keys()
        self._limits, self._notices = limits, budgets
        if changed:
            quotas = [each.quota for each in limits.values() if each.quota is not None]
            self._book.set_limits({key: each.limits for key, each in limits.items()}, quotas)
        return changed | retold


def _leased(tenant: Tenant) -> _Leased:
    quota = quota_of(tenant) if tenant.cohort else None
    return _Leased(tenant.name, "", tenant.weight, tenant.nominal, quota)


def _use(entry: DemandEntry) -> Use:
    """What counts against limits, of which what instances are needed for is a part."""
    in_hand = entry.level.queued + entry.level.in_flight + entry.following + entry.held
    arrivals = entry.counts.arrivals + entry.cache_hits
    return Use(entry.tenant, entry.model, arrivals, entry.refused, in_hand, entry.cache_hits, entry.over_rate)


def _differences(old: Mapping[str, T], new: Mapping[str, T]) -> set[str]:
    """Keys that came, went or changed; the same object is the same without a look inside."""
    changed = {key for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before is not value and before != value:
            changed.add(key)
    return changed
