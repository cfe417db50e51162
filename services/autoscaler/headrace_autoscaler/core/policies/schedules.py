"""Provisioned instances at times: `"0 8 * * 1-5 Europe/Paris=4"`.

An entry holds from each of its moments until the next moment of any entry, so a schedule is a list of changes:
`0 8 * * 1-5 Europe/Paris=4` and `0 19 * * 1-5 Europe/Paris=0` are office hours. Cron expressions are Debian cron's
(vixie cron, patched), evaluated by cronsim, with its way of handling changes of the clock: an entry at fixed hours and
minutes fires exactly once, at the first of two equal local times, and as soon as the clock has jumped over its own; one
whose hour or minute begins with a star goes by the clock as it shows, twice where a time occurs twice, never where it
is jumped over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import ClassVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from headrace_autoscaler.core.memory import Schema, part
from headrace_autoscaler.core.policies.base import Policy, Profile, Reading, Wish
from headrace_common.errors import InvalidArgument

MOST = 10_000
_FIELDS = 5
_LOOK_AGAIN_S = 30.0
_DAY_S = 86_400.0
_EXPECTED = 'expected CRON=N such as "0 8 * * 1-5 Europe/Paris=4" (five fields, a time zone or UTC, instances)'


@dataclass(frozen=True, slots=True)
class Schedule:
    """From each moment of `cron`, in `zone`, at least `instances`."""

    cron: str
    zone: tzinfo
    instances: int

    def last(self, wall: float) -> float:
        """Latest moment at or before this one; minus infinity where there is none. Seconds since the epoch."""
        # The iterator goes back from a moment that it excludes.
        begin = math.floor(wall) + 1
        return next((at for at in self._moments(begin + self._folded_s(wall), back=True) if at <= wall), -math.inf)

    def next(self, wall: float) -> float:
        """First moment after this one; infinity where there is none. Seconds since the epoch."""
        # In the second of two equal times the iterator offers what has fired in the first.
        return next((at for at in self._moments(wall, back=False) if at > wall), math.inf)

    def _moments(self, begin: float, *, back: bool) -> Iterator[float]:
        moments = CronSim(self.cron, datetime.fromtimestamp(begin, self.zone), reverse=back)
        return (found.timestamp() for found in moments)

    def _folded_s(self, wall: float) -> float:
        """By how much the clock was set back near this moment: as far ahead of it, local time has passed all that has
        fired before it."""
        if self.zone is UTC:
            return 0.0
        before, after = (datetime.fromtimestamp(wall + aside, self.zone).utcoffset() for aside in (-_DAY_S, _DAY_S))
        return max(0.0, (before - after).total_seconds()) if before is not None and after is not None else 0.0


def parse_schedule(text: str, where: str = "schedule") -> Schedule:
    """One entry as a user writes it.

    Raises:
        InvalidArgument: names what is wrong with it.
    """
    when, equals, count = text.rpartition("=")
    fields = when.split()
    if not equals or len(fields) not in (_FIELDS, _FIELDS + 1):
        raise InvalidArgument(f"{where}: {_EXPECTED}; got {text!r}")
    if not count.strip().isdecimal() or int(count) > MOST:
        raise InvalidArgument(f"{where}: expected 0 to {MOST} instances after the =; got {count.strip()!r} in {text!r}")
    cron = " ".join(fields[:_FIELDS])
    zone = _zone(fields[_FIELDS] if len(fields) > _FIELDS else "UTC", text, where)
    try:
        list(islice(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)), 1))
    except CronSimError as error:
        raise InvalidArgument(f"{where}: {cron!r} is no cron expression: {error}; {_EXPECTED}") from None
    return Schedule(cron, zone, int(count))


def _zone(name: str, text: str, where: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InvalidArgument(
            f"{where}: {name!r} is no time zone of this machine; expected UTC or one like Europe/Paris in {text!r}"
        ) from None


class ScheduledPolicy:
    """Another policy, whose minimum follows a schedule.

    A schedule is asked for the wall clock once per change of it, not at every reading.
    """

    MEMORY: ClassVar[Schema] = {"_inner": part()}

    def __init__(self, inner: Policy, schedules: Sequence[Schedule]) -> None:
        self._inner = inner
        self._schedules = tuple(schedules)
        self._from = math.inf
        self._until = -math.inf
        self._instances = 0

    @property
    def interval_s(self) -> float:
        return self._inner.interval_s

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        if not self._from <= reading.wall < self._until:
            self._look_up(reading.wall)
        most = MOST if profile.max_instances is None else profile.max_instances
        minimum = max(profile.min_instances, min(most, self._instances))
        wish = self._inner.decide(reading, replace(profile, min_instances=minimum))
        if wish.desired == minimum > profile.min_instances and not wish.spare:
            wish = replace(wish, reason=f"{wish.reason} (by its schedule)" if "minimum" in wish.reason else wish.reason)
        change = reading.now + (self._until - reading.wall)
        # The wall clock may be set: it is looked at again before long.
        until = min(wish.holds_until, change, reading.now + _LOOK_AGAIN_S)
        return replace(wish, holds_until=until, needed=max(wish.needed, minimum))

    def _look_up(self, wall: float) -> None:
        last, self._instances = max((each.last(wall), each.instances) for each in self._schedules)
        if last == -math.inf:
            self._instances = 0
        self._from, self._until = wall, min(each.next(wall) for each in self._schedules)
