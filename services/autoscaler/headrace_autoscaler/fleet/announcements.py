"""What the fleet tells routers, and what it must know of them; `control/` does both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.refused import Refused
from headrace_autoscaler.domain import Model, Resources, Tenant


@dataclass(frozen=True, slots=True)
class PlacementNotice:
    """One instance, as routers need it. `state` is "loading", "ready" or "draining".

    Attributes:
        decide_s, place_s: of the cold start that this instance ends; None: it ends none.
        profile_us: batch size -> microseconds.
    """

    instance: str
    model: str
    revision: int
    target: str
    state: str
    resources: Resources
    decide_s: float | None = None
    place_s: float | None = None
    profile_us: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetNotice:
    """A budget that is nearly or wholly spent.

    Attributes:
        state: "warning", "refuse" or "queue".
        subject: whose: "tenant:a", "tenant:a/model:m".
        returns_at: seconds since the epoch when it is whole again.
    """

    state: str
    subject: str
    reason: str
    returns_at: int


@dataclass(frozen=True, slots=True)
class BudgetNotices:
    """Leases by key, "tenant" or "tenant/model": who calls. Models by name: who pays for its instances."""

    leases: Mapping[str, BudgetNotice] = field(default_factory=dict)
    models: Mapping[str, BudgetNotice] = field(default_factory=dict)


NO_NOTICES = BudgetNotices()


class Announcements(Protocol):
    """Desired state for routers. Each call is compared with the last one; only differences are sent."""

    def announce(
        self,
        models: Iterable[Model],
        blocked: Mapping[Key, str],
        placements: Iterable[PlacementNotice],
        tenants: Iterable[Tenant],
        budgets: BudgetNotices = NO_NOTICES,
    ) -> int:
        """Returns the mark of the state as it now is; marks rise with every change."""
        ...

    def heard_since(self, mark: int) -> bool:
        """Every router has applied the state of that mark, and has reported its demand after that."""
        ...

    def refused(self, model: str) -> tuple[Refused, ...]:
        """Requests to it that routers refused of late."""
        ...
