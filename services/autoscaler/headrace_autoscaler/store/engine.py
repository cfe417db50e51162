"""Opens a database: connection settings per dialect, and migrations to the newest schema."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from headrace_common.errors import FailedPrecondition, InvalidArgument, Unavailable

BUSY_TIMEOUT_S = 10.0
_MIGRATION_LOCK = 0x4845_4144  # Any number, the same in every autoscaler on one PostgreSQL database.
_MIGRATIONS = Path(__file__).parent / "migrations"


def open_engine(url: str) -> Engine:
    """An engine whose database has the newest schema.

    Raises:
        InvalidArgument: the URL is not one of SQLite or PostgreSQL.
        FailedPrecondition: the database cannot be opened, or a newer headrace has written it.
    """
    parsed = _parse(url)
    engine = _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
    try:
        migrate(engine)
    except SQLAlchemyError as error:
        engine.dispose()
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        shown = parsed.render_as_string(hide_password=True)
        raise FailedPrecondition(f"database {shown}: cannot be opened: {reason}") from error
    except BaseException:
        engine.dispose()
        raise
    event.listen(engine, "handle_error", _explain)
    return engine


def _explain(context: ExceptionContext) -> None:
    """Whoever asked for something is told that the database is away, and not that we have failed."""
    if isinstance(context.sqlalchemy_exception, (OperationalError, InterfaceError)) and not context.is_pre_ping:
        reason = " ".join(str(context.original_exception).split())
        raise Unavailable(
            f"the mesh's database cannot be used now: {reason}; models go on serving, and this works again when the "
            "database does"
        ) from context.original_exception


def migrate(engine: Engine) -> None:
    """Upgrades to the newest schema, in one transaction; two autoscalers at once do it one after the other."""
    # Imported here: Alembic takes longer to import than everything else in the store.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        found = set(MigrationContext.configure(connection).get_current_heads())
        if found - known:
            raise FailedPrecondition(
                f"database {engine.url.render_as_string(hide_password=True)}: a newer headrace wrote it (schema "
                f"{', '.join(sorted(found - known))}, this one knows up to {max(known)}); run that version, or name "
                "another state directory or database"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        driver = parsed.get_driver_name()
    except (ArgumentError, NoSuchModuleError):
        parsed, backend, driver = None, "", ""
    if parsed is not None and backend == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    if parsed is not None and backend == "postgresql" and (parsed.drivername == "postgresql" or driver == "psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise InvalidArgument(
        "autoscaler.database_url: expected sqlite:////PATH or postgresql://USER@HOST/DATABASE, or empty for SQLite in "
        "the state directory"
    )


def _sqlite(url: URL) -> Engine:
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def settle(connection: sqlite3.Connection, _record: Any) -> None:
        # Transactions are begun by us, below: the driver would begin one only at the first write, too late
        # for a read that the write depends on.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("headrace_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    try:
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except ModuleNotFoundError:
        raise FailedPrecondition(
            "autoscaler.database_url: PostgreSQL needs the package psycopg: pip install 'headrace[postgres]'"
        ) from None


def reading(engine: Engine) -> Engine:
    """The same database, for transactions that only read and see one state throughout."""
    options: dict[str, Any] = {"headrace_read_only": True}
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    return engine.execution_options(**options)
