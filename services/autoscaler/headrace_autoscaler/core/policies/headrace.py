"""Our own policy: as few instances as meet the objective, counting what is on its way and what starting takes.

It combines, by maximum, what each of its parts asks for:

- what executes, for as long as it executes (an idle instance costs more than starting another in time);
- what waits, by when it must begin (`headrace_backlog`);
- the offered load by Little's law with head-room (`headrace_forecast`);
- what comes together within a reading, where a request may wait for less than that (`core.queueing`);
- what must stand ready because starting it would be too late, by an empirical forecast (`headrace_forecast`), unless
  it costs more than it earns (`headrace_worth`);
- what was needed and will be again soon enough (`headrace_keep`).

docs/autoscaling.md explains it and shows what it is worth. All times are monotonic seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from headrace_autoscaler.core.memory import FLAG, MOMENT, NUMBER, Schema, maybe, part
from headrace_autoscaler.core.policies.averages import SlidingMaximum
from headrace_autoscaler.core.policies.base import INTERVAL_S, Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded
from headrace_autoscaler.core.policies.headrace_backlog import Backlog
from headrace_autoscaler.core.policies.headrace_forecast import (
    BURST_MEMORY_S,
    RATE_MEMORY_S,
    Growth,
    Rate,
    StandingNeed,
    offered,
)
from headrace_autoscaler.core.policies.headrace_keep import Gaps, Keep
from headrace_autoscaler.core.policies.headrace_supply import Orders, Supply
from headrace_autoscaler.core.policies.headrace_worth import Worth
from headrace_autoscaler.core.queueing import LATE_SHARE, Service, together

_STANDING_SLACK = 0.9
"""Of the slack that the standing need counts on."""
_LEAST_HOLD_S = 1.0
"""An idle instance is kept for a cold start's time, which is what starting it again would cost: whatever comes, that
is at most twice what knowing would have cost (ski rental, the deterministic strategy). Where a start takes
milliseconds, for this: a start takes time from others too, and a chart that flickers with every request helps nobody.
"""
_BURST_MEMORY = 0.9
"""Weight of what bursts were like before the last one: the last ten or so count."""
_BURST_GAP_S = 2.0
"""Activity after less than this is the same burst."""
_PRESENT_S = 30.0
"""What comes together is believed as far as it was seen within this: requests that follow each other (one client that
waits for its answer, a pace) never meet, however many they are."""
_CONTINUOUS_S = 1.5 * INTERVAL_S

ONE = "demand: one instance is enough for it"
EXECUTES = "as many as execute"
WAITS = "as many as begin what waits in time"
LOAD = "as many as the offered load keeps busy, with head-room"
TOGETHER = "requests that come together would wait longer than the objective leaves"
STANDS = "what is likely to come would not wait for a start"
BREAK_EVEN = "what is likely to come would not wait for a start; more costs more than its objective earns"
KEPT = "nobody needs it now: kept while being needed again is likely enough"
IDLE_TIME = "kept until the idle timeout"
IDLE = "idle for the idle timeout"
NOTHING = "nothing waits, and starting again costs less than staying"
UNKNOWN = "demand, and no service time is known yet: one instance until it is measured"


@dataclass(frozen=True, slots=True)
class _Demand:
    """Instances that each part asks for.

    Attributes:
        present: somebody waits for an answer.
        break_even: the forecast is bounded by what a request is worth.
    """

    executes: int
    waits: int
    load: int
    together: int
    stands: int
    present: bool
    break_even: bool

    @property
    def needed(self) -> int:
        return max(self.executes, self.waits, self.load, self.together, self.stands, int(self.present))

    @property
    def reason(self) -> str:
        if self.needed <= 1 and self.present:
            return ONE
        stands = BREAK_EVEN if self.break_even else STANDS
        terms = (
            (self.waits, WAITS),
            (self.stands, stands),
            (self.load, LOAD),
            (self.together, TOGETHER),
            (self.executes, EXECUTES),
        )
        return max(terms, key=lambda term: term[0])[1]


class HeadracePolicy:
    """One model's. Memory is bounded, and a decision takes constant time.

    Args:
        thrift: above 1 accepts being short more often, below 1 less often; 2 and 0.5 are what users choose from.
    """

    MEMORY: ClassVar[Schema] = {
        "_at": maybe(MOMENT),
        "_backlog": part(),
        "_orders": part(),
        "_standing": part(),
        "_growth": part(),
        "_rate": part(),
        "_burst_rate": part(),
        "_keep": part(),
        "_warm": part(),
        "_present": part(),
        "_recent": part(),
        "_recent_s": NUMBER,
        "_active_at": maybe(MOMENT),
        "_burst_stood": FLAG,
        "_stood_share": NUMBER,
    }
    interval_s = INTERVAL_S

    def __init__(self, thrift: float = 1.0) -> None:
        self._thrift = thrift
        self._at: float | None = None
        self._backlog = Backlog()
        self._orders = Orders()
        self._standing = StandingNeed()
        self._growth = Growth()
        self._rate = Rate(RATE_MEMORY_S)
        self._burst_rate = Rate(BURST_MEMORY_S)
        self._keep = Keep()
        self._warm = Gaps(0.0)
        self._present = SlidingMaximum(_PRESENT_S)
        self._recent = SlidingMaximum(-1.0)
        self._recent_s = -1.0
        self._active_at: float | None = None
        self._burst_stood = False
        self._stood_share = 0.0

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        supply = Supply.of(profile, INTERVAL_S)
        worth = Worth.of(profile, supply, self._thrift)
        self._observe(reading, supply, worth)
        demand = self._demand(reading, profile, supply, worth)
        wish = bounded(self._settle(reading, profile, supply, demand), profile)
        if wish.desired <= profile.min_instances and wish.spare:
            wish = replace(wish, spare=False)
        asked = wish.desired - reading.ready - reading.starting
        if asked > 0:
            self._orders.add(asked, reading.now)
        return wish

    def _observe(self, reading: Reading, supply: Supply, worth: Worth) -> None:
        now = reading.now
        period_s = 0.0 if self._at is None else now - self._at
        # After a pause in which nothing was asked, what came did so at its end.
        since = now - min(period_s, INTERVAL_S)
        self._at = now
        self._rate.observe(reading.arrivals, period_s)
        self._burst_rate.observe(reading.arrivals, period_s)
        self._backlog.arrive(reading.arrivals, since)
        self._backlog.settle(reading.queued, reading.oldest_wait_s, now)
        self._orders.settle(reading.starting)
        self._standing.arrive(reading.arrivals, since)
        self._present.add(reading.queued + reading.executing, now)
        if reading.arrivals or reading.queued or reading.executing:
            self._see_burst(now, worth)

    def _see_burst(self, now: float, worth: Worth) -> None:
        if self._active_at is None or now - self._active_at > _BURST_GAP_S:
            self._stood_share = _BURST_MEMORY * self._stood_share + (1.0 - _BURST_MEMORY) * self._burst_stood
            self._burst_stood = False
        self._warm.needed(now, _BURST_GAP_S, worth.cold_burst_s(self._stood_share))
        self._active_at = now

    def _demand(self, reading: Reading, profile: Profile, supply: Supply, worth: Worth) -> _Demand:
        now, running = reading.now, reading.ready + reading.starting
        coming = self._orders.ready_in_s(reading.starting, supply, now)
        missing = self._backlog.missing(supply, reading.ready, coming, now, self._burst_rate.per_s)
        busy = math.ceil(reading.executing / max(1, profile.concurrency))
        return _Demand(
            executes=busy,
            waits=running + missing if missing else min(running, busy + reading.queued),
            load=offered(self._rate.per_s, supply),
            together=self._together(now, profile, supply, worth),
            stands=self._stands(now, supply, worth),
            present=reading.queued > 0 or reading.executing > 0,
            break_even=worth.chance == worth.break_even,
        )

    def _together(self, now: float, profile: Profile, supply: Supply, worth: Worth) -> int:
        slack_s = math.inf if profile.slo_s is None else profile.slo_s - supply.latency_s
        if not 0 < slack_s < INTERVAL_S or not supply.known:
            return 0
        service = Service(supply.service_s, supply.latency_s, slack_s)
        count = together(self._rate.per_s, service, LATE_SHARE * self._thrift, worth.request_s)
        return min(count, math.ceil(self._present.highest(now) / service.at_once))

    def _stands(self, now: float, supply: Supply, worth: Worth) -> int:
        need = self._standing.now(supply, now, _STANDING_SLACK * supply.slack_s)
        self._growth.observe(need, now, supply.blind_s)
        stands = math.ceil(self._growth.quantile(need, worth.chance) - 1e-9)
        if stands:
            self._burst_stood = True
            self._keep.needed(stands, now, _CONTINUOUS_S, worth.absence_s)
        return stands

    def _settle(self, reading: Reading, profile: Profile, supply: Supply, demand: _Demand) -> Wish:
        """Demand, what stays although it is idle, and what starts can do."""
        now, running = reading.now, reading.ready + reading.starting
        needed = demand.needed
        kept, until, why_kept = self._kept(now, running, needed, profile, supply)
        desired = max(needed, kept)
        reason = demand.reason if needed >= kept else why_kept
        if not supply.known and desired > max(1, running):
            # A guess may start the first instance; only a measurement may start more.
            desired, reason = max(1, running), UNKNOWN
        if desired > running:
            desired = max(running, min(desired, reading.ready + supply.useful_starts()))
        # Without arrivals demand only falls, so where there is none, what is kept alone decides.
        quiet = needed == 0 and not reading.starting
        if desired == 0:
            until = math.inf if running == 0 else 0.0
        return Wish(
            desired,
            reason if desired else NOTHING if profile.idle_timeout_s is None else IDLE,
            self._inputs(reading, supply, demand, kept),
            until if quiet else 0.0,
            spare=desired > needed and not demand.present,
            needed=needed,
        )

    def _kept(self, now: float, running: int, needed: int, profile: Profile, supply: Supply) -> tuple[int, float, str]:
        """What stays although it is idle, until when, and why."""
        recent = min(running, self._recently(needed, now, max(_LEAST_HOLD_S, supply.cold_start_s)))
        kept, until, why = self._keep.count(now), self._keep.next_change(now), KEPT
        if recent >= max(1, kept):
            kept, until = recent, 0.0
        if kept <= 1 and running and self._active_at is not None:
            asked_s = profile.idle_timeout_s
            # By arrivals, not by what is seen to be present: short requests are gone before a report is due.
            least_s = max(_LEAST_HOLD_S, supply.cold_start_s)
            last = max(self._warm.until, self._active_at + least_s) if asked_s is None else self._active_at + asked_s
            if now < last:
                return 1, last, KEPT if asked_s is None else IDLE_TIME
            if asked_s is not None:
                return 0, 0.0, IDLE
        return kept, until, why

    def _recently(self, needed: int, now: float, window_s: float) -> int:
        if window_s != self._recent_s:
            self._recent, self._recent_s = SlidingMaximum(window_s), window_s
        self._recent.add(needed, now)
        return self._recent.highest(now)

    def _inputs(self, reading: Reading, supply: Supply, demand: _Demand, kept: int) -> tuple[tuple[str, float], ...]:
        return (
            ("arrival_rate", self._rate.per_s),
            ("service_time_s", supply.service_s),
            ("service_time_known", float(supply.known)),
            ("slack_s", supply.slack_s),
            ("cold_start_s", supply.cold_start_s),
            ("queued", float(reading.queued)),
            ("in_flight", float(reading.executing)),
            ("oldest_wait_s", reading.oldest_wait_s),
            ("ready", float(reading.ready)),
            ("starting", float(reading.starting)),
            ("wanted_executing", float(demand.executes)),
            ("wanted_waiting", float(demand.waits)),
            ("wanted_load", float(demand.load)),
            ("wanted_together", float(demand.together)),
            ("wanted_standing", float(demand.stands)),
            ("kept", float(kept)),
            ("idle_s", reading.now - self._active_at if self._active_at is not None else -1.0),
        )
