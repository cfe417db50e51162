"""The desired state of all routers: what the fleet announces, as messages, with a session per router."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from headrace.control.v1 import control_pb2
from headrace_autoscaler.control import messages
from headrace_autoscaler.control.session import Session
from headrace_autoscaler.core.leases import divide
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.domain import Limits, Model, Tenant
from headrace_autoscaler.fleet.announcements import PlacementNotice
from headrace_common.clock import Clock
from headrace_common.identity import DEFAULT_TENANT

LEASE_TTL_S = 10.0
_ABSENT_ROUTER_S = 10.0
"""A router that has not come back after this is taken to hold nothing."""

T = TypeVar("T")


class Board:
    """`fleet.Announcements`, for any number of routers.

    Args:
        processes: routers that are configured; limits are divided among that many.
    """

    def __init__(self, prices: LocalPrices, processes: int, clock: Clock) -> None:
        self._prices = prices
        self._processes = processes
        self._clock = clock
        self._mark = 0
        self._sessions: dict[str, Session] = {}
        self._incomplete_since = clock.monotonic()
        self._known_models: dict[str, tuple[Model, tuple[str, ...]]] = {}
        self._known_placements: dict[str, PlacementNotice] = {}
        self._models: dict[str, control_pb2.ModelEntry] = {}
        self._placements: dict[str, control_pb2.Placement] = {}
        self._limits: dict[str, tuple[str, str, float, Limits]] = {}

    # fleet.Announcements

    def announce(
        self,
        models: Iterable[Model],
        blocked: Mapping[Key, str],
        placements: Iterable[PlacementNotice],
        tenants: Iterable[Tenant],
    ) -> int:
        models = tuple(models)
        changed_models = self._set_models(models, blocked)
        changed_placements = self._set_placements({notice.instance: notice for notice in placements})
        changed_leases = self._set_limits(models, tenants)
        if changed_models or changed_placements or changed_leases:
            self._mark += 1
            for session in self._sessions.values():
                session.touch(changed_models, changed_placements, changed_leases)
        return self._mark

    def heard_since(self, mark: int) -> bool:
        if not self._complete and self._clock.monotonic() - self._incomplete_since < _ABSENT_ROUTER_S:
            return False
        return all(session.heard_since(mark) for session in self._sessions.values())

    # Sessions

    def open(self, router: str) -> Session:
        """A new session for this router, in place of any that it had."""
        session = self._sessions[router] = Session(router)
        self._touch_all_leases()
        return session

    def close(self, session: Session) -> bool:
        """Whether the router is gone with it; not if it has a newer one."""
        if self._sessions.get(session.router) is not session:
            return False
        was_complete = self._complete
        del self._sessions[session.router]
        if was_complete and not self._complete:
            self._incomplete_since = self._clock.monotonic()
        self._touch_all_leases()
        return True

    def update_for(self, session: Session) -> control_pb2.StateUpdate:
        leases = {key: self._lease(key, session.router) for key in session.leases_due(self._limits)}
        return session.take(self._mark, self._models, self._placements, leases)

    def refresh_leases(self) -> None:
        """Renews what expires. Call it well within the time to live."""
        expiring = [
            key
            for key, (_, _, _, limits) in self._limits.items()
            if limits.concurrency is not None or limits.requests_per_second is not None
        ]
        for session in self._sessions.values():
            session.touch(leases=expiring)

    @property
    def _complete(self) -> bool:
        return len(self._sessions) >= self._processes

    def _touch_all_leases(self) -> None:
        for session in self._sessions.values():
            session.touch(leases=self._limits)

    def _set_models(self, models: tuple[Model, ...], blocked: Mapping[Key, str]) -> set[str]:
        known = {
            model.spec.name: (
                model,
                tuple(blocked.get((each.model, each.revision), "") for each in model.revisions),
            )
            for model in models
        }
        changed = _differences(self._known_models, known)
        self._known_models = known
        for name in tuple(changed):
            old = self._models.pop(name, None)
            if name in known:
                self._models[name] = messages.model_entry(known[name][0], blocked, self._processes)
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

    def _set_limits(self, models: tuple[Model, ...], tenants: Iterable[Tenant]) -> set[str]:
        limits = {DEFAULT_TENANT: (DEFAULT_TENANT, "", 1.0, Limits())}
        limits.update({each.name: (each.name, "", each.weight, each.nominal) for each in tenants})
        for model in models:
            spec = model.spec
            if spec.limits.concurrency is not None or spec.limits.requests_per_second is not None:
                limits[f"{spec.tenant}/{spec.name}"] = (spec.tenant, spec.name, 1.0, spec.limits)
            if spec.tenant not in limits:
                limits[spec.tenant] = (spec.tenant, "", 1.0, Limits())
        changed = _differences(self._limits, limits)
        self._limits = limits
        return changed

    def _lease(self, key: str, router: str) -> control_pb2.QuotaLease:
        tenant, model, weight, limits = self._limits[key]
        share = divide(limits, tuple(self._sessions), self._processes)[router]
        return messages.lease(tenant, model, weight, share, LEASE_TTL_S)


def _differences(old: Mapping[str, T], new: Mapping[str, T]) -> set[str]:
    """Keys that came, went or changed; the same object is the same without a look inside."""
    changed = {key for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before is not value and before != value:
            changed.add(key)
    return changed
