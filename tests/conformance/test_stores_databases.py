"""One suite for every store: kill -9, migrations, and databases that are not to be opened."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace_autoscaler.domain import Tenant
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_autoscaler.store.engine import open_engine
from headrace_autoscaler.store.tables import METADATA
from headrace_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from tests.conformance.conftest import Postgres

_COMMITS = """
import sys
from headrace_autoscaler.domain import ModelSpec
from headrace_autoscaler.store import SqlStore
store = SqlStore.open(sys.argv[1])
print(store.begin_epoch(), flush=True)
for number in range(1_000_000):
    store.put_model(ModelSpec(name=f"m{number:06}"), 1.0)
    print(number, flush=True)
"""


def test_what_was_committed_survives_kill_9(url: str, open_store: Callable[[], SqlStore]) -> None:
    process = subprocess.Popen([sys.executable, "-c", _COMMITS, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = [process.stdout.readline().strip() for _ in range(6)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.read().split()
    assert process.wait(10) == -signal.SIGKILL
    acknowledged = {f"m{int(number):06}" for number in seen[1:]}
    store = open_store()
    names = {model.spec.name for model in store.models()}
    assert acknowledged <= names
    assert len(names - acknowledged) <= 1, "at most the one that was committed and not told of"
    assert store.begin_epoch() == 2


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    engine = open_engine(url)
    try:
        found = sa.MetaData()
        found.reflect(engine)
        assert set(found.tables) == {*METADATA.tables, "alembic_version"}
        for name, table in METADATA.tables.items():
            made = {column.name: (column.nullable, column.primary_key) for column in found.tables[name].columns}
            assert made == {column.name: (column.nullable, column.primary_key) for column in table.columns}, name
    finally:
        engine.dispose()


def test_a_database_of_a_newer_version_is_refused_untouched(url: str, open_store: Callable[[], SqlStore]) -> None:
    open_store().begin_epoch()
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(FailedPrecondition, match="a newer headrace wrote it"):
        SqlStore.open(url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT epoch FROM epoch")).scalar() == 1
    engine.dispose()


def test_stores_that_open_a_new_database_at_once_migrate_it_once(url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: SqlStore.open(url), range(4)))
    assert sorted(store.begin_epoch() for store in stores) == [1, 2, 3, 4]
    for store in stores:
        store.close()


def test_a_sqlite_file_is_in_wal_mode(tmp_path: Path) -> None:
    SqlStore.open(sqlite_url(tmp_path / "0.db")).close()
    with sqlite3.connect(tmp_path / "0.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_database_that_goes_away_is_told_as_that_and_used_again_when_it_is_back(postgres: Postgres) -> None:
    store = SqlStore.open(postgres.database())
    store.put_tenant(Tenant("acme"))
    postgres.take_away()
    for use in (store.tenants, store.begin_epoch, lambda: store.put_tenant(Tenant("globex"))):
        with pytest.raises(Unavailable, match=r"^the mesh's database cannot be used now: .*; models go on serving"):
            use()
    postgres.bring_back()
    assert [each.name for each in store.tenants()] == ["acme"]
    assert store.begin_epoch() == 1
    store.close()


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "postgresql+asyncpg://h/d"],
    ids=["empty", "not a URL", "another database", "no file", "in memory", "another driver"],
)
def test_urls_of_anything_else_are_refused(url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"autoscaler\.database_url: expected sqlite"):
        SqlStore.open(url)


def test_a_database_that_cannot_be_opened_is_told_in_one_line_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"^database .*: cannot be opened: ") as refused:
        SqlStore.open(f"postgresql://u:hunter2@/d?host={tmp_path}")
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(FailedPrecondition, match="unable to open database file"):
        SqlStore.open(sqlite_url(tmp_path / "missing" / "headrace.db"))
