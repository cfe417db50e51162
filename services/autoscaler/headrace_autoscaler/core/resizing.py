"""Changes of shape, one per model at a time: when they begin, what they take, and when they are given up.

The policy decides in instances of one shape, the *footing*; a change replaces all instances, and the footing with them.
Until as many of the new ones are ready as are needed, the old ones answer. A shape that was never measured is tried
with one instance beside those that serve: while another is added, or where the footing misses the objective.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from headrace_autoscaler.core.allocator.choice import WORTH_A_RESIZE, meets, needed, sustained
from headrace_autoscaler.core.allocator.types import Way
from headrace_autoscaler.core.decider import CHANGED, TRUSTED
from headrace_autoscaler.core.plans import Holding, Key
from headrace_autoscaler.core.room import Room
from headrace_autoscaler.core.shape_change import Attempt, Change
from headrace_autoscaler.core.shape_situation import Situation, Sizing
from headrace_autoscaler.core.shape_trials import is_time_to_try, never_ran
from headrace_autoscaler.core.sizing import (
    MicrosPerHour,
    Option,
    coinciding,
    enough,
    most_common,
    options,
    rate_of,
    room_for,
)
from headrace_autoscaler.domain import Resources
from headrace_common.quantities import format_millis

CONFIRM_S = 10.0
"""What saves money does so for this long before anything is changed for it."""
APART_S = 60.0
"""Between two changes of a model; twice as long after each."""
FORGOTTEN_S = 3600.0
"""Changes are forgotten after this, and so is what was given up; no two are further apart than it asks for."""
TRIAL_S = 10.0
"""A trial waits for a runner for this long, and a change for the room of what went first."""
IDLE_S = 5.0
"""Nobody has asked for so long: an instance may go before there is another."""


@dataclass(frozen=True, slots=True)
class _Motive:
    """Why all instances should have another shape. Urgent: not for money, and so at once."""

    words: str
    urgent: bool = False


@dataclass(slots=True)
class _Model:
    """Attributes:
    tried: shapes that ran, measured or not; barred: those whose instances did not become ready, and when.
    beginning: what is to run where nothing does, until one of it is ready; settled_until: no other shape is looked for
    before, as what goes for it still holds its room.
    better: what has been better since when; done: when changes ended.
    counts_old: what the policy keeps was counted in instances of another shape.
    trying_until: a trial waits for a runner for so long.
    """

    footing: Resources
    change: Change | None = None
    tried: set[Resources] = field(default_factory=set)
    barred: dict[Resources, float] = field(default_factory=dict)
    beginning: Attempt | None = None
    settled_until: float = -math.inf
    better: tuple[Resources, float] | None = None
    done: list[float] = field(default_factory=list)
    counts_old: bool = False
    trying_until: float = -math.inf


class Resizing:
    """Of all revisions that have a range. Monotonic seconds."""

    def __init__(self, micros_per_hour: MicrosPerHour) -> None:
        self._price = micros_per_hour
        self._models: dict[Key, _Model] = {}

    def keep_only(self, keys: Collection[Key]) -> None:
        self._models = {key: model for key, model in self._models.items() if key in keys}

    def footing(self, key: Key, first: Resources, live: Sequence[Resources], now: float) -> Resources:
        """The shape that the policy decides in; ends a change that is done.

        Args:
            first: what it is until an instance runs.
            live: of its instances; one that drains is none.
        """
        model = self._models.get(key)
        if model is None:
            model = self._models[key] = _Model(most_common(live) if live else first)
        if model.change is not None and all(each == model.change.target for each in live):
            model.counts_old = model.footing != model.change.target
            # The old may be gone before one of the new is ready.
            model.footing, model.beginning, model.change = model.change.target, model.change.attempt, None
            model.settled_until = now + TRIAL_S
            model.done.append(now)
        elif live and model.footing not in live and model.change is None:
            model.footing = most_common(live)
        return model.footing

    def target(self, key: Key) -> Resources | None:
        """What a change that is under way leads to, where that is another shape than the footing."""
        model = self._models.get(key)
        if model is None or model.change is None or model.change.target == model.footing:
            return None
        return model.change.target

    def size(self, now_is: Situation, room: Room, now: float) -> Sizing:
        """The want with its shape, after `footing` was asked for.

        Args:
            room: with everything that is held; what a change will take is booked in it.
        """
        model = self._models[now_is.want.key]
        model.tried |= now_is.known | {each.resources for each in now_is.live}
        model.done = [at for at in model.done if now - at < FORGOTTEN_S]
        model.barred = {shape: at for shape, at in model.barred.items() if now - at < FORGOTTEN_S}
        self._review_beginning(model, now_is, now)
        if not now_is.live:
            return self._from_zero(model, now_is, room, now)
        if now_is.awaiting and model.change is None:
            return Sizing(replace(now_is.want, desired=max(now_is.want.desired, len(now_is.live))))
        if model.change is not None and (sizing := self._go_on(model, model.change, now_is, now)) is not None:
            return sizing
        return self._stay(model, self._consider(model, now_is, room, now) or Sizing(now_is.want), now_is)

    def _review_beginning(self, model: _Model, now_is: Situation, now: float) -> None:
        """Where nothing runs, a shape that cannot be loaded is given up too, as long as there is another."""
        beginning = model.beginning
        if any(each.ready for each in now_is.live):
            model.beginning = None
        elif beginning is not None and beginning.has_failed(now_is.failures):
            model.beginning = None
            others = [each for each in self._allowed(model, now_is) if each.resources != beginning.target]
            if others:
                model.barred[beginning.target] = now
                if model.footing == beginning.target:
                    model.footing, model.counts_old = others[0].resources, True

    def _from_zero(self, model: _Model, now_is: Situation, room: Room, now: float) -> Sizing:
        """Nothing runs that would have to go: the best shape, whatever was before."""
        found = self._options(model, now_is, room) if now_is.want.desired else []
        if model.beginning is not None and now < model.settled_until:
            found = [each for each in found if each.resources == model.beginning.target]
        if found:
            model.counts_old |= model.footing != found[0].resources
            model.footing = found[0].resources
        elif now_is.way(model.footing) is None:
            model.counts_old, model.footing = True, now_is.ways[0].resources
        if model.beginning is None or model.beginning.target != model.footing:
            model.beginning = Attempt(model.footing, now_is.failures)
        want = replace(now_is.want, resources=model.footing)
        return Sizing(replace(want, desired=found[0].count) if found else want)

    def _go_on(self, model: _Model, change: Change, now_is: Situation, now: float) -> Sizing | None:
        """None: it is given up."""
        leaving, way = now_is.other_than(change.target), now_is.way(change.target)
        failed = change.attempt.has_failed(now_is.failures) or change.is_stuck(now_is.live, now)
        if failed or way is None or not way.profile_us:
            model.change = None
            model.done.append(now)
            if failed and change.target != model.footing:
                model.barred[change.target] = now
            return None
        count = needed(self._rate(model, now_is), sustained(way.profile_us, now_is.slo_s)[0])
        count = max(1, now_is.minimum, count)
        if change.most is not None:
            count = min(count, change.most)
        return self._changing(now_is, change, count, leaving)

    def _changing(self, now_is: Situation, change: Change, count: int, leaving: Sequence[Holding]) -> Sizing:
        desired = count if now_is.want.desired else 0
        want = replace(
            now_is.want,
            resources=change.target,
            desired=desired,
            minimum=min(now_is.want.minimum, desired),
            start_reason=change.why,
            at_once=change.at_once,
        )
        return Sizing(want, frozenset(each.id for each in leaving), change.why)

    def _consider(self, model: _Model, now_is: Situation, room: Room, now: float) -> Sizing | None:
        """A change, or a trial; None: neither."""
        if not now_is.want.desired:
            return None
        found = self._options(model, now_is, room)
        why = self._why_change(model, found, now_is) if found else None
        if why is None:
            model.better = None
            return self._try_one(model, now_is, room, now)
        best = found[0]
        if model.better is None or model.better[0] != best.resources:
            model.better = (best.resources, now)
        if not self._may_change(model, now_is, why.urgent, now):
            return None
        return self._begin(model, best, why.words, now_is, room, now)

    def _begin(self, model: _Model, best: Option, why: str, now_is: Situation, room: Room, now: float) -> Sizing | None:
        leaving = now_is.other_than(best.resources)
        missing = max(0, best.count - (len(now_is.live) - len(leaving)))
        want = replace(now_is.want, resources=best.resources)
        beside = room_for(room, want, missing) >= missing
        idle = not now_is.decision.needed and now_is.want.idle_s >= IDLE_S
        if not beside and not (idle and not _loads(now_is.live)):
            return Sizing(now_is.want, reason=f"{why}; there is no room for both, so what runs stays while it is used")
        for _ in range(missing if beside else 0):
            room.promise(want)
        most = now_is.maximum if enough(best, self._rate(model, now_is)) else best.count
        attempt = Attempt(best.resources, now_is.failures)
        change = model.change = Change(attempt, why, now, not beside, most)
        model.better = None
        return self._changing(now_is, change, best.count, leaving)

    def _why_change(self, model: _Model, found: Sequence[Option], now_is: Situation) -> _Motive | None:
        """Why all instances should have the best shape; None: what runs is good enough."""
        best, rate = found[0], self._rate(model, now_is)
        odd, words = now_is.other_than(model.footing), _cpus(best.resources)
        if not enough(best, rate) and best.serves < WORTH_A_RESIZE * now_is.serves:
            return None
        own = next((each for each in found if each.resources == model.footing), None)
        if own is None:
            return self._why_leave(model, best, now_is)
        if best is own and not odd:
            return None
        if not enough(own, rate) and best.serves > WORTH_A_RESIZE * own.serves:
            return _Motive(f"{words} per instance serve more of the demand than its limits leave it otherwise")
        # What is of another shape counts as one of the footing.
        price = self._price
        cost = own.cost + sum(price(each.resources) - price(model.footing) for each in odd)
        if cost <= WORTH_A_RESIZE * best.cost:
            return None
        return _Motive(f"{words} per instance serve the demand for at least a sixth less")

    def _why_leave(self, model: _Model, best: Option, now_is: Situation) -> _Motive | None:
        """Of a footing that is not among the options."""
        way, words = now_is.way(model.footing), _cpus(best.resources)
        if way is None:
            return _Motive(f"{_cpus(model.footing)} per instance is not in the model's range any more: {words}")
        if not way.profile_us or meets(way, now_is.slo_s) or best.resources == model.footing:
            return None  # Not measured; or there is no room for a single one.
        objective = f"{words} per instance meet the objective, which what runs cannot even for a single request"
        return _Motive(objective, urgent=True)

    def _may_change(self, model: _Model, now_is: Situation, urgent: bool, now: float) -> bool:
        if now_is.decision.reason in (TRUSTED, CHANGED) or now_is.want.held_back or now_is.want.paused:
            return False
        if model.done and now - model.done[-1] < APART_S * 2.0 ** (len(model.done) - 1):
            return False
        return urgent or (model.better is not None and now - model.better[1] >= CONFIRM_S)

    def _try_one(self, model: _Model, now_is: Situation, room: Room, now: float) -> Sizing | None:
        """Measures the next larger shape with one instance beside those that serve, where there is room for that."""
        want = now_is.want
        steady = [each for each in now_is.live if not each.slow]
        unknown = never_ran(model.footing, model.tried | model.barred.keys(), now_is)
        if unknown is None or want.desired > len(steady) or want.held_back or want.paused:
            return None
        if is_time_to_try(model.footing, now_is, steady):
            model.trying_until = now + TRIAL_S
        tried = replace(want, resources=unknown, desired=len(steady) + 1)
        if now >= model.trying_until or not room_for(room, tried, 1):
            return None
        room.promise(tried)
        reason = f"tries {_cpus(unknown)} per instance, which was never measured"
        return Sizing(replace(tried, start_reason=reason), reason=reason)

    def _stay(self, model: _Model, sizing: Sizing, now_is: Situation) -> Sizing:
        """What the policy keeps without need was counted in other instances before a change: that starts nothing."""
        if not model.counts_old or sizing.leaving:
            return sizing
        decision = now_is.decision
        most = max(decision.needed, len(now_is.live), now_is.minimum)
        # Policies that say nothing of needs keep nothing either.
        model.counts_old = sizing.want.desired > most and (decision.needed > 0 or decision.spare)
        return replace(sizing, want=replace(sizing.want, desired=most)) if model.counts_old else sizing

    def _rate(self, model: _Model, now_is: Situation) -> float:
        way = now_is.way(model.footing)
        if way is None or not way.profile_us:
            return now_is.arrivals
        decision = now_is.decision
        asked = max(decision.desired, decision.wanted)
        minimum = max(now_is.minimum, _together(now_is) or 0)
        return rate_of(asked, minimum, sustained(way.profile_us, now_is.slo_s)[0], now_is.arrivals)

    def _allowed(self, model: _Model, now_is: Situation) -> list[Way]:
        return [way for way in now_is.ways if way.resources not in model.barred]

    def _options(self, model: _Model, now_is: Situation, room: Room) -> list[Option]:
        allowed = self._allowed(model, now_is)
        held = [each for each in now_is.live if room.holds(each)]

        def fitting(resources: Resources, most: int) -> int:
            return room_for(room, replace(now_is.want, resources=resources), most, held)

        def least(way: Way) -> int:
            """For what comes together: of the footing as the policy says, which has seen whether it does."""
            seen = _together(now_is)
            if seen is None or way.resources == model.footing:
                return seen or 0
            return coinciding(now_is.arrivals, way, now_is.slo_s)

        bounds = (now_is.minimum, now_is.maximum)
        return options(allowed, now_is.slo_s, self._rate(model, now_is), bounds, self._price, fitting, least)


def _together(now_is: Situation) -> int | None:
    """Instances that the policy wants for what comes together; None: it is one that knows nothing of that."""
    asked = dict(now_is.decision.inputs).get("wanted_together")
    return None if asked is None else int(asked)


def _loads(live: Sequence[Holding]) -> bool:
    return any(not each.ready for each in live)


def _cpus(resources: Resources) -> str:
    one = resources.cpu_millicores == 1000
    return f"{format_millis(resources.cpu_millicores)} CPU{'' if one else 's'}"
