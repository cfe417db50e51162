"""What a plan is made of: what is wanted, what there is, and what is to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_autoscaler.core.budgets import Standing
from headrace_autoscaler.domain import Limits, Resources, Tenant

Key = tuple[str, int]
"""Model and revision."""


@dataclass(frozen=True, slots=True)
class Want:
    """How many instances one revision should have.

    Attributes:
        resources: what the next one is started with; those that run may hold something else.
        limits: the model's own, inside its tenant's.
        spare: its instances beyond the minimum may be taken where room is short.
        minimum: instances that its model's minimum asks for; they never make room.
        idle_s: the longest idle is taken first.
        retiring: replaced; what it holds goes soon, and is not held against its tenant's other models.
        paused: nothing is started for it now; it will be soon (a load has failed).
        held_back: not empty: nothing is started for it now, for this reason (its load keeps failing, no budget).
        unpaid: the budget that holds it back; None: none does.
        spent: the budget is spent, and what runs drains for it.
        start_reason: why the next one is started, as it is.
        at_once: what is leaving goes before what replaces it: nobody asks for it, and there is no room for both.
    """

    model: str
    revision: int
    tenant: str
    resources: Resources
    desired: int
    limits: Limits = field(default_factory=Limits)
    spare: bool = False
    minimum: int = 0
    idle_s: float = 0.0
    retiring: bool = False
    paused: bool = False
    held_back: str = ""
    unpaid: Standing | None = None
    spent: bool = False
    start_reason: str = "wanted"
    at_once: bool = False

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class Holding:
    """An instance as the plan sees it. `id` is the runner's.

    Attributes:
        admitted: it was started inside the limits, or has been found to fit them since. One that was verified
            for a deploy has not.
        answer_due: it was started from zero, and no router has told of its first answer yet.
        slow: to be replaced: another starts beside it where there is room, and after it where there is none.
        leaving: to be replaced by another shape: it goes once as many as are wanted of that are ready, and not before.
    """

    id: str
    model: str
    revision: int
    tenant: str
    resources: Resources
    ready: bool
    draining: bool
    started_at: float
    admitted: bool = True
    slow: bool = False
    answer_due: bool = False
    leaving: bool = False

    @property
    def key(self) -> Key:
        return (self.model, self.revision)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a plan depends on.

    Attributes:
        protected: revisions whose instances are kept although nobody wants them yet (being verified).
        verifications: revisions that wait for a runner to be verified on; outside the limits.
        standby: runners without a model, oldest first.
        starting: runners on their way to standby.
        standby_target: runners that are kept standing by.
        hold_refill: what the pool lacks may wait for the cold starts that are under way: starting a process would
            take CPU from their loads and first answers.
        start_limit: runners that may be starting at one time.
        start_refusal: not empty: no runner can be started now, for this reason.
        capacity: what the machine may promise.
        jobs: what jobs hold; they give way to whatever fits without them.
        tenants: with their quotas; one that is not among them has no limits.
    """

    wants: tuple[Want, ...]
    holdings: tuple[Holding, ...]
    standby: tuple[str, ...]
    starting: int
    standby_target: int
    capacity: Limits
    start_limit: int = 4
    start_refusal: str = ""
    tenants: tuple[Tenant, ...] = ()
    verifications: tuple[Key, ...] = ()
    protected: frozenset[Key] = frozenset()
    hold_refill: bool = False
    jobs: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadOnStandby:
    """Attributes:
    resources: what the instance holds; None: what its model was deployed with.
    """

    runner: str
    model: str
    revision: int
    reason: str
    verification: bool = False
    resources: Resources | None = None


@dataclass(frozen=True, slots=True)
class StartStandby:
    reason: str


@dataclass(frozen=True, slots=True)
class DrainInstance:
    runner: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopStandby:
    runner: str
    reason: str


@dataclass(frozen=True, slots=True)
class StopJob:
    """Attributes:
    job: id of what it holds.
    """

    job: str
    reason: str


Action = LoadOnStandby | StartStandby | DrainInstance | StopStandby | StopJob


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order.

    Attributes:
        blocked: revisions that are wanted, have no instance and cannot get one: why.
        bound: what keeps a revision below its desired number; a superset of `blocked`.
        admitted: instances that were verified outside the limits and fit them.
        waiting: runners that demand or a minimum asks for, and that are not there.
        refill_held: the pool is short, and stays so until no cold start is under way.
    """

    actions: tuple[Action, ...]
    blocked: Mapping[Key, str]
    bound: Mapping[Key, str]
    admitted: tuple[str, ...] = ()
    refill_held: bool = False
    waiting: int = 0
