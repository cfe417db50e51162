"""Which slow instances are replaced: those that the routers agree on, one per revision at a time, at a bounded rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headrace_autoscaler.core.plans import Key

CONFIRM_S = 2.0
"""An instance is slow for this long before it is replaced."""
APART_S = 60.0
"""Between two replacements of a revision; twice as long after each, because where a new instance is as slow as
the old one, the next would be too."""
FORGOTTEN_S = 3600.0
"""Replacements are forgotten after this, and no two are further apart than it asks for."""


@dataclass(frozen=True, slots=True)
class Health:
    """What one router has seen of one instance. `slowdown`: against its peers; 0: not known."""

    instance: str
    slow: bool
    slowdown: float = 0.0


class Replacements:
    """Hears what routers say of instances. Monotonic seconds."""

    def __init__(self) -> None:
        self._said: dict[str, dict[str, Health]] = {}
        self._slow_since: dict[str, float] = {}
        self._chosen: dict[Key, str] = {}
        self._done: dict[Key, list[float]] = {}

    def report(self, router: str, healths: Iterable[Health]) -> None:
        """Replaces what this router said before."""
        self._said[router] = {health.instance: health for health in healths}

    def router_gone(self, router: str) -> None:
        self._said.pop(router, None)

    def review(self, ready: Mapping[str, Key], now: float) -> frozenset[str]:
        """The instances that are to be replaced.

        Args:
            ready: instances that serve, of revisions that stay.
        """
        slow = {instance for instance in ready if self._is_slow(instance)}
        self._slow_since = {instance: self._slow_since.get(instance, now) for instance in slow}
        self._chosen = {key: instance for key, instance in self._chosen.items() if instance in slow}
        self._done = {
            key: recent for key, times in self._done.items() if (recent := [t for t in times if now - t < FORGOTTEN_S])
        }
        for instance in sorted(slow, key=lambda each: self._slow_since[each]):
            key = ready[instance]
            due = now - self._slow_since[instance] >= CONFIRM_S
            if due and key not in self._chosen and self._may_again(key, now):
                self._chosen[key] = instance
                self._done.setdefault(key, []).append(now)
        return frozenset(self._chosen.values())

    def _is_slow(self, instance: str) -> bool:
        """More than half of the routers that can tell say so."""
        said = [health for each in self._said.values() if (health := each.get(instance)) is not None]
        able = [health for health in said if health.slow or health.slowdown > 0.0]
        return 2 * sum(health.slow for health in able) > len(able)

    def _may_again(self, key: Key, now: float) -> bool:
        times = self._done.get(key)
        return not times or now - times[-1] >= APART_S * 2.0 ** (len(times) - 1)
