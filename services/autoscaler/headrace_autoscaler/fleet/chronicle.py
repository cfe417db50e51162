"""What outlives the autoscaler beside its store: what happened, and what policies and the standby pool have learnt."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from headrace_autoscaler.core.decider import Decider
from headrace_autoscaler.core.memory import FORM, Json, recall, remember, shift_between
from headrace_autoscaler.domain import Learnt, Model, ModelPast
from headrace_autoscaler.fleet.history import History
from headrace_autoscaler.fleet.standby_pool import StandbyPool
from headrace_autoscaler.store.history_files import HistoryFiles
from headrace_common.clock import Clock
from headrace_common.logs import get_logger

_PERIOD_S = 5.0
_LEARNT_PERIOD_S = 60.0
"""A model of which nothing else is new is written once in this time: its policy learns with every request."""
_AT_ONCE = 128
"""Models that are written only for what their policies learnt, in one period: the event loop waits for each."""


class Chronicle:
    """Writes what is new, at most every five seconds. One that was replaced writes no more, as its successor does."""

    def __init__(
        self, files: HistoryFiles, history: History, decider: Decider, standby: StandbyPool, clock: Clock
    ) -> None:
        self._files = files
        self._history = history
        self._decider = decider
        self._standby = standby
        self._clock = clock
        self._written_at = clock.monotonic()
        self._learnt_at: dict[str, float] = {}
        self._pool: Json = remember(standby)

    async def recall(self, models: Iterable[Model]) -> None:
        """What an earlier autoscaler knew. Call it before anything happens."""
        past, pool = await asyncio.to_thread(lambda: (self._files.read(), self._files.read_pool()))
        self._history.recall(past)
        refused = {model.spec.name: why for model in models if (why := self._recall_policies(model, past))}
        if pool is not None and (why := self._recall_pool(pool)):
            refused["the standby pool"] = why
        if refused:
            which, why = next(iter(refused.items()))
            get_logger().warning("learnt anew", count=len(refused), first=which, reason=why)

    async def write_what_is_due(self) -> None:
        if self._clock.monotonic() - self._written_at >= _PERIOD_S:
            await self._write(_LEARNT_PERIOD_S, _AT_ONCE)

    async def write_all(self) -> None:
        await self._write(0.0, None)

    async def _write(self, learnt_period_s: float, at_once: int | None) -> None:
        now, wall = self._clock.monotonic(), self._clock.wall()
        self._written_at = now
        changed = self._history.take_changed()
        due = self._due(now, learnt_period_s)
        for model in [*changed, *islice((each for each in due if each not in changed), at_once)]:
            past = self._history.past(model)
            changed[model] = None if past is None else self._with_policies(model, past, now, wall)
        pool = self._new_of_pool(now, wall)
        try:
            if changed or pool is not None:
                await asyncio.to_thread(self._files.write, changed, pool)
        except OSError as error:
            self._give_back(changed)
            get_logger().warning("history not written", error=str(error))
        except asyncio.CancelledError:
            # Its thread goes on; the last write, which waits for it, says the same and what came since.
            self._give_back(changed)
            raise

    def _due(self, now: float, period_s: float) -> list[str]:
        """Models whose policies were asked since they were written; longest ago first."""
        asked = self._decider.asked_at()
        written = {model: self._learnt_at.get(model, -math.inf) for model in asked}
        self._learnt_at = {model: at for model, at in written.items() if at > -math.inf}
        due = (model for model, at in written.items() if asked[model] >= at and now - at >= period_s)
        return sorted(due, key=written.__getitem__)

    def _with_policies(self, model: str, past: ModelPast, now: float, wall: float) -> ModelPast:
        self._learnt_at[model] = now
        return replace(past, policies=self._decider.learnt(model, now, wall))

    def _new_of_pool(self, now: float, wall: float) -> Learnt | None:
        told = remember(self._standby)
        if told is None or told == self._pool:
            return None
        self._pool = told
        return Learnt(FORM, now, wall, told)

    def _give_back(self, models: Iterable[str]) -> None:
        self._history.give_back(models)
        self._pool = None

    def _recall_policies(self, model: Model, past: dict[str, ModelPast]) -> str:
        """Why some of it could not be used; empty: it could."""
        refused = ""
        known = past.get(model.spec.name, ModelPast()).policies
        revisions = {each.revision: each for each in model.revisions}
        now, wall = self._clock.monotonic(), self._clock.wall()
        for number, learnt in known:
            if (revision := revisions.get(number)) is None:
                continue
            key, current = (model.spec.name, number), revision is model.current
            try:
                self._decider.recall(key, model.spec, current, learnt, now, wall)
            except Exception as error:  # noqa: BLE001 - whatever is in that file, the model is served without it
                refused = str(error) or repr(error)
        return refused

    def _recall_pool(self, learnt: Learnt) -> str:
        """The same, of the standby pool."""
        shift_s = shift_between((learnt.monotonic, learnt.wall), (self._clock.monotonic(), self._clock.wall()))
        try:
            if learnt.form != FORM:
                raise ValueError("it is of another version of headrace")
            recall(self._standby, learnt.told, shift_s)
        except (ValueError, TypeError) as error:
            return str(error)
        self._pool = remember(self._standby)
        return ""
