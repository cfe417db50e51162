"""How many instances of one revision: what its policy wishes, and what holds whatever the policy.

The policies are in `core/policies`; here is when each is asked, and what it cannot know: that a revision is being
replaced, that it was deployed a moment ago, or that an autoscaler before this one had its reasons.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace_autoscaler.core.demand import Demand, DemandWindow
from headrace_autoscaler.core.held import Held
from headrace_autoscaler.core.memory import FORM, recall, remember, shift_between
from headrace_autoscaler.core.plans import Key
from headrace_autoscaler.core.policies.base import Policy, Wish
from headrace_autoscaler.core.policies.choose import make_policy
from headrace_autoscaler.core.policies.readings import Meter, profile_of
from headrace_autoscaler.core.policies.schedules import MOST, parse_schedule
from headrace_autoscaler.core.policies.targets import parse_target
from headrace_autoscaler.core.revision_status import RevisionStatus
from headrace_autoscaler.domain import Learnt, ModelSpec, Resources

_EARLY_S = 0.001
"""A policy may be asked so much before its time: timers are not exact."""

MAXIMUM = "the model's maximum; the policy asks for more"
NO_DEMAND = "no demand yet"
UNTOUCHED = "nobody has asked yet: kept until the idle timeout"
TRUSTED = "kept until this autoscaler has watched for a whole window"
CHANGED = "kept until its new policy has watched for a while"
_NEW_POLICY_S = 10.0
"""What runs is not taken away by a policy that knows nothing yet."""
_UNHEARD_S = 10.0
"""Where something runs, a policy that was recalled is not asked before a router has told of its revision, or for this
long: that nobody has connected yet is not that nobody asks."""
_NEVER = (-1, -1, -1)
"""Unlike whatever is seen."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances, and why.

    Attributes:
        wanted: what the policy asks for, whatever the model's maximum.
        spare: nobody needs the instances that this keeps beyond `needed`; they may be taken where room is short.
        reason: without numbers, so that it changes only when the decision does.
        inputs: the numbers behind it.
    """

    desired: int
    reason: str
    wanted: int = 0
    spare: bool = False
    inputs: tuple[tuple[str, float], ...] = ()
    needed: int = 0


class Decider:
    """Of all revisions. All times are monotonic seconds but `wall`.

    Args:
        cold_start_s: of a model, what 95 % of its starts do not exceed, as measured; None: it was never started.
        micros_per_hour: price of an instance.
        starts_per_s: starts that can begin per second; None: any number.
    """

    def __init__(
        self,
        cold_start_s: Callable[[str], float | None],
        micros_per_hour: Callable[[Resources], int],
        starts_per_s: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._cold_start_s = cold_start_s
        self._micros_per_hour = micros_per_hour
        self._starts_per_s = starts_per_s
        self._held: dict[Key, Held] = {}

    def decide(
        self, key: Key, spec: ModelSpec, window: DemandWindow | None, status: RevisionStatus, now: float, wall: float
    ) -> Decision:
        """The number of instances that a revision should have now.

        Args:
            window: None: no router has ever reported on the revision.
            now: of the clock that filled the window.
            wall: seconds since the epoch, for schedules.

        Raises:
            InvalidArgument: the spec names a policy, a zone or a target that is not there (any more).
        """
        demand = Demand() if window is None else window.observe(now)
        if status.retiring:
            return _decide_retiring(demand, status)
        held = self._hold(key, spec, status.current, now)
        demand = held.observe(window, demand)
        wish = held.wish
        if wish is None or self._is_due(held, wish, window, demand, status, now):
            wish = held.wish = self._ask(held, window, demand, status, now, wall)
        return _settled(wish, spec, held.arrived, demand, status, is_new=now < held.new_until)

    def inherit(self, old: Key, new: Key) -> None:
        """A new current revision faces the demand that its predecessor had learnt. That one may serve on."""
        before = self._held.get(old)
        if before is not None and new not in self._held:
            self._held[new] = Held(before.spec, copy.deepcopy(before.policy), Meter(), before.choice)

    def keep_only(self, keys: set[Key]) -> None:
        self._held = {key: held for key, held in self._held.items() if key in keys}

    def learnt(self, model: str, now: float, wall: float) -> tuple[tuple[int, Learnt], ...]:
        """What the policies of a model's revisions know."""
        return tuple(
            (key[1], Learnt(FORM, now, wall, {"choice": repr(held.choice), "held": remember(held)}))
            for key, held in self._held.items()
            if key[0] == model
        )

    def asked_at(self) -> dict[str, float]:
        """When each model's policies were asked last: since then they know nothing new."""
        asked: dict[str, float] = {}
        for key, held in self._held.items():
            asked[key[0]] = max(held.asked_at, asked.get(key[0], -math.inf))
        return asked

    def recall(self, key: Key, spec: ModelSpec, current: bool, learnt: Learnt, now: float, wall: float) -> None:
        """Has a revision's policy know what it knew before a restart. Call it before the revision is decided.

        Raises:
            ValueError, TypeError: that is not of this policy, as it is now; it begins anew.
        """
        choice = _choice(spec, current)
        held = Held(spec, _policy_of(spec, current), Meter(), choice, seen=_NEVER, unheard_until=now + _UNHEARD_S)
        if learnt.form != FORM or learnt.told.get("choice") != repr(choice):
            raise ValueError("it is of another policy, or of another version of headrace")
        recall(held, learnt.told.get("held"), shift_between((learnt.monotonic, learnt.wall), (now, wall)))
        self._held[key] = held

    def _hold(self, key: Key, spec: ModelSpec, current: bool, now: float) -> Held:
        held = self._held.get(key)
        choice = _choice(spec, current)
        if held is None or held.choice != choice:
            found = Held(spec, _policy_of(spec, current), Meter(), choice)
            if held is not None:
                # What the one before it has read is not new.
                found.meter.seen, found.new_until = held.counted, now + _NEW_POLICY_S
                found.arrived, found.service_time_s = held.arrived, held.service_time_s
            held = self._held[key] = found
        elif held.spec is not spec:
            held.spec, held.wish = spec, None
        return held

    def _is_due(
        self,
        held: Held,
        wish: Wish,
        window: DemandWindow | None,
        demand: Demand,
        status: RevisionStatus,
        now: float,
    ) -> bool:
        if window is None and now < held.unheard_until and status.instances:
            return False
        if not wish.desired and (demand.present or held.seen[0] != _fingerprint(window, status)[0]):
            return True  # The first request of a model that should be at zero waits for nobody's interval.
        if now - held.asked_at < held.policy.interval_s - _EARLY_S:
            return False
        return now >= wish.holds_until or demand.present or held.seen != _fingerprint(window, status)

    def _ask(
        self,
        held: Held,
        window: DemandWindow | None,
        demand: Demand,
        status: RevisionStatus,
        now: float,
        wall: float,
    ) -> Wish:
        spec = held.spec
        profile = profile_of(
            spec,
            status,
            demand,
            cold_start_s=self._cold_start_s(spec.name),
            starts_per_s=self._starts_per_s(),
            instance_micros_per_hour=self._micros_per_hour(spec.resources),
        )
        held.asked_at, held.seen = now, _fingerprint(window, status)
        # The maximum holds below, so that it is known what demand alone asks for.
        return held.policy.decide(held.meter.read(window, status, now, wall), replace(profile, max_instances=None))


def _policy_of(spec: ModelSpec, current: bool) -> Policy:
    """A schedule provides for the current revision, as the minimum does."""
    schedules = [parse_schedule(each) for each in spec.schedules] if current else []
    targets = [parse_target(metric, value) for metric, value in spec.targets]
    return make_policy(spec.policy, spec.cost_sensitivity, schedules, targets)


def _choice(spec: ModelSpec, current: bool) -> tuple[object, ...]:
    """What a policy is made from."""
    return (spec.policy, spec.cost_sensitivity, spec.schedules if current else (), spec.targets)


def _fingerprint(window: DemandWindow | None, status: RevisionStatus) -> tuple[int, int, int]:
    return (0 if window is None else window.total.arrivals, status.ready, status.starting)


def _settled(
    wish: Wish, spec: ModelSpec, arrived: bool, demand: Demand, status: RevisionStatus, *, is_new: bool
) -> Decision:
    idle_s = _idle_s(demand, status)
    wanted, spare = min(wish.desired, MOST), wish.spare and not demand.present
    inputs = _inputs(wish, demand, status, idle_s)
    decision = Decision(wanted, wish.reason, wanted, spare, inputs, min(wish.needed, wanted))
    if not arrived and not wish.desired:
        if status.ready and idle_s is not None and idle_s < spec.idle_timeout_s:
            decision = replace(decision, desired=1, reason=UNTOUCHED, spare=True)
        elif not status.instances:
            decision = replace(decision, reason=NO_DEMAND)
    trusted = min(status.trusted, status.instances)
    if decision.desired < trusted:
        decision = replace(decision, desired=trusted, reason=TRUSTED, spare=False)
    if is_new and decision.desired < status.instances:
        decision = replace(decision, desired=status.instances, reason=CHANGED, spare=False)
    if spec.max_instances is not None and decision.desired > spec.max_instances:
        decision = replace(decision, desired=spec.max_instances, reason=MAXIMUM, spare=False)
    return replace(decision, reason=f"{decision.reason}; {wish.note}") if wish.note else decision


def _idle_s(demand: Demand, status: RevisionStatus) -> float | None:
    """An instance that has just become ready is not idle yet, whatever was before."""
    known = [s for s in (demand.idle_s, status.ready_for_s) if s is not None]
    if status.starting:
        known.append(0.0)
    return min(known, default=None)


def _inputs(wish: Wish, demand: Demand, status: RevisionStatus, idle_s: float | None) -> tuple[tuple[str, float], ...]:
    """What every decision shows, and what its policy adds."""
    shown = {
        "arrival_rate": demand.arrival_rate or 0.0,
        "queued": float(demand.queued),
        "in_flight": float(demand.in_flight),
        "oldest_wait_s": demand.oldest_wait_s,
        "ready": float(status.ready),
        "starting": float(status.starting),
    }
    # What waits is told as it is now, also where the policy was asked a while ago.
    return tuple((dict(wish.inputs) | shown | {"idle_s": -1.0 if idle_s is None else idle_s}).items())


def _decide_retiring(demand: Demand, status: RevisionStatus) -> Decision:
    inputs = (("queued", float(demand.queued)), ("in_flight", float(demand.in_flight)), ("ready", float(status.ready)))
    if demand.present:
        return Decision(1, "replaced: answers what it had accepted", 1, False, inputs)
    return Decision(0, "replaced: nothing is left to answer", 0, False, inputs)
