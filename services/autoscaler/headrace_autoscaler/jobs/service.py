"""Queues, runs and ends optimisations, and deploys what they choose.

Wiring, after the catalogue, the deploys and the fleet:

    jobs = JobService(catalogue, deploys, fleet, files, ProcessOptimizer(), clock, config)
    jobs.start()
    ...
    await jobs.close()         # before the deploys: a job may be waiting for one
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.jobs import (
    ORIGINAL,
    Job,
    JobEvent,
    JobState,
    Optimization,
    Variant,
    advanced,
    as_chosen,
    gave_way,
    in_line,
    interrupted,
    is_to_be_deployed,
    job_resources,
    kept_waiting,
    outdated,
    serving_variant,
    with_those_in_use,
)
from headrace_autoscaler.deploy import DeployService
from headrace_autoscaler.deploy_plan import DeployRequest
from headrace_autoscaler.domain import Limits, Model, Revision
from headrace_autoscaler.jobs.files import JobFiles
from headrace_autoscaler.jobs.samples import check_samples
from headrace_autoscaler.jobs.switching import VariantSwitching
from headrace_autoscaler.jobs.work import Found, Optimizer, Progress, Work, WorkFailed
from headrace_autoscaler.ports import Fleet
from headrace_common.clock import Clock
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import FailedPrecondition, HeadraceError, NotFound
from headrace_common.logs import get_logger

PERIOD_S = 0.25
_OPTIMIZED = ("onnxruntime", "torch")
"""Engines whose models the optimiser can read."""
_SERVES_VARIANTS = "onnxruntime"
"""The engine that serves what comes out."""
_RESTARTED = "the autoscaler restarted meanwhile"
_BEHIND = "waits for its turn: as many jobs run as may (configuration key autoscaler.optimize_jobs)"


@dataclass(slots=True)
class _Run:
    task: asyncio.Task[None]
    progress: Progress | None = None


@dataclass(slots=True)
class JobService:
    """One per mesh. What it may run, how many at once and for how long, is in the configuration."""

    catalogue: StoredCatalogue
    deploys: DeployService
    fleet: Fleet
    files: JobFiles
    optimizer: Optimizer
    clock: Clock
    config: AutoscalerConfig
    _runs: dict[str, _Run] = field(default_factory=dict)
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.Task[None] | None = None
    _switching: VariantSwitching = field(init=False)

    def __post_init__(self) -> None:
        withdrawn = partial(self._deploy, withdraw=True)
        self._switching = VariantSwitching(self.catalogue, self.fleet, self.clock, withdrawn, self._deploy)

    def start(self) -> None:
        """Takes up what an earlier autoscaler has left, and begins to run what is queued."""
        self._loop = asyncio.get_running_loop().create_task(self._tick_forever(), name="jobs")

    async def close(self) -> None:
        """Stops what runs; the next autoscaler begins it again."""
        tasks = [run.task for run in self._runs.values()]
        if self._loop is not None:
            tasks.append(self._loop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._switching.close()

    async def submit(self, name: str, samples: str, optimization: Optimization) -> Job:
        """Queues a job in place of the model's last one.

        Raises:
            NotFound, FailedPrecondition: there is no such model, or nothing of it that could be optimised.
            InvalidArgument, LimitExceeded: the samples do not fit.
        """
        try:
            if not self.config.optimize_jobs:
                raise FailedPrecondition("this mesh runs no optimisations (configuration key autoscaler.optimize_jobs)")
            with self.files.pinned(samples):
                async with self._changing:
                    await self._switching.stop(name)
                    model = self._model(name)
                    revision = _optimizable(model)
                    needed = job_resources(model.spec.resources.memory_bytes)
                    self.deploys.check_room(replace(model.spec, resources=needed, limits=Limits()))
                    path = await self.files.samples(samples)
                    if revision.loaded is not None:
                        signature, labels = revision.loaded.signature, optimization.labels
                        await asyncio.to_thread(check_samples, path, signature, labels, self.config.max_samples_bytes)
                    await self._stop(name)
                    job = await self._put(self._new(model, revision, samples, optimization))
        except BaseException:
            if await self.files.holds_samples(samples):
                await self.catalogue.drop_artifacts({samples})
            raise
        self._wake.set()
        return job

    async def cancel(self, name: str) -> Job:
        """Raises:
        NotFound, FailedPrecondition: there is no job that could be ended.
        """
        async with self._changing:
            job = self.job(name)
            if not job.active:
                raise FailedPrecondition(f"the job of model {name!r} is {job.state.value} already")
            return await self._end(job, JobEvent.CANCEL, "it was cancelled")

    async def use(self, name: str, variant: str) -> Model:
        """Deploys a variant in place of what serves, and leaves it at that; `AUTO`: the mesh chooses from now on.

        Raises:
            HeadraceError: there is none, or it cannot be loaded.
        """
        return await self._switching.use(self.job(name), self._model(name), variant)

    def job(self, name: str) -> Job:
        self._model(name)
        job = self.catalogue.job(name)
        if job is None:
            raise NotFound(
                f"model {name!r} was never optimized, as it is deployed now (`headrace deploy {name} --optimize`)"
            )
        return job

    def progress(self, name: str) -> Progress | None:
        run = self._runs.get(name)
        return run.progress if run else None

    async def tick(self) -> None:
        """Ends what is of no more use, makes room for serving, and begins what is next."""
        async with self._changing:
            for job in self.catalogue.jobs():
                await self._review(job)
            for name in self._runs.keys() - {job.model for job in self.catalogue.jobs()}:
                await self._stop(name)  # The model is gone, and its job with it.
            for job in in_line(self.catalogue.jobs()):
                spec = self._model(job.model).spec
                full = len(self._runs) >= self.config.optimize_jobs
                if full:
                    await self._wait_on(job, replace(job, reason=_BEHIND))
                elif reason := self.fleet.claim_job(spec):
                    await self._wait_on(
                        job, kept_waiting(job, self.clock.wall(), reason, self.config.optimize_patience_s)
                    )
                else:
                    await self._begin(job)
            await self._switching.review()

    async def _wait_on(self, job: Job, waits: Job) -> None:
        if waits != job:
            await self._put(waits)

    async def _review(self, job: Job) -> None:
        model = self.catalogue.model(job.model)
        if reason := outdated(job, model):
            if job.active:
                await self._end(job, JobEvent.CANCEL, reason)
            elif model is not None and not model.deleting:
                await self.catalogue.remove_job(job.model)
        elif job.state is JobState.RUNNING and job.model not in self._runs:
            await self._put(interrupted(job, self.clock.wall(), _RESTARTED))
        elif job.model in self._runs and (reason := self.fleet.job_must_stop(job.model)):
            await self._stop(job.model)
            last = self.catalogue.job(job.model)
            if last is not None and last.state is JobState.RUNNING:
                await self._put(gave_way(last, self.clock.wall(), reason, self.config.optimize_patience_s))

    async def _begin(self, job: Job) -> None:
        try:
            begun = await self._put(advanced(job, JobEvent.BEGIN, self.clock.wall()))
        except BaseException:
            self.fleet.release_job(job.model)
            raise
        task = asyncio.get_running_loop().create_task(self._run(begun), name=f"job {job.model}")
        self._runs[job.model] = _Run(task)

    async def _run(self, job: Job) -> None:
        try:
            outcome, reason = await self._work(job)
        except asyncio.CancelledError:
            raise
        except (WorkFailed, HeadraceError) as error:
            outcome, reason = JobEvent.FAIL, self.files.redact(str(error))
        except OSError as error:
            get_logger().error("job's files not written", model=job.model, exc_info=error)
            outcome, reason = JobEvent.FAIL, f"the mesh cannot write the job's files: {error.strerror or 'unknown'}"
        except Exception as error:  # noqa: BLE001 - the job fails, and the log has it in full
            get_logger().error("job failed unexpectedly", model=job.model, exc_info=error)
            outcome, reason = JobEvent.FAIL, "an unexpected error; the autoscaler's log has it"
        finally:
            self.fleet.release_job(job.model)
        await self._finish(job.model, outcome, reason)

    async def _work(self, job: Job) -> tuple[JobEvent, str]:
        """Finds variants, unless an earlier run has, and deploys the chosen one. What the job comes to, and why."""
        if not job.found:
            async with self.files.folder() as folder:
                job = await self._keep(job, await self._optimize(job, folder))
        self.fleet.release_job(job.model)
        reason = job.reason or f"{job.chosen or 'nothing'} was chosen before the autoscaler restarted"
        chosen, model = job.variant(job.chosen), self._model(job.model)
        if chosen is not None and is_to_be_deployed(job, model):
            try:
                await self._deploy(model, chosen.artifact, withdraw=True)
            except HeadraceError as error:
                failed = f"variant {chosen.name!r} could not be deployed: {error.message}"
                return JobEvent.FAIL, f"{reason.removesuffix('.')}; {failed}"
        return JobEvent.FINISH, reason

    async def _optimize(self, job: Job, folder: Path) -> Found:
        samples = await self.files.samples(job.samples)
        work = Work(job.model, self.files.source(job), samples, folder, job.optimization)
        limit_s = self.config.optimize_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                found = await self.optimizer.run(work, lambda progress: self._told(job.model, progress))
        except TimeoutError:
            raise WorkFailed(
                f"took longer than {limit_s:g} s (configuration key autoscaler.optimize_timeout_s); ask for fewer "
                "precisions, or bring fewer samples"
            ) from None
        return replace(found, reason=self.files.redact(found.reason))

    def _told(self, name: str, progress: Progress) -> None:
        if (run := self._runs.get(name)) is not None:
            run.progress = progress

    async def _keep(self, job: Job, found: Found) -> Job:
        variants: list[Variant] = []
        try:
            return await self._kept(job, found, variants)
        except BaseException:
            # Nobody knows of them yet: else they lay there for an hour, and the disk may be full.
            await self.catalogue.settled()
            await self.catalogue.drop_artifacts({each.artifact for each in variants})
            raise

    async def _kept(self, job: Job, found: Found, variants: list[Variant]) -> Job:
        for variant, file in found.variants:
            usable = file if _SERVES_VARIANTS in variant.engines else None
            artifact = "" if usable is None else (await self.files.keep(job, usable)).name
            variants.append(replace(variant, artifact=job.artifact if variant.name == ORIGINAL else artifact))
        if self.catalogue.job(job.model) != job:
            # The name may be another model's by now, which has no job.
            raise FailedPrecondition("the model was deleted")
        listed = with_those_in_use(variants, job, self._model(job.model))
        done = replace(job, variants=listed, found=True, chosen=found.chosen, reason=found.reason)
        return await self._put(done)

    async def _finish(self, name: str, outcome: JobEvent, reason: str) -> None:
        """Writes what came of it before its run is forgotten: what runs nowhere is taken for interrupted."""
        try:
            job = self.catalogue.job(name)
            if job is not None:
                with suppress(NotFound):  # The model is gone meanwhile.
                    ended = advanced(job, outcome, self.clock.wall(), reason)
                    await self._put(as_chosen(ended, self.catalogue.model(name)))
        finally:
            self._runs.pop(name, None)
            self._wake.set()

    async def _end(self, job: Job, event: JobEvent, reason: str) -> Job:
        await self._stop(job.model)
        last = self.catalogue.job(job.model)
        if last is not None and not last.active:
            return last  # It came to its end of itself in the last moment.
        return await self._put(advanced(last or job, event, self.clock.wall(), reason))

    async def _stop(self, name: str) -> None:
        """Ends the run of a job, if there is one; nothing of it is left when this returns."""
        run = self._runs.pop(name, None)
        if run is not None:
            run.task.cancel()
            await asyncio.wait({run.task})
            # One that has not had its first step lets go of nothing itself; and what it wrote last is written still.
            self.fleet.release_job(name)
            await self.catalogue.settled()

    async def _put(self, job: Job) -> Job:
        await self.catalogue.put_job(job)
        get_logger().info("job", model=job.model, state=job.state.value, reason=job.reason, chosen=job.chosen)
        return job

    def _new(self, model: Model, revision: Revision, samples: str, optimization: Optimization) -> Job:
        """Of the original, also where one of its variants serves by now."""
        last = self.catalogue.job(model.spec.name)
        of = (revision.artifact, revision.entry_point, revision.engine)
        variants: tuple[Variant, ...] = ()
        if last is not None and serving_variant(last, model):
            of, variants = (last.artifact, last.entry_point, last.engine), last.variants
        artifact, entry_point, engine = of
        job = Job(model.spec.name, artifact, entry_point, samples, optimization, engine=engine)
        return replace(job, created_at=self.clock.wall(), served=revision.artifact, variants=variants)

    async def _deploy(self, model: Model, artifact: str, *, withdraw: bool = False) -> Model:
        """As it is deployed now, with other files; refused where somebody has deployed something else meanwhile."""
        if model.current is None:
            raise FailedPrecondition(f"model {model.spec.name!r} is being deleted")
        request = DeployRequest(model.spec, artifact, replaces=model.current.artifact)
        return await self.deploys.deploy(request, wait=True, withdraw=withdraw)

    def _model(self, name: str) -> Model:
        model = self.catalogue.model(name)
        if model is None:
            raise NotFound(f"there is no model {name!r}")
        return model

    async def _tick_forever(self) -> None:
        while True:
            try:
                await self.tick()
            except Exception as error:  # noqa: BLE001 - say, a lost database: the next round may succeed
                get_logger().error("jobs not kept", error=repr(error), exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._wake.wait()
            self._wake.clear()


def _optimizable(model: Model) -> Revision:
    """The revision to optimise. Raises FailedPrecondition where there is none."""
    current, name = model.current, model.spec.name
    if model.deleting:
        raise FailedPrecondition(f"model {name!r} is being deleted")
    if current is None:
        raise FailedPrecondition(f"model {name!r} serves nobody yet: optimize it once its first load has succeeded")
    if current.engine not in _OPTIMIZED:
        raise FailedPrecondition(
            f"model {name!r} is served by {current.engine}; expected a model of {' or '.join(_OPTIMIZED)}"
        )
    return current
