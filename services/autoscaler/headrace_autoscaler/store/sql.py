"""`ports.Store` over SQLAlchemy Core."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import IntegrityError

from headrace_autoscaler.core.jobs import Job, JobState
from headrace_autoscaler.core.promises import Promise, Promised
from headrace_autoscaler.domain import (
    DeployFailure,
    Model,
    ModelSpec,
    Posting,
    Revision,
    RevisionState,
    Tenant,
    Usage,
    UsageKey,
    UsageRow,
)
from headrace_autoscaler.store import documents
from headrace_autoscaler.store.engine import open_engine, reading
from headrace_autoscaler.store.tables import (
    EPOCH,
    FAILURES,
    JOBS,
    LEDGER,
    MODELS,
    PROMISED_LIMITS,
    REVISION_COUNTERS,
    REVISIONS,
    TENANTS,
    USAGE,
)
from headrace_common.errors import FailedPrecondition, NotFound, PermissionDenied


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


class SqlStore:
    """One database. Thread-safe; every method is one transaction, committed when it returns."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reading = reading(engine)
        self._epoch: int | None = None
        self._insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    @classmethod
    def open(cls, url: str) -> SqlStore:
        """Opens and, where needed, upgrades the database.

        Raises:
            InvalidArgument: the URL is not one of SQLite or PostgreSQL.
            FailedPrecondition: the database cannot be opened, or a newer headrace has written it.
        """
        return cls(open_engine(url))

    def close(self) -> None:
        self._engine.dispose()

    def last_epoch(self) -> int:
        with self._reading.connect() as connection:
            return _newest(connection.execute(sa.select(EPOCH.c.epoch)))

    def begin_epoch(self) -> int:
        with self._engine.begin() as connection:
            self._epoch = self._count(connection, EPOCH, EPOCH.c.epoch, id=1)
        return self._epoch

    def models(self) -> tuple[Model, ...]:
        revisions: dict[str, list[Revision]] = defaultdict(list)
        with self._reading.connect() as connection:
            for row in connection.execute(sa.select(REVISIONS).order_by(REVISIONS.c.revision)):
                stored = documents.REVISION.load(row.document)
                revisions[row.model].append(replace(stored, state=RevisionState(row.state)))
            rows = connection.execute(sa.select(MODELS).order_by(MODELS.c.name)).all()
        return tuple(
            Model(documents.SPEC.load(row.document), row.created_at, tuple(revisions[row.name]), row.deleting)
            for row in rows
        )

    def put_model(self, spec: ModelSpec, now: float) -> None:
        with self._writing() as connection:
            insert = self._insert(MODELS).values(
                name=spec.name, tenant=spec.tenant, created_at=now, deleting=False, document=documents.SPEC.dump(spec)
            )
            done = connection.execute(
                insert.on_conflict_do_update(
                    index_elements=[MODELS.c.name],
                    set_={"document": insert.excluded.document},
                    where=MODELS.c.tenant == insert.excluded.tenant,
                ).returning(MODELS.c.name)
            )
            if done.first() is None:
                raise PermissionDenied(f"model {spec.name!r} belongs to another tenant; its owner never changes")

    def add_revision(self, revision: Revision) -> Revision:
        try:
            with self._writing() as connection:
                number = self._count(connection, REVISION_COUNTERS, REVISION_COUNTERS.c.last, model=revision.model)
                added = replace(revision, revision=number)
                connection.execute(sa.insert(REVISIONS).values(_row(added)))
                return added
        except IntegrityError:
            raise NotFound(f"there is no model {revision.model!r}") from None

    def update_revision(self, revision: Revision) -> None:
        with self._writing() as connection:
            done = connection.execute(
                sa.update(REVISIONS).where(_is(revision.model, revision.revision)).values(_row(revision))
            )
            _found(done.rowcount == 1, revision.model, revision.revision)

    def activate_revisions(self, model: str, revisions: Sequence[int], spec: ModelSpec | None = None) -> None:
        with self._writing() as connection:
            _retire(connection, model)
            for revision in revisions:
                done = connection.execute(
                    sa.update(REVISIONS).where(_is(model, revision)).values(state=RevisionState.SERVING.value)
                )
                _found(done.rowcount == 1, model, revision)
            if spec is not None:
                document = documents.SPEC.dump(spec)
                connection.execute(sa.update(MODELS).where(MODELS.c.name == model).values(document=document))

    def remove_revision(self, model: str, revision: int) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(REVISIONS).where(_is(model, revision)))

    def mark_deleting(self, model: str) -> None:
        with self._writing() as connection:
            done = connection.execute(sa.update(MODELS).where(MODELS.c.name == model).values(deleting=True))
            if done.rowcount == 0:
                raise NotFound(f"there is no model {model!r}")
            _retire(connection, model)

    def remove_model(self, model: str) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(MODELS).where(MODELS.c.name == model))

    def record_failure(self, model: str, failure: DeployFailure) -> None:
        values = {"at": failure.at, "reason": failure.reason}
        with self._writing() as connection:
            insert = self._insert(FAILURES).values(model=model, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=[FAILURES.c.model], set_=values))

    def clear_failure(self, model: str) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(FAILURES).where(FAILURES.c.model == model))

    def failures(self) -> Mapping[str, DeployFailure]:
        with self._reading.connect() as connection:
            rows = connection.execute(sa.select(FAILURES)).all()
        return {row.model: DeployFailure(row.at, row.reason) for row in rows}

    def jobs(self) -> tuple[Job, ...]:
        with self._reading.connect() as connection:
            rows = connection.execute(sa.select(JOBS).order_by(JOBS.c.model)).all()
        return tuple(replace(documents.JOB.load(row.document), state=JobState(row.state)) for row in rows)

    def put_job(self, job: Job) -> None:
        values = {"state": job.state.value, "document": documents.JOB.dump(job)}
        try:
            with self._writing() as connection:
                insert = self._insert(JOBS).values(model=job.model, **values)
                connection.execute(insert.on_conflict_do_update(index_elements=[JOBS.c.model], set_=values))
        except IntegrityError:
            raise NotFound(f"there is no model {job.model!r}") from None

    def remove_job(self, model: str) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(JOBS).where(JOBS.c.model == model))

    def tenants(self) -> tuple[Tenant, ...]:
        with self._reading.connect() as connection:
            rows = connection.execute(sa.select(TENANTS).order_by(TENANTS.c.name)).all()
        return tuple(documents.TENANT.load(row.document) for row in rows)

    def put_tenant(self, tenant: Tenant) -> None:
        document = documents.TENANT.dump(tenant)
        with self._writing() as connection:
            insert = self._insert(TENANTS).values(name=tenant.name, document=document)
            connection.execute(
                insert.on_conflict_do_update(index_elements=[TENANTS.c.name], set_={"document": document})
            )

    def remove_tenant(self, name: str) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(TENANTS).where(TENANTS.c.name == name))

    def promised(self) -> Promised:
        with self._reading.connect() as connection:
            rows = connection.execute(sa.select(PROMISED_LIMITS)).all()
        return {row.key: documents.PROMISE.load(row.document) for row in rows}

    def promise(self, key: str, promise: Promise) -> None:
        document = documents.PROMISE.dump(promise)
        with self._writing() as connection:
            insert = self._insert(PROMISED_LIMITS).values(key=key, document=document)
            connection.execute(
                insert.on_conflict_do_update(index_elements=[PROMISED_LIMITS.c.key], set_={"document": document})
            )

    def forget_promised(self, keys: Collection[str]) -> None:
        with self._writing() as connection:
            connection.execute(sa.delete(PROMISED_LIMITS).where(PROMISED_LIMITS.c.key.in_(keys)))

    def post(self, posting: Posting) -> None:
        with self._engine.begin() as connection:
            self._refuse_replaced(connection, posting.epoch, read=False)
            last = connection.execute(sa.select(LEDGER)).first()
            if last is not None and (last.epoch, last.serial) == (posting.epoch, posting.serial):
                return
            self._add_usage(connection, posting.increments)
            values = {"epoch": posting.epoch, "serial": posting.serial, "booked_until_us": posting.booked_until_us}
            insert = self._insert(LEDGER).values(id=1, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=[LEDGER.c.id], set_=values))

    def booked_until_us(self) -> int | None:
        with self._reading.connect() as connection:
            return connection.execute(sa.select(LEDGER.c.booked_until_us)).scalar_one_or_none()

    def spent(self, since: int) -> Mapping[tuple[str, str], int]:
        total = sa.func.sum(USAGE.c.cost_micros)
        query = sa.select(USAGE.c.tenant, USAGE.c.model, total.label("micros")).where(USAGE.c.hour >= since)
        with self._reading.connect() as connection:
            rows = connection.execute(query.group_by(USAGE.c.tenant, USAGE.c.model)).all()
        return {(row.tenant, row.model): int(row.micros) for row in rows}

    def usage(self, tenant: str | None, since: float) -> tuple[UsageRow, ...]:
        # An hour that `since` falls into is told whole: the books keep no finer times.
        query = sa.select(USAGE).where(USAGE.c.hour > since - 3600).order_by(*USAGE.primary_key)
        if tenant is not None:
            query = query.where(USAGE.c.tenant == tenant)
        with self._reading.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(
            UsageRow(
                UsageKey(**{name: row[name] for name in UsageKey.__dataclass_fields__}),
                Usage(**{name: row[name] for name in Usage.__dataclass_fields__}),
            )
            for row in rows
        )

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction of the autoscaler that has begun the last epoch, or of a program that has begun none."""
        with self._engine.begin() as connection:
            if self._epoch is not None:
                self._refuse_replaced(connection, self._epoch, read=True)
            yield connection

    def _refuse_replaced(self, connection: Connection, epoch: int, read: bool) -> None:
        """Who begins a later epoch waits for this transaction, and reads what it has written.

        Args:
            read: others of the same epoch need not wait for it.
        """
        last = _newest(connection.execute(sa.select(EPOCH.c.epoch).with_for_update(read=read)))
        if epoch < last:
            raise FailedPrecondition(
                f"this autoscaler (epoch {epoch}) has been replaced: that of epoch {last} writes the database and "
                "keeps the books now; ask that one"
            )

    def _add_usage(self, connection: Connection, increments: Mapping[UsageKey, Usage]) -> None:
        # In one order everywhere: two writers of the same rows must not wait for each other in a circle.
        for key in sorted(increments, key=lambda k: (k.hour, k.tenant, k.model, k.shape, k.capacity_class)):
            insert = self._insert(USAGE).values(**_columns(key), **_columns(increments[key]))
            sums = {name: USAGE.c[name] + insert.excluded[name] for name in Usage.__dataclass_fields__}
            connection.execute(insert.on_conflict_do_update(index_elements=list(USAGE.primary_key), set_=sums))

    def _count(self, connection: Connection, table: sa.Table, counter: sa.Column[Any], **key: Any) -> int:
        """Adds one to a counter that begins at zero; returns the new value, which nobody else gets."""
        insert = self._insert(table).values({**key, counter.name: 1})
        counted = insert.on_conflict_do_update(
            index_elements=list(table.primary_key), set_={counter.name: counter + 1}
        ).returning(counter)
        return int(connection.execute(counted).scalar_one())


def _newest(epochs: sa.Result[Any]) -> int:
    return int(epochs.scalar_one_or_none() or 0)


def _row(revision: Revision) -> dict[str, Any]:
    return {
        "model": revision.model,
        "revision": revision.revision,
        "state": revision.state.value,
        "document": documents.REVISION.dump(revision),
    }


def _columns(record: UsageKey | Usage) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _is(model: str, revision: int) -> sa.ColumnElement[bool]:
    return sa.and_(REVISIONS.c.model == model, REVISIONS.c.revision == revision)


def _retire(connection: Connection, model: str) -> None:
    serving = sa.and_(REVISIONS.c.model == model, REVISIONS.c.state == RevisionState.SERVING.value)
    connection.execute(sa.update(REVISIONS).where(serving).values(state=RevisionState.RETIRING.value))


def _found(found: bool, model: str, revision: int) -> None:
    if not found:
        raise NotFound(f"model {model!r} has no revision {revision}")
