"""Our own policy: as few instances as meet the objective, counting what is on its way and what starting takes.

It combines, by maximum, what each of its parts asks for:

- what executes, for as long as it executes (an idle instance costs more than starting another in time);
- what waits, by when it must begin (`headrace_backlog`);
- the offered load by Little's law with head-room (`headrace_forecast`);
- what must stand ready because starting it would be too late, by an empirical forecast (`headrace_forecast`), unless
  it costs more than it earns (`headrace_worth`);
- what was needed and will be again soon enough (`headrace_keep`).

docs/autoscaling.md explains it and shows what it is worth. All times are monotonic seconds.
"""

from __future__ import annotations

import math

from headrace_autoscaler.core.policies.averages import SlidingMaximum
from headrace_autoscaler.core.policies.base import Profile, Reading, Wish
from headrace_autoscaler.core.policies.bounds import bounded
from headrace_autoscaler.core.policies.headrace_backlog import Backlog
from headrace_autoscaler.core.policies.headrace_forecast import Growth, Rate, StandingNeed, offered
from headrace_autoscaler.core.policies.headrace_keep import Gaps, Keep
from headrace_autoscaler.core.policies.headrace_supply import Orders, Supply
from headrace_autoscaler.core.policies.headrace_worth import Worth

INTERVAL_S = 0.25
"""Routers report every 250 ms; asking more often would tell nothing new."""
STANDING_SLACK = 0.9
"""Of the slack that the standing need counts on."""
HOLD = 1.0
"""Times a cold start that an idle instance is kept: what starting it again would cost. Whatever comes, that is at most
twice what knowing would have cost (ski rental, the deterministic strategy)."""
_BURST_MEMORY = 0.9
_BURST_GAP_S = 2.0

EXECUTES = "as many as execute"
WAITS = "what waits begins in time only with more"
LOAD = "as many as the offered load keeps busy, with head-room"
STANDS = "what is likely to come would not wait for a start"
BREAK_EVEN = "what is likely to come would not wait for a start; more costs more than its objective earns"
KEPT = "nobody needs it now: kept while being needed again is likely enough"
IDLE_TIME = "kept until the idle timeout"
NOTHING = "nothing waits, and starting again costs less than staying"
UNKNOWN = "demand, and no service time is known yet: one instance until it is measured"


class HeadracePolicy:
    """One model's. Memory is bounded, and a decision takes constant time."""

    interval_s = INTERVAL_S

    def __init__(self) -> None:
        self._at: float | None = None
        self._backlog = Backlog()
        self._orders = Orders()
        self._standing = StandingNeed()
        self._growth = Growth()
        self._rate = Rate()
        self._keep = Keep()
        self._warm = Gaps(0.0)
        self._recent: SlidingMaximum | None = None
        self._recent_s = -1.0
        self._active_at: float | None = None
        self._burst_stood = False
        self._stood_share = 0.0

    def decide(self, reading: Reading, profile: Profile) -> Wish:
        supply = Supply.of(profile, INTERVAL_S)
        worth = Worth.of(profile, supply)
        self._observe(reading, supply, worth)
        wish = self._needed(reading, profile, supply, worth)
        if wish.desired <= 0 or wish.spare:
            wish = self._kept(reading, profile, wish)
        wish = bounded(wish, profile)
        asked = wish.desired - reading.ready - reading.starting
        if asked > 0:
            self._orders.add(asked, reading.now)
        return wish

    def _observe(self, reading: Reading, supply: Supply, worth: Worth) -> None:
        now = reading.now
        since = now if self._at is None else self._at
        if reading.arrivals:
            since = max(since, now - INTERVAL_S)
        self._rate.observe(reading.arrivals, now - since if self._at is None else now - self._at)
        self._at = now
        self._backlog.arrive(reading.arrivals, since)
        self._backlog.settle(reading.queued, reading.oldest_wait_s, now)
        self._orders.settle(reading.starting)
        self._standing.arrive(reading.arrivals, since)
        if reading.arrivals or reading.queued or reading.executing:
            self._burst(now, worth)

    def _burst(self, now: float, worth: Worth) -> None:
        if self._active_at is None or now - self._active_at > _BURST_GAP_S:
            self._stood_share = _BURST_MEMORY * self._stood_share + (1.0 - _BURST_MEMORY) * self._burst_stood
            self._burst_stood = False
        self._warm.needed(now, _BURST_GAP_S, worth.cold_burst_s(self._stood_share))
        self._active_at = now

    def _needed(self, reading: Reading, profile: Profile, supply: Supply, worth: Worth) -> Wish:
        now, running = reading.now, reading.ready + reading.starting
        stands = self._stands(now, supply, worth)
        coming = self._orders.ready_in_s(reading.starting, supply, now)
        missing = self._backlog.missing(supply, reading.ready, coming, now)
        busy = math.ceil(reading.executing / max(1, profile.concurrency))
        waits = running + missing if missing else min(running, busy + reading.queued)
        by_rate = offered(self._rate.per_s, supply)
        recent = self._recently(max(busy, waits, by_rate, stands), now, HOLD * supply.cold_start_s)
        kept = max(self._keep.count(now), min(running, recent))
        terms = ((busy, EXECUTES), (waits, WAITS), (by_rate, LOAD), (stands, self._why(worth)), (kept, KEPT))
        desired, reason = max(terms, key=lambda term: term[0])
        if reading.queued or reading.executing:
            desired = max(1, desired)
        inputs = (
            ("arrival_rate", self._rate.per_s),
            ("service_time_s", supply.service_s),
            ("service_time_known", float(supply.known)),
            ("slack_s", supply.slack_s),
            ("cold_start_s", supply.cold_start_s),
            ("executing", float(reading.executing)),
            ("queued", float(reading.queued)),
            ("oldest_wait_s", reading.oldest_wait_s),
            ("ready", float(reading.ready)),
            ("starting", float(reading.starting)),
            ("missing_for_backlog", float(missing)),
            ("offered", float(by_rate)),
            ("standing", float(stands)),
            ("kept", float(kept)),
        )
        if not supply.known and desired > max(1, running):
            return Wish(max(1, running), UNKNOWN, inputs)
        if desired > running:
            desired = max(running, min(desired, reading.ready + supply.useful_starts()))
        idle = desired > 0 and kept >= desired > max(busy, waits, by_rate, stands)
        until = self._keep.next_change(now) if idle and recent < desired and not reading.starting and self._quiet(now) else 0.0
        return Wish(desired, reason if desired else NOTHING, inputs, until, spare=idle)

    def _recently(self, needed: int, now: float, window_s: float) -> int:
        if self._recent is None or window_s != self._recent_s:
            self._recent, self._recent_s = SlidingMaximum(window_s), window_s
        self._recent.add(needed, now)
        return self._recent.highest(now)

    def _stands(self, now: float, supply: Supply, worth: Worth) -> int:
        need = self._standing.now(supply, now, STANDING_SLACK * supply.slack_s)
        self._growth.observe(need, now, supply.blind_s)
        stands = math.ceil(self._growth.quantile(need, worth.chance) - 1e-9)
        if stands:
            self._burst_stood = True
            self._keep.needed(stands, now, 1.5 * INTERVAL_S, worth.absence_s)
        return stands

    @staticmethod
    def _why(worth: Worth) -> str:
        return BREAK_EVEN if worth.chance == worth.break_even else STANDS

    def _quiet(self, now: float) -> bool:
        """Nothing that was learnt from changes before the next arrival."""
        return self._rate.per_s < 1e-3 or self._active_at is None or now - self._active_at > _BURST_GAP_S

    def _kept(self, reading: Reading, profile: Profile, wish: Wish) -> Wish:
        """The last instance: by the idle timeout where the user gave one, else by the gaps between bursts."""
        now, running = reading.now, reading.ready + reading.starting
        nothing = Wish(0, NOTHING, wish.inputs, math.inf if not running else 0.0)
        if not running or self._active_at is None:
            return nothing if not wish.desired else wish
        if profile.idle_timeout_s is not None:
            until = self._active_at + profile.idle_timeout_s
            if now < until and wish.desired <= 1:
                return Wish(1, IDLE_TIME, wish.inputs, until if self._quiet(now) else 0.0, spare=True)
            return nothing if wish.desired <= 1 and now >= until else wish
        if wish.desired == 0 and self._warm.keeps(now):
            return Wish(1, KEPT, wish.inputs, self._warm.until if self._quiet(now) else 0.0, spare=True)
        return wish if wish.desired else nothing
