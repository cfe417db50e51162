"""Shapes that were never measured: which one is tried next, and when."""

from __future__ import annotations

from collections.abc import Sequence, Set

from headrace_autoscaler.core.allocator.choice import meets
from headrace_autoscaler.core.plans import Holding
from headrace_autoscaler.core.shape_situation import Situation
from headrace_autoscaler.domain import Resources


def never_ran(footing: Resources, known: Set[Resources], now_is: Situation) -> Resources | None:
    """The smallest shape above the footing that never ran; of all, where the range has no footing any more."""
    inside = now_is.way(footing) is not None
    above = (way for way in now_is.ways if not inside or way.resources.cpu_millicores > footing.cpu_millicores)
    return next((way.resources for way in above if not way.profile_us and way.resources not in known), None)


def is_time_to_try(footing: Resources, now_is: Situation, steady: Sequence[Holding]) -> bool:
    """The objective is missed, or what runs is out of the range; or one instance is being added, which is neither a
    burst nor a lull.

    Args:
        steady: instances that are not slow.
    """
    own = now_is.way(footing)
    loading = [each for each in steady if not each.ready]
    if own is None:
        return not loading and not any(way.profile_us for way in now_is.ways)
    if not own.profile_us:
        return False
    if not meets(own, now_is.slo_s):
        return not loading
    return len(loading) == 1 < len(steady) and loading[0].resources == footing
