"""Switches models among the variants that a job has found, as live measurements and demand ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.jobs import AUTO, ORIGINAL, Job, JobState, serving_variant
from headrace_autoscaler.core.variant_choice import (
    Better,
    Load,
    Patience,
    better_variant,
    is_ours_to_choose,
    with_profile,
)
from headrace_autoscaler.domain import Model
from headrace_autoscaler.ports import Fleet
from headrace_common.clock import Clock
from headrace_common.errors import FailedPrecondition, HeadraceError, NotFound
from headrace_common.logs import get_logger

REVIEW_S = 2.0

Deploy = Callable[[Model, str], Awaitable[Model]]
"""Deploys an artifact in place of what serves the model; raises HeadraceError."""


@dataclass(slots=True)
class VariantSwitching:
    """Of models whose job is done, and of which nobody has chosen a variant by hand.

    Attributes:
        deploy: withdrawn where its caller is cancelled; by_hand: not.
    """

    catalogue: StoredCatalogue
    fleet: Fleet
    clock: Clock
    deploy: Deploy
    by_hand: Deploy
    _patience: Patience = field(default_factory=Patience)
    _due: float = 0.0
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def review(self) -> None:
        """Call it often; it looks every few seconds."""
        now = self.clock.monotonic()
        if now < self._due:
            return
        self._due = now + REVIEW_S
        jobs = self.catalogue.jobs()
        self._patience.keep_only(job.model for job in jobs)
        for job in jobs:
            model = self.catalogue.model(job.model)
            if model is None or job.model in self._running or not is_ours_to_choose(job, model):
                continue
            if (load := self.fleet.load_of(job.model)) is not None:
                await self._consider(job, model, load, now)

    async def use(self, job: Job, model: Model, variant: str) -> Model:
        """Deploys a variant in place of what serves, and leaves it at that; `AUTO`: the mesh chooses from now on.

        Raises:
            HeadraceError: there is none, or it cannot be loaded.
        """
        if variant == AUTO:
            return await self._choose_from_now_on(job, model)
        artifact = job.artifact if variant == ORIGINAL else getattr(job.variant(variant), "artifact", "")
        if not artifact:
            usable = dict.fromkeys([ORIGINAL, *(each.name for each in job.variants if each.artifact)])
            raise NotFound(
                f"model {job.model!r} has no variant {variant[:80]!r} that can be used; it has {', '.join(usable)}"
            )
        await self.stop(job.model)
        # A change that came to its end meanwhile is what this takes the place of.
        deployed = await self.by_hand(self.catalogue.model(job.model) or model, artifact)
        await self._note(job.model, "", "", "")
        return deployed

    async def _choose_from_now_on(self, job: Job, model: Model) -> Model:
        current = model.current
        if job.state is not JobState.DONE or current is None or not serving_variant(job, model):
            raise FailedPrecondition(
                f"model {job.model!r}: the mesh chooses among variants once its optimization is done and one of them "
                f"serves; its last one is {job.state.value}"
            )
        await self._note(job.model, current.artifact, "", "")
        return model

    async def stop(self, model: str) -> None:
        """Gives up a change that is under way; what serves stays."""
        if (task := self._running.get(model)) is not None:
            task.cancel()
            await asyncio.wait({task})
            # One that has not had its first step leaves itself there.
            if self._running.get(model) is task:
                del self._running[model]

    async def close(self) -> None:
        for model in tuple(self._running):
            await self.stop(model)

    async def _consider(self, job: Job, model: Model, load: Load, now: float) -> None:
        measured = with_profile(job, model, load)
        if measured is not job:
            await self.catalogue.put_job(measured)
        better = better_variant(measured, model, load)
        if self._patience.is_time(job.model, better, now) and better is not None:
            task = asyncio.get_running_loop().create_task(self._switch(measured, model, better))
            self._running[job.model] = task

    async def _switch(self, job: Job, model: Model, better: Better) -> None:
        serves = job.managed if model.current is None else model.current.artifact
        variant = next(each for each in job.variants if each.name == better.variant)
        try:
            # First what is meant: who is killed in between goes on choosing, whichever of the two serves.
            await self._note(job.model, serves, variant.artifact, job.moved)
            await self.deploy(model, variant.artifact)
            get_logger().info("switched", model=job.model, variant=better.variant, why=better.why)
            await self._note(job.model, variant.artifact, "", f"{better.variant} serves: {better.why}")
        except HeadraceError as error:
            words = f"{better.variant} would serve ({better.why}), but could not be deployed: {error.message}"
            get_logger().warning("not switched", model=job.model, variant=better.variant, reason=error.message)
            with suppress(HeadraceError):  # The database is away, and what serves is as it was.
                await self._note(job.model, serves, "", words)
        except Exception as error:  # noqa: BLE001 - what serves stays, and the log has it in full
            get_logger().error("switch failed unexpectedly", model=job.model, exc_info=error)
        finally:
            self._patience.changed(job.model, self.clock.monotonic())
            self._running.pop(job.model, None)

    async def _note(self, name: str, managed: str, moving: str, moved: str) -> None:
        job = self.catalogue.job(name)
        if job is None or job.state is not JobState.DONE:
            return
        noted = replace(job, managed=managed, moving=moving, moved=moved)
        if noted != job:
            with suppress(NotFound):  # The model is gone meanwhile.
                await self.catalogue.put_job(noted)
