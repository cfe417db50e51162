"""What a job asks of an optimiser and what it is told: the interface, and its fake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from headrace_autoscaler.core.jobs import Optimization, Variant


@dataclass(frozen=True, slots=True)
class Work:
    """Attributes:
    source, samples: files.
    folder: empty, for what comes out.
    """

    model: str
    source: Path
    samples: Path
    folder: Path
    optimization: Optimization


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is; a total of 0 is not known."""

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """Attributes:
    variants: with their files in the work's folder; None: there is none that could be deployed. The original has none.
    chosen: empty: nothing fits.
    reason: a sentence about the choice.
    """

    variants: tuple[tuple[Variant, Path | None], ...]
    chosen: str
    reason: str


class WorkFailed(Exception):
    """The question cannot be answered, or the optimiser has died; the text is for people."""


class Optimizer(Protocol):
    async def run(self, work: Work, tell: Callable[[Progress], None]) -> Found:
        """Until it has ended. A caller that is cancelled leaves no process behind.

        Raises:
            WorkFailed: says why.
        """
        ...


@dataclass
class FakeOptimizer:
    """An optimiser without processes: answers what it is told to.

    Attributes:
        gate: runs wait while it is cleared.
        answers: taken one by one; the last one stays. A function makes what it finds of the work.
        begun: how often it was run, as a semaphore to wait for.
    """

    answers: Sequence[Callable[[Work], Found] | Exception]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    works: list[Work] = field(default_factory=list)
    cancelled: int = 0

    async def run(self, work: Work, tell: Callable[[Progress], None]) -> Found:
        self.works.append(work)
        tell(Progress("timing", 1, 4))
        self.begun.release()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        answer = self.answers[min(len(self.works), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer(work)
