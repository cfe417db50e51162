"""When a runner would be done with a bundle that it is sent now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from headrace_router.core.band import Watch
from headrace_router.core.latency import LatencyModel

SMOOTHING = 0.1
"""Weight of the newest observation in the mean time on the way."""
WAY_SLACK_S = 0.001
"""A time on the way further than this above twice the mean counts as being there: the loop was busy."""


class Predictor(Protocol):
    """Seconds from now until a bundle of so many rows would be answered; None: not known."""

    def predict(self, rows: int, now: float) -> float | None: ...


class Guesser(Predictor, Protocol):
    """One that can also say what was so when something was last measured."""

    def guess(self, rows: int, now: float) -> float | None:
        """As `predict`, however old what it knows is: how much to send at once after a lull, no reason to refuse."""


class Pace:
    """One runner's. It executes what it holds one after the other, in the order of sending.

    Attributes:
        engine: its times in the engine; the model's over all runners are its prior.
    """

    __slots__ = ("_ahead_at", "_ahead_s", "_began", "_held", "_way_s", "engine")

    def __init__(self, prior: LatencyModel) -> None:
        self.engine = LatencyModel(prior)
        self._held: list[int] = []
        self._began = 0.0
        self._way_s = 0.0
        self._ahead_s = 0.0
        self._ahead_at: float | None = None

    def sent(self, rows: int, now: float) -> None:
        if not self._held:
            self._began = now
        self._held.append(rows)
        self._ahead_at = None

    def answered(self, rows: int, compute_s: float, now: float) -> None:
        """A bundle came back executed."""
        self.engine.observe(rows, compute_s, now)
        way_s = max(0.0, now - self._began - compute_s)
        self._way_s += SMOOTHING * (min(way_s, 2 * self._way_s + WAY_SLACK_S) - self._way_s)
        self.ended(rows, now)

    def ended(self, rows: int, now: float) -> None:
        """A bundle came back: the one behind it begins."""
        if rows in self._held:
            self._held.remove(rows)
        self._began = now
        self._ahead_at = None

    def lost(self) -> None:
        """It holds nothing any more."""
        self._held.clear()
        self._ahead_at = None

    def predict(self, rows: int, now: float) -> float | None:
        """What is left of what it holds, the way there and back, and the engine's time."""
        own_s = self.engine.predict(rows, now)
        if own_s is None:
            return None
        # A whole cut asks for one moment.
        if now != self._ahead_at:
            self._ahead_at, self._ahead_s = now, self._ahead(now)
        return self._ahead_s + own_s

    def guess(self, rows: int, now: float) -> float | None:
        """As `predict`, however old what is known is."""
        own_s = self.engine.guess(rows)
        return None if own_s is None else self._ahead(now) + own_s

    def _ahead(self, now: float) -> float:
        """What passes before the engine is free for a bundle that is sent now, and its way."""
        predict = self.engine.predict
        ahead_s = self._way_s
        for index, held in enumerate(self._held):
            held_s = predict(held, now) or 0.0
            ahead_s += max(0.0, held_s - (now - self._began)) if index == 0 else held_s
        return ahead_s


class Paced(Protocol):
    """A runner, as far as its promises go."""

    @property
    def accepting(self) -> bool: ...

    @property
    def solo(self) -> bool: ...

    @property
    def watch(self) -> Watch: ...

    @property
    def pace(self) -> Predictor: ...


class Soonest:
    """The best promise of several runners, busy ones too: what none of them can meet is past help.

    Not asked are those that get nothing now, for being slow or for what they hold.
    """

    __slots__ = ("_runners",)

    def __init__(self, runners: Iterable[Paced]) -> None:
        """
        Args:
            runners: a view; it is looked at anew each time.
        """
        self._runners = runners

    def predict(self, rows: int, now: float) -> float | None:
        """None: one of them is not known, and may be quick."""
        best: float | None = None
        for runner in self._runners:
            if not runner.accepting or runner.solo or not runner.watch.allowance:
                continue
            promised = runner.pace.predict(rows, now)
            if promised is None:
                return None
            best = promised if best is None else min(best, promised)
        return best
