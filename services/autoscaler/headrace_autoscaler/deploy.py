"""The deploy and delete use cases.

A deploy runs in a task that the service owns: a client that goes away does not stop it. Deploys of one
name run one after the other. A deploy either activates all its revisions or leaves nothing but the reason.

Wiring, in this order:

    artifacts = ArtifactStore(state_dir / "artifacts", config.max_artifact_bytes, config.artifact_ttl_s, clock)
    store = SqlStore.open(config.database_url or sqlite_url(state_dir / "headrace.db"))
    catalogue = await StoredCatalogue.open(store, artifacts, clock)   # before the fleet adopts runners
    deploys = DeployService(catalogue, artifacts, fleet, clock, config, Offer(capacity, fake_engine))
    deploys.start()
    ...
    await deploys.close()      # while the fleet can still discard what was being loaded
    await catalogue.close()
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from weakref import WeakValueDictionary

from headrace.oip import model_config_pb2
from headrace_autoscaler.artifacts import Artifact, ArtifactStore
from headrace_autoscaler.artifacts.fetch import check_source, without_secrets
from headrace_autoscaler.catalogue import StoredCatalogue
from headrace_autoscaler.core.rationing import refuse_spent
from headrace_autoscaler.deploy_plan import (
    DeployRequest,
    Offer,
    as_it_stands,
    check_fits,
    check_owner,
    check_replaces,
    check_request,
    is_new,
    plan_revisions,
    settled_spec,
)
from headrace_autoscaler.deploy_source import read_plans, read_settings, resolve
from headrace_autoscaler.domain import Model, ModelSpec, Revision, RevisionState, ShapeProfile, Tenant
from headrace_autoscaler.fleet.tasks import to_its_end
from headrace_autoscaler.padding import padding_mistakes
from headrace_autoscaler.ports import Fleet
from headrace_autoscaler.repository import CONFIG_PATH, candidates, tensor_mismatches
from headrace_autoscaler.repository.plans import built_for, of_plans, spec_for_plans
from headrace_autoscaler.sequences import sequence_mistakes
from headrace_common.clock import Clock
from headrace_common.config import AutoscalerConfig
from headrace_common.errors import FailedPrecondition, HeadraceError, InvalidArgument, NotFound, Unavailable
from headrace_common.logs import get_logger
from headrace_common.status import GENERIC

COLLECT_PERIOD_S = 60.0
FAILURE_TTL_S = 7 * 86400.0
"""The reason why a name never came to be a model is kept this long."""

_GONE_POLL_S = 0.05
_STOPPED = "the autoscaler stopped during the first load; deploy again"


class DeployService:
    """Deploys, deletes, and removes artifacts that nobody uses."""

    def __init__(
        self,
        catalogue: StoredCatalogue,
        artifacts: ArtifactStore,
        fleet: Fleet,
        clock: Clock,
        config: AutoscalerConfig,
        offer: Offer,
    ) -> None:
        self._catalogue = catalogue
        self._artifacts = artifacts
        self._fleet = fleet
        self._clock = clock
        self._schemes = config.source_schemes
        self._offer = offer
        self._log = get_logger(part="deploy")
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: defaultdict[str, dict[asyncio.Task[Model], str]] = defaultdict(dict)
        self._deleting: set[str] = set()
        self.deletion_patience_s = 10.0
        self._withdrawn: set[asyncio.Task[Model]] = set()
        self._closed = False
        self._collector: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to remove artifacts whose time without a model is over."""
        self._collector = asyncio.get_running_loop().create_task(self._collect_periodically())

    async def close(self) -> None:
        """Stops the deploys in progress, and refuses new ones; what they had loaded is discarded."""
        self._closed = True
        tasks: set[asyncio.Task[Model] | asyncio.Task[None]] = {
            t for running in self._running.values() for t in running
        }
        if self._collector is not None:
            tasks.add(self._collector)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def deploy(self, request: DeployRequest, *, wait: bool, withdraw: bool = False) -> Model:
        """Deploys a model, or a new revision of one.

        Args:
            request: what is asked for.
            wait: answer when every new revision has loaded once; otherwise as soon as the loads begin.
            withdraw: a caller that is cancelled takes its deploy back, unless that has come to its end. Nothing is
                said of it.

        Raises:
            HeadraceError: what is wrong with the request or, with wait, why the load failed.
        """
        if self._closed:
            raise Unavailable("the autoscaler is stopping; deploy again")
        check_request(request, self._offer)
        if request.url:
            check_source(request.url, self._schemes)
        name = request.spec.name
        begun: asyncio.Future[Model] = asyncio.get_running_loop().create_future()
        task = asyncio.get_running_loop().create_task(self._run(request, begun))
        self._running[name][task] = request.spec.tenant
        task.add_done_callback(lambda done: self._forget(name, done))
        try:
            await asyncio.wait({task} if wait else {task, begun}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if withdraw:
                await to_its_end(self._withdraw(task))
            raise
        if not wait and begun.done():
            return begun.result()
        if task.cancelled():
            raise self._interrupted(name)
        return task.result()

    async def _withdraw(self, task: asyncio.Task[Model]) -> None:
        self._withdrawn.add(task)
        task.cancel()
        try:
            await asyncio.wait({task})
        finally:
            self._withdrawn.discard(task)

    def check_room(self, spec: ModelSpec) -> None:
        """See `deploy_plan.check_fits`."""
        check_fits(spec, self._catalogue.tenants(), self._offer)

    def owners(self, name: str) -> frozenset[str]:
        """The model's tenant; while its first deploy is under way, whoever deploys it."""
        model = self._catalogue.model(name)
        return frozenset({model.spec.tenant} if model else self._running.get(name, {}).values())

    async def delete(self, name: str, owners: frozenset[str]) -> None:
        """Retires all revisions of a model; it is gone once the fleet has drained them. Idempotent while
        it drains. Deploys of it by these owners that are under way are stopped.

        Raises:
            NotFound: there is no such model, and none of them deploys one.
        """
        interrupted = [task for task, owner in self._running.get(name, {}).items() if owner in owners]
        self._deleting.add(name)
        try:
            for task in interrupted:
                task.cancel()
            if interrupted:
                await asyncio.wait(interrupted)
        finally:
            self._deleting.discard(name)
        async with self._lock(name):
            await self._catalogue.clear_failure(name)
            model = self._catalogue.model(name)
            if model is None and not interrupted:
                raise NotFound(f"there is no model {name!r}")
            if model is not None and not model.deleting:
                await self._catalogue.mark_deleting(name)
            if model is not None and not model.revisions:
                await self._catalogue.remove_model(name)
        self._fleet.catalogue_changed()

    async def collect(self) -> None:
        """Removes artifacts without a model, and old failures of names without one."""
        now = self._clock.wall()
        removed = await self._artifacts.collect(self._catalogue.artifacts_in_use, now)
        if removed:
            self._log.info("artifacts removed", artifacts=removed, reason="no model uses them")
        for name, failure in self._catalogue.failures().items():
            if self._catalogue.model(name) is None and failure.at + FAILURE_TTL_S < now:
                await self._catalogue.clear_failure(name)

    async def _run(self, request: DeployRequest, begun: asyncio.Future[Model]) -> Model:
        name = request.spec.name
        lock = self._lock(name)
        # While this waits its turn, a failing deploy of the same files must not take them away.
        with self._artifacts.pinned(request.artifact):
            await lock.acquire()
        try:
            # Nor must the end of what had them before.
            with self._artifacts.pinned(request.artifact):
                await self._until_gone(name)
            return await self._run_alone(request, begun)
        finally:
            lock.release()

    async def _run_alone(self, request: DeployRequest, begun: asyncio.Future[Model]) -> Model:
        before = self._catalogue.model(request.spec.name)
        check_owner(request.spec, before)
        check_replaces(request, before)
        request = as_it_stands(request, before, self._catalogue.job(request.spec.name))
        spec = request.spec
        tenant = self._catalogue.tenant(spec.tenant)
        artifact: Artifact | None = None
        try:
            check_fits(spec, self._catalogue.tenants(), self._offer)
            artifact = await resolve(request, self._catalogue.model(spec.name), self._artifacts, self._schemes)
            with self._artifacts.pinned(artifact.name):
                return await self._attempt(request, artifact, begun)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - undone, told and recorded
            failure = self._explain(spec.name, error)
            # A second delete must not cut off what undoes the deploy that the first one stopped.
            said = asyncio.current_task() not in self._withdrawn
            await to_its_end(self._undo(spec, failure.message, artifact, tenant is None, said))
            raise failure from None

    async def _until_gone(self, name: str) -> None:
        """Waits a moment for a model of this name that is being deleted: who deploys right after that means this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.deletion_patience_s):
                while (model := self._catalogue.model(name)) is not None and model.deleting:  # noqa: ASYNC110 - rare
                    await asyncio.sleep(_GONE_POLL_S)

    async def _attempt(self, request: DeployRequest, artifact: Artifact, begun: asyncio.Future[Model]) -> Model:
        name = request.spec.name
        now = self._clock.wall()
        settings = await read_settings(artifact, name, self._artifacts)
        spec = settled_spec(request, settings)
        spec = replace(spec, source=without_secrets(spec.source))
        found = candidates(artifact.files, settings.version_policy, settings.default_filename)
        plans = await read_plans(artifact, found, self._artifacts)
        found = of_plans(found, plans)
        if targets := built_for(found, plans):
            spec = spec_for_plans(spec, targets, self._offer.gpu_architecture)
            check_fits(spec, self._catalogue.tenants(), self._offer)
        request = replace(request, spec=spec)
        planned = plan_revisions(self._catalogue.model(name), request, artifact.name, found, settings, now)
        if any(map(is_new, planned)):
            # A first load costs what any other does.
            error = refuse_spent(self._fleet.standings(), spec, now)
            if error is not None:
                raise error
        if self._catalogue.tenant(spec.tenant) is None:
            await self._catalogue.add_tenant(Tenant(spec.tenant, created_at=now))
        if self._catalogue.model(name) is None:
            await self._catalogue.put_model(spec)
        revisions = [await self._catalogue.add_revision(r) if is_new(r) else r for r in planned]
        begun.set_result(self._model(name))
        verified = [await self._verify(spec, revision) for revision in revisions]
        for revision in verified:
            await self._catalogue.update_revision(revision)
        await self._catalogue.activate(spec, [revision.revision for revision in verified])
        await self._catalogue.clear_failure(name)
        # At once: whoever waits for the deploy is told whether its minimum can run.
        self._fleet.decide_now()
        self._log.info("deployed", model=name, tenant=spec.tenant, versions=[r.version for r in verified])
        return self._model(name)

    async def _verify(self, spec: ModelSpec, revision: Revision) -> Revision:
        """Loads a new revision once; holds what the engine found against config.pbtxt."""
        if revision.state is not RevisionState.LOADING:
            return revision
        loaded = await self._fleet.verify(spec, revision)
        if revision.model_config:
            config = model_config_pb2.ModelConfig.FromString(revision.model_config)
            mismatches = tensor_mismatches(config, loaded.signature)
            if mismatches:
                raise InvalidArgument(f"{CONFIG_PATH}: {'; '.join(mismatches)}")
        if mistakes := padding_mistakes(revision.batching.padding, loaded.signature):
            raise InvalidArgument(f"padding: {'; '.join(mistakes)}")
        if mistakes := sequence_mistakes(revision.sequences, loaded.signature):
            raise InvalidArgument(f"states: {'; '.join(mistakes)}")
        return replace(revision, loaded=loaded, profiles=(ShapeProfile(spec.resources, loaded.profile_us),))

    async def _undo(
        self, spec: ModelSpec, reason: str, artifact: Artifact | None, new_tenant: bool, said: bool
    ) -> None:
        """Takes back what a failed deploy has done; the reason stays, unless the model is being deleted.

        Args:
            said: somebody wants to know the reason.
        """
        name = spec.name
        await self._catalogue.settled()
        model = self._catalogue.model(name)
        for revision in model.revisions if model else ():
            if revision.state is RevisionState.LOADING:
                await self._discard(revision)
                await self._catalogue.remove_revision(name, revision.revision)
        if model is not None and not self._model(name).revisions:
            await self._catalogue.remove_model(name)
        tenant = self._catalogue.tenant(spec.tenant)
        # One that the operator has set meanwhile is not the deploy's to take back.
        untouched = tenant is not None and tenant == Tenant(spec.tenant, created_at=tenant.created_at)
        if new_tenant and untouched and not self._catalogue.models_of(spec.tenant):
            await self._catalogue.remove_tenant(spec.tenant, only=tenant)
        if artifact is not None:
            await self._catalogue.drop_artifacts({artifact.name})
        if said and name not in self._deleting:
            await self._catalogue.record_failure(name, reason)
        self._fleet.catalogue_changed()
        self._log.warning("deploy failed", model=name, tenant=spec.tenant, reason=reason)

    async def _discard(self, revision: Revision) -> None:
        try:
            await self._fleet.discard(revision.model, revision.revision)
        except Exception as error:  # noqa: BLE001 - the rest must be undone all the same
            self._log.error("discard failed", model=revision.model, revision=revision.revision, error=repr(error))

    def _explain(self, name: str, error: BaseException) -> HeadraceError:
        """The error as the client and `describe` get it."""
        if isinstance(error, asyncio.CancelledError):
            return self._interrupted(name)
        if isinstance(error, HeadraceError):
            error.args = (self._artifacts.redact(error.message), *error.args[1:])
            return error
        self._log.error("deploy failed unexpectedly", model=name, exc_info=error)
        return HeadraceError(GENERIC)

    def _interrupted(self, name: str) -> HeadraceError:
        if name in self._deleting:
            return FailedPrecondition(f"model {name!r} was deleted during its deploy")
        return Unavailable(_STOPPED)

    def _model(self, name: str) -> Model:
        model = self._catalogue.model(name)
        if model is None:
            raise NotFound(f"there is no model {name!r}")
        return model

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _forget(self, name: str, task: asyncio.Task[Model]) -> None:
        self._running[name].pop(task, None)
        if not self._running[name]:
            del self._running[name]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, HeadraceError):
            self._log.error("deploy could not be undone", model=name, exc_info=error)

    async def _collect_periodically(self) -> None:
        while True:
            try:
                await self.collect()
            except Exception as error:  # noqa: BLE001 - say, a lost database: the next round may succeed
                self._log.error("collection failed", error=repr(error))
            await asyncio.sleep(COLLECT_PERIOD_S)
