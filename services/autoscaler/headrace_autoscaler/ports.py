"""The interfaces between the autoscaler's parts, owned by whoever calls them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from headrace_autoscaler.core.budgets import Standings
from headrace_autoscaler.core.explaining import Explanation
from headrace_autoscaler.core.jobs import Job
from headrace_autoscaler.core.promises import Promise, Promised
from headrace_autoscaler.core.variant_choice import Load
from headrace_autoscaler.domain import (
    DeployFailure,
    FleetView,
    Loaded,
    Model,
    ModelSpec,
    ModelView,
    Posting,
    Revision,
    ShapeProfile,
    Tenant,
    UsageRow,
)


class Store(Protocol):
    """What survives a restart. Synchronous, thread-safe; every method is one transaction.

    Callers on an event loop run these in a thread. One conformance suite holds SQLite and
    PostgreSQL to it. Whatever writes raises FailedPrecondition once another store has begun a later epoch,
    and whatever reads or writes Unavailable while the database cannot be used.
    """

    def last_epoch(self) -> int:
        """The newest that anybody has begun; 0: none."""
        ...

    def begin_epoch(self) -> int:
        """Counts this start; returns the new fencing epoch, higher than every earlier one. What is read after this is
        all that autoscalers before will ever have written."""
        ...

    def models(self) -> tuple[Model, ...]: ...

    def put_model(self, spec: ModelSpec, now: float) -> None:
        """Creates the model or replaces its spec. The owner of a model never changes."""
        ...

    def add_revision(self, revision: Revision) -> Revision:
        """Stores it under the model's next revision number and returns it with that number."""
        ...

    def update_revision(self, revision: Revision) -> None: ...

    def activate_revisions(self, model: str, revisions: Sequence[int]) -> None:
        """Makes these SERVING and every other SERVING one of the model RETIRING, at once."""
        ...

    def remove_revision(self, model: str, revision: int) -> None: ...

    def mark_deleting(self, model: str) -> None: ...

    def remove_model(self, model: str) -> None: ...

    def record_failure(self, model: str, failure: DeployFailure) -> None: ...

    def clear_failure(self, model: str) -> None: ...

    def failures(self) -> Mapping[str, DeployFailure]: ...

    def jobs(self) -> tuple[Job, ...]: ...

    def put_job(self, job: Job) -> None:
        """Stores it in place of the model's job, if there is one. It goes with its model.

        Raises:
            NotFound: there is no such model.
        """
        ...

    def remove_job(self, model: str) -> None: ...

    def tenants(self) -> tuple[Tenant, ...]: ...

    def put_tenant(self, tenant: Tenant) -> None: ...

    def remove_tenant(self, name: str) -> None: ...

    def promised(self) -> Promised:
        """What limits were that routers may still obey, by key: "tenant" or "tenant/model"."""
        ...

    def promise(self, key: str, promise: Promise) -> None:
        """Keeps it, in place of what was promised before, whether there is such a tenant or model or none."""
        ...

    def forget_promised(self, keys: Collection[str]) -> None: ...

    def post(self, posting: Posting) -> None:
        """Adds to the books. The same posting again, because its outcome was not known, changes nothing.

        Raises:
            FailedPrecondition: an autoscaler of a later epoch keeps them now.
        """
        ...

    def booked_until_us(self) -> int | None:
        """Until when the last posting has booked everything that ran; None: nothing was ever posted."""
        ...

    def spent(self, since: int) -> Mapping[tuple[str, str], int]:
        """Micro-units by (tenant, model) in the hours that began at `since` or later; seconds since the epoch."""
        ...

    def usage(self, tenant: str | None, since: float) -> tuple[UsageRow, ...]: ...

    def close(self) -> None: ...


class Catalogue(Protocol):
    """Models and tenants as they stand, in memory, over the store. The fleet reads it."""

    def models(self) -> tuple[Model, ...]: ...

    def model(self, name: str) -> Model | None: ...

    def tenants(self) -> tuple[Tenant, ...]: ...

    async def profiled(self, model: str, revision: int, profile: ShapeProfile) -> None:
        """The fleet says: this is what a load of this revision with this shape measured. Replaces what was known of
        the shape."""
        ...

    async def finish_retiring(self, model: str, revision: int) -> None:
        """The fleet says: a RETIRING revision has no instance and no demand left. Forgets it; the
        last one of a model that is being deleted takes the model and its files with it."""
        ...


class Fleet(Protocol):
    """Instances as they stand. The API calls it."""

    async def verify(self, spec: ModelSpec, revision: Revision) -> Loaded:
        """Loads a revision once on a standby runner, outside any traffic.

        If it becomes current, that runner serves on as its first instance; otherwise `discard`.

        Raises:
            InvalidArgument: the engine refused the model; the reason is the engine's.
            Unavailable: no runner could be had; the reason says why.
        """
        ...

    async def discard(self, model: str, revision: int) -> None:
        """Stops what `verify` had loaded."""
        ...

    def catalogue_changed(self) -> None:
        """Models or tenants changed: tell routers, decide again, now."""
        ...

    def decide_now(self) -> None:
        """Decides on what stands in the catalogue, before it returns: `view` then says what came of it."""
        ...

    def claim_job(self, spec: ModelSpec) -> str:
        """Takes quota and machine for a job of the model: one CPU, and the memory of an instance. Its time is booked
        to the owner until `release_job`.

        Returns:
            Why there is none of it now; empty: it is taken.
        """
        ...

    def release_job(self, model: str) -> None:
        """Gives back what `claim_job` took. Idempotent."""
        ...

    def load_of(self, model: str) -> Load | None:
        """What serves it and what it has to serve; None: nothing serves it in one measured shape just now."""
        ...

    def job_must_stop(self, model: str) -> str:
        """Why a job that holds something has to give way to serving now; empty: it may go on."""
        ...

    def view(self, model: str) -> ModelView: ...

    def explain(self, spec: ModelSpec) -> Explanation:
        """What keeps the model from more instances, as of the last decision."""
        ...

    def overview(self) -> FleetView: ...

    def standings(self) -> Standings:
        """How the budgets stand."""
        ...
