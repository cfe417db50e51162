"""Which variant of a model should serve, by what each measured where it ran, and when to change it. Pure.

A job chooses by what it measured on one thread, apart from traffic. What runs is measured again in the shape that it
really has; of a variant that has not run there, the ratio of what the job measured is the best guess, and it is
measured in its turn once it serves. The choice itself is the allocator's: instances that the demand takes, at their
price, under the objective. See `sizing.options`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from headrace_autoscaler.core.allocator import Way
from headrace_autoscaler.core.allocator.choice import WORTH_A_RESIZE, meets
from headrace_autoscaler.core.jobs import ORIGINAL, Job, JobState, Variant, serving_variant
from headrace_autoscaler.core.sizing import Option, enough, options
from headrace_autoscaler.domain import Model, Resources, ShapeProfile

Profile = tuple[tuple[int, int], ...]
"""Rows per batch -> microseconds, ascending."""

CONFIRM_S = 30.0
"""A variant is better for this long before it takes over."""
APART_S = 120.0
"""Between two changes; twice as long after each."""
FORGOTTEN_S = 6 * 3600.0
"""Changes are forgotten after this."""
_FITS = "fits"


@dataclass(frozen=True, slots=True)
class Load:
    """What serves a model at this moment, and what it has to serve.

    Attributes:
        resources: of each of its instances.
        profile_us: of what serves, in that shape; not empty.
        rate: rows per second, with the head-room that the policy wants.
        bounds: instances; no upper bound where that is None.
        micros_per_hour: of an instance.
        room_for: so many instances there would be room for, of at most so many, were its own gone.
    """

    resources: Resources
    profile_us: Profile
    slo_s: float | None
    rate: float
    bounds: tuple[int, int | None]
    micros_per_hour: int
    room_for: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Better:
    """A variant that should serve. `why`: a sentence."""

    variant: str
    why: str


def is_ours_to_choose(job: Job, model: Model) -> bool:
    """What serves is what the mesh has chosen last; and not what somebody has chosen since."""
    if job.state is not JobState.DONE or not job.managed or model.current is None:
        return False
    return model.current.artifact in (job.managed, job.moving)


def with_profile(job: Job, model: Model, load: Load) -> Job:
    """The job with what the variant that serves has measured in its shape: the least of all loads, as a busy machine
    only adds to them."""
    serving = job.variant(serving_variant(job, model))
    if serving is None:
        return job
    known = _profile_in(serving, load.resources)
    profile = _least(known, load.profile_us)
    if profile == known:
        return job
    others = tuple(each for each in serving.profiles if each.resources != load.resources)
    measured = replace(serving, profiles=(*others, ShapeProfile(load.resources, profile)))
    return replace(job, variants=tuple(measured if each is serving else each for each in job.variants))


def better_variant(job: Job, model: Model, load: Load) -> Better | None:
    """What should take over from what serves; None: nothing is so much better that it is worth a change."""
    serving = job.variant(serving_variant(job, model))
    if serving is None:
        return None
    profiles = {serving.name: _least(_profile_in(serving, load.resources), load.profile_us)}
    for each in _usable(job, serving):
        profiles[each.name] = _profile_in(each, load.resources) or _guess(each, serving, profiles[serving.name])
    objective = _objective(job, load)
    found = _options(profiles, load, objective)
    own = next((each for each in found if each.choice.way.name == serving.name), None)
    if not found or found[0] is own:
        return None
    best = found[0]
    if own is None:
        # Only what meets the objective is among them, where anything does; or there is no room for what serves.
        if objective is None or meets(_way(serving.name, profiles, load), objective):
            return None
        words = f"a request alone takes {_ms(profiles[best.choice.way.name])}, and with {serving.name} "
        return Better(best.choice.way.name, f"{words}{_ms(profiles[serving.name])}, which misses the objective")
    return _worth_it(own, best, load)


def _worth_it(own: Option, best: Option, load: Load) -> Better | None:
    name, before = best.choice.way.name, own.choice.way.name
    if not enough(own, load.rate) and best.serves > WORTH_A_RESIZE * own.serves:
        words = f"of {load.rate:.4g} rows per second that are wanted, {_instances(best.count)} of it serve"
        return Better(name, f"{words} {best.serves:.4g}, and of {before} {own.serves:.4g}")
    if enough(best, load.rate) and own.cost > WORTH_A_RESIZE * best.cost:
        words = f"{load.rate:.4g} rows per second take {_instances(best.count)} of it"
        return Better(name, f"{words}, and {own.count} of {before}")
    return None


@dataclass(slots=True)
class _Held:
    better: tuple[str, float] | None = None
    changed: list[float] = field(default_factory=list)


class Patience:
    """When a model's variant may change. Monotonic seconds."""

    def __init__(self) -> None:
        self._models: dict[str, _Held] = {}

    def keep_only(self, models: Iterable[str]) -> None:
        kept = set(models)
        self._models = {name: held for name, held in self._models.items() if name in kept}

    def is_time(self, model: str, better: Better | None, now: float) -> bool:
        """The same variant has been better for long enough, and the last change was long enough ago."""
        held = self._models.setdefault(model, _Held())
        if better is None:
            held.better = None
            return False
        if held.better is None or held.better[0] != better.variant:
            held.better = (better.variant, now)
        held.changed = [at for at in held.changed if now - at < FORGOTTEN_S]
        apart = APART_S * 2.0 ** (len(held.changed) - 1) if held.changed else 0.0
        return now - held.better[1] >= CONFIRM_S and (not held.changed or now - held.changed[-1] >= apart)

    def changed(self, model: str, now: float) -> None:
        """A change was made, or came to nothing."""
        held = self._models.setdefault(model, _Held())
        held.better = None
        held.changed.append(now)


def _usable(job: Job, serving: Variant) -> Sequence[Variant]:
    """Those inside the floor and the latency; the original's answers are right whatever it was measured at."""
    return [
        each
        for each in job.variants
        if each is not serving and each.artifact and (each.verdict == _FITS or each.name == ORIGINAL)
    ]


def _options(profiles: Mapping[str, Profile], load: Load, objective: float | None) -> list[Option]:
    """The best first; of equal ones what serves."""
    ways = (_way(name, profiles, load) for name in profiles)
    return options(
        ways,
        objective,
        load.rate,
        load.bounds,
        lambda _resources: load.micros_per_hour,
        lambda _resources, most: load.room_for(most),
    )


def _way(name: str, profiles: Mapping[str, Profile], load: Load) -> Way:
    return Way(name, load.resources, profiles[name])


def _objective(job: Job, load: Load) -> float | None:
    """The model's, or the job's limit on a batch where that is tighter: a batch may take half of an objective."""
    latency_s = job.optimization.latency_s
    known = [each for each in (load.slo_s, None if latency_s is None else 2 * latency_s) if each is not None]
    return min(known, default=None)


def _profile_in(variant: Variant, resources: Resources) -> Profile:
    return next((each.profile_us for each in variant.profiles if each.resources == resources), ())


def _least(known: Profile, found: Profile) -> Profile:
    least = dict(known)
    for rows, micros in found:
        least[rows] = min(micros, least.get(rows, micros))
    return tuple(sorted(least.items()))


def _guess(variant: Variant, serving: Variant, profile_us: Profile) -> Profile:
    """What serves takes so long here; this one takes so much more or less of it as the job has measured. Empty: the job
    has not measured both."""
    times, of_serving = ({at.rows: at.latency_s for at in each.timings} for each in (variant, serving))
    ratios = {rows: times[rows] / took_s for rows, took_s in of_serving.items() if rows in times and took_s}
    if not ratios:
        return ()
    return tuple((rows, max(1, round(micros * ratios[_nearest(ratios, rows)]))) for rows, micros in profile_us)


def _nearest(measured: Iterable[int], rows: int) -> int:
    return min(measured, key=lambda each: (abs(math.log(each / rows)), each))


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def _ms(profile_us: Profile) -> str:
    return f"{profile_us[0][1] / 1e3:.3g} ms"
