"""Models and tenants as they stand: in memory, over the store.

Reads are plain attribute look-ups on the event loop; how writes keep memory and store alike is in `writes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from headrace_autoscaler.artifacts import ArtifactStore
from headrace_autoscaler.core.jobs import Job
from headrace_autoscaler.core.promises import Promised, promised_to_model, promised_to_tenant
from headrace_autoscaler.domain import (
    DeployFailure,
    Limits,
    Model,
    ModelSpec,
    Posting,
    Revision,
    RevisionState,
    ShapeProfile,
    Tenant,
    UsageRow,
)
from headrace_autoscaler.ports import Store
from headrace_autoscaler.writes import Writes
from headrace_common.clock import Clock

RESTARTED = "the autoscaler restarted during the first load; deploy again"

_MOST_PROFILES = 32
"""Shapes of a revision that are remembered: redeploys with other resources add to them."""


class CatalogueStore(Store, Protocol):
    """A `Store` that can replace a model's spec in the transaction that activates its revisions."""

    def activate_revisions(self, model: str, revisions: Sequence[int], spec: ModelSpec | None = None) -> None: ...


class StoredCatalogue:
    """`ports.Catalogue`, and the writes of the deploy service and the API.

    Owns the store: `close` closes it.
    """

    def __init__(self, store: CatalogueStore, artifacts: ArtifactStore, clock: Clock) -> None:
        self._store = store
        self._artifacts = artifacts
        self._clock = clock
        self._writes = Writes(store)
        self._models: dict[str, Model] = {}
        self._tenants: dict[str, Tenant] = {}
        self._failures: dict[str, DeployFailure] = {}
        self._jobs: dict[str, Job] = {}

    @classmethod
    async def open(cls, store: CatalogueStore, artifacts: ArtifactStore, clock: Clock) -> StoredCatalogue:
        """Reads the store and clears away the deploys that a crash cut off.

        Call it before the fleet adopts runners: what those had loaded for such a deploy is then unknown
        to the catalogue and goes.
        """
        catalogue = cls(store, artifacts, clock)
        models, tenants, failures, jobs, promised = await asyncio.to_thread(
            lambda: (store.models(), store.tenants(), store.failures(), store.jobs(), store.promised())
        )
        catalogue._models = {model.spec.name: model for model in models}
        catalogue._tenants = {tenant.name: tenant for tenant in tenants}
        catalogue._failures = dict(failures)
        catalogue._jobs = {job.model: job for job in jobs}
        catalogue._writes.promised.update(promised)
        await catalogue._clear_interrupted()
        return catalogue

    async def settled(self) -> None:
        """Waits for writes in progress, those of cancelled callers among them."""
        await self._writes.settled()

    async def close(self) -> None:
        """Waits for writes in progress, then closes the store."""
        await self.settled()
        await asyncio.to_thread(self._store.close)
        self._writes.close()

    # What there is.

    def models(self) -> tuple[Model, ...]:
        return tuple(self._models.values())

    def model(self, name: str) -> Model | None:
        return self._models.get(name)

    def tenants(self) -> tuple[Tenant, ...]:
        return tuple(self._tenants.values())

    def tenant(self, name: str) -> Tenant | None:
        return self._tenants.get(name)

    def models_of(self, tenant: str) -> tuple[Model, ...]:
        return tuple(model for model in self._models.values() if model.spec.tenant == tenant)

    def failure(self, model: str) -> DeployFailure | None:
        """The last deploy of that name, if it failed; also of a name that never came to be a model."""
        return self._failures.get(model)

    def failures(self) -> Mapping[str, DeployFailure]:
        return dict(self._failures)

    def job(self, model: str) -> Job | None:
        """The last optimisation of the model."""
        return self._jobs.get(model)

    def jobs(self) -> tuple[Job, ...]:
        return tuple(self._jobs.values())

    def promised(self) -> Promised:
        """What limits were that routers may still obey: see `core.promises`."""
        return dict(self._writes.promised)

    def artifacts_in_use(self) -> frozenset[str]:
        of_models = {revision.artifact for model in self._models.values() for revision in model.revisions}
        return frozenset(of_models.union(*(job.artifacts for job in self._jobs.values())))

    # Writes of the fleet.

    async def profiled(self, model: str, revision: int, profile: ShapeProfile) -> None:
        """See `ports.Catalogue`. Of a revision that is gone meanwhile, nothing is kept."""

        def commit() -> Revision | None:
            held = self._models.get(model)
            found = next((each for each in held.revisions if each.revision == revision), None) if held else None
            if found is None:
                return None
            others = [each for each in found.profiles if each.resources != profile.resources]
            profiled = replace(found, profiles=(*others, profile)[-_MOST_PROFILES:])
            self._store.update_revision(profiled)
            return profiled

        def remember(profiled: Revision | None) -> None:
            if profiled is not None:
                self._revise(model, lambda revisions: (profiled if r.revision == revision else r for r in revisions))

        await self._writes.do(commit, remember)

    async def finish_retiring(self, model: str, revision: int) -> None:
        """Forgets a RETIRING revision; idempotent. See `ports.Catalogue`."""
        found = self._models.get(model)
        gone = [r for r in found.revisions if r.revision == revision] if found else []
        if found is None or not gone or gone[0].state is not RevisionState.RETIRING:
            return
        await self.remove_revision(model, revision)
        left = self._models.get(model)
        if left is not None and left.deleting and not left.revisions:
            await self.remove_model(model)
        await self.drop_artifacts({gone[0].artifact})

    # Writes of the deploy service and the API.

    async def put_model(self, spec: ModelSpec) -> None:
        now = self._clock.wall()

        def remember(_: None) -> None:
            old = self._models.get(spec.name)
            self._models[spec.name] = replace(old, spec=spec) if old else Model(spec=spec, created_at=now)

        await self._writes.do(
            lambda: self._store.put_model(spec, now), remember, lambda: self._of_model(spec.name, spec)
        )

    async def add_revision(self, revision: Revision) -> Revision:
        """Stores it under the model's next revision number and returns it with that number."""
        return await self._writes.do(
            lambda: self._store.add_revision(revision),
            lambda added: self._revise(added.model, lambda revisions: (*revisions, added)),
        )

    async def update_revision(self, revision: Revision) -> None:
        await self._writes.do(
            lambda: self._store.update_revision(revision),
            lambda _: self._revise(
                revision.model,
                lambda revisions: (revision if r.revision == revision.revision else r for r in revisions),
            ),
        )

    async def activate(self, spec: ModelSpec, revisions: Sequence[int]) -> None:
        """Makes these SERVING under this spec and retires every other SERVING one, at once."""

        def remember(_: None) -> None:
            self._models[spec.name] = replace(self._models[spec.name], spec=spec)
            self._revise(spec.name, lambda all_: (_activated(r, revisions) for r in all_))

        await self._writes.do(
            lambda: self._store.activate_revisions(spec.name, revisions, spec),
            remember,
            lambda: self._of_model(spec.name, spec),
        )

    async def remove_revision(self, model: str, revision: int) -> None:
        await self._writes.do(
            lambda: self._store.remove_revision(model, revision),
            lambda _: self._revise(model, lambda revisions: (r for r in revisions if r.revision != revision)),
        )

    async def mark_deleting(self, model: str) -> None:
        """Retires all that serves; `finish_retiring` of the last revision removes the model."""

        def remember(_: None) -> None:
            self._models[model] = replace(self._models[model], deleting=True)
            self._revise(model, lambda revisions: (_activated(r, ()) for r in revisions))

        await self._writes.do(lambda: self._store.mark_deleting(model), remember)

    async def remove_model(self, model: str) -> None:
        """Its job goes with it."""
        job = self._jobs.get(model)

        def remember(_: None) -> None:
            self._models.pop(model, None)
            self._jobs.pop(model, None)

        await self._writes.do(lambda: self._store.remove_model(model), remember, lambda: self._of_model(model, None))
        await self.drop_artifacts(job.artifacts if job else ())

    async def put_job(self, job: Job) -> None:
        """Replaces the model's job; what only the old one needed is removed.

        Raises:
            NotFound: the model is gone.
        """
        old = self._jobs.get(job.model)
        await self._writes.do(lambda: self._store.put_job(job), lambda _: self._jobs.update({job.model: job}))
        await self.drop_artifacts(old.artifacts - job.artifacts if old else ())

    async def remove_job(self, model: str) -> None:
        """Forgets a model's job and its variants, those aside that serve."""
        job = self._jobs.get(model)
        await self._writes.do(lambda: self._store.remove_job(model), lambda _: self._jobs.pop(model, None))
        await self.drop_artifacts(job.artifacts if job else ())

    async def record_failure(self, model: str, reason: str) -> None:
        failure = DeployFailure(self._clock.wall(), reason)
        await self._writes.do(
            lambda: self._store.record_failure(model, failure), lambda _: self._failures.update({model: failure})
        )

    async def clear_failure(self, model: str) -> None:
        if model in self._failures:
            await self._writes.do(lambda: self._store.clear_failure(model), lambda _: self._failures.pop(model, None))

    async def put_tenant(self, tenant: Tenant) -> None:
        await self._writes.do(
            lambda: self._store.put_tenant(tenant),
            lambda _: self._tenants.update({tenant.name: tenant}),
            lambda: {tenant.name: promised_to_tenant(self._tenants.get(tenant.name), tenant)},
        )

    async def add_tenant(self, tenant: Tenant) -> None:
        """One without limits, for its first model; not in place of one that has been set by then."""

        def commit() -> bool:
            if tenant.name in self._tenants:
                return False
            self._store.put_tenant(tenant)
            return True

        await self._writes.do(commit, lambda added: self._tenants.update({tenant.name: tenant} if added else {}))

    async def remove_tenant(self, name: str, *, only: Tenant | None = None) -> None:
        """
        Args:
            only: if it is this by then. None: whatever has been set.
        """

        def goes() -> bool:
            return only is None or self._tenants.get(name) == only

        await self._writes.do(
            lambda: self._store.remove_tenant(name) if goes() else None,
            lambda _: self._tenants.pop(name, None) if goes() else None,
            lambda: {name: promised_to_tenant(self._tenants.get(name), None)} if goes() else {},
        )

    async def forget_promised(self, promised: Promised) -> None:
        """Routers obey nothing of this any more; what was promised since stays."""
        await self._writes.forget(promised)

    async def drop_artifacts(self, artifacts: Iterable[str]) -> None:
        """Removes the files of those that no revision uses any more."""
        for artifact in artifacts:
            await self._artifacts.remove_unused(artifact, self.artifacts_in_use)

    # The books.

    async def post(self, posting: Posting) -> None:
        await self._writes.do(lambda: self._store.post(posting), lambda _: None)

    async def usage(self, tenant: str | None, since: float) -> tuple[UsageRow, ...]:
        return await asyncio.to_thread(self._store.usage, tenant, since)

    def _of_model(self, name: str, new: ModelSpec | None) -> Mapping[str, Limits | None]:
        old = self._models[name].spec if name in self._models else None
        return {f"{old.tenant}/{name}": promised_to_model(old, new)} if old is not None else {}

    def _revise(self, model: str, change: Callable[[tuple[Revision, ...]], Iterable[Revision]]) -> None:
        found = self._models.get(model)
        if found is not None:  # Gone meanwhile: the same revision was removed twice at once.
            self._models[model] = replace(found, revisions=tuple(change(found.revisions)))

    async def _clear_interrupted(self) -> None:
        for model in self.models():
            name = model.spec.name
            loading = [r for r in model.revisions if r.state is RevisionState.LOADING]
            for revision in loading:
                await self.remove_revision(name, revision.revision)
            if not self._models[name].revisions:
                await self.remove_model(name)
            if (loading or not model.revisions) and not model.deleting:
                await self.record_failure(name, RESTARTED)
            await self.drop_artifacts({revision.artifact for revision in loading})


def _activated(revision: Revision, revisions: Sequence[int]) -> Revision:
    if revision.revision in revisions:
        return replace(revision, state=RevisionState.SERVING)
    if revision.state is RevisionState.SERVING:
        return replace(revision, state=RevisionState.RETIRING)
    return revision
