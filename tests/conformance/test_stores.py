"""One suite for every store: SQLite and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from headrace_autoscaler.core.jobs import Job, JobState, Optimization, Variant, VariantTiming
from headrace_autoscaler.domain import (
    Batching,
    DeployFailure,
    Limits,
    Loaded,
    ModelFile,
    ModelSpec,
    Posting,
    Resources,
    Revision,
    RevisionState,
    Signature,
    Tenant,
    TensorSpec,
    Usage,
    UsageKey,
    Warmup,
    WarmupTensor,
)
from headrace_autoscaler.store import SqlStore, sqlite_url
from headrace_autoscaler.store.engine import open_engine
from headrace_autoscaler.store.tables import METADATA, USAGE
from headrace_common.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied

SPEC = ModelSpec(
    name="ocr",
    tenant="acme",
    min_instances=1,
    max_instances=7,
    idle_timeout_s=12.5,
    slo_s=0.1,
    max_batch_size=8,
    resources=Resources(500, 2 << 30),
    limits=Limits(
        concurrency=3, requests_per_second=1.5, queue_length=4, queue_bytes=5, budget_micros_per_hour=1_500_000
    ),
    instance_concurrency=6,
    shared_with=("*",),
    engine="onnxruntime",
    engine_options=(("intra_op_threads", "1"),),
    response_cache=True,
    cache_shared=True,
    cache_ttl_s=90.0,
    source="s3://bucket/ocr",
)
LOADED = Loaded(
    Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "BYTES", (-1,), optional=True),), batchable=True),
    max_batch_size=8,
    batching="batchable: the probe of two rows agreed",
    platform="onnxruntime_onnx",
    resident_bytes=123,
    profile_us=((1, 100), (8, 300)),
)
JOB = Job(
    model="ocr",
    artifact="a" * 64,
    entry_point="1/model.onnx",
    samples="c" * 64,
    optimization=Optimization("digit", 0.95, 0.02, ("fp32", "int8"), (0.3,), keep_original=True),
    state=JobState.DONE,
    reason="the cheapest",
    created_at=1000.5,
    started_at=1001.25,
    ended_at=1002.0,
    attempts=2,
    chosen="int8",
    served="d" * 64,
    found=True,
    variants=(
        Variant("original", "as it was", "fits", "", 100, "accuracy", 1.0, 0.9, 1.0, 50, 0.5, artifact="a" * 64),
        Variant(
            name="int8",
            what="QDQ",
            verdict="fits",
            reason="",
            size_bytes=30,
            quality="accuracy",
            share=0.98,
            lower=0.95,
            upper=0.99,
            samples=50,
            cpu_s_per_row=0.1,
            timings=(VariantTiming(1, 0.1, 10.0), VariantTiming(8, 0.5, 16.0)),
            on_front=True,
            engines=("onnxruntime",),
            artifact="d" * 64,
        ),
    ),
)
REVISION = Revision(
    model="ocr",
    revision=0,
    version="1",
    state=RevisionState.LOADING,
    artifact="a" * 64,
    files=(ModelFile("model.onnx", "b" * 64, 10),),
    entry_point="model.onnx",
    engine="onnxruntime",
    batching=Batching(preferred_batch_sizes=(4, 8), max_queue_delay_us=100),
    warmup=(Warmup("w", 2, (WarmupTensor("x", "FP32", (2, 3), bytes(range(24))),)),),
    model_config=b"\xff\xfe\x00",
    deployed_at=1000.5,
)


class Postgres:
    """A real server in a directory of its own, on a unix socket."""

    def __init__(self, programs: Path) -> None:
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._programs = programs
        self.directory = Path(tempfile.mkdtemp(prefix="hr-pg-"))
        if self._user:
            shutil.chown(self.directory, self._user)
        self._run("initdb", "-D", "data", "-U", "headrace", "-A", "trust", "--no-sync")
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", f"-k {self.directory} -h '' -F", "start")
        self._databases = 0

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"d{self._databases}"
        self._run("createdb", "-h", str(self.directory), "-U", "headrace", name)
        return f"postgresql://headrace@/{name}?host={self.directory}"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, *arguments],
            cwd=self.directory,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=60,
        )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    programs = found[-1].parent if found else Path(on_path).parent if on_path else None
    if programs is None:
        reason = "PostgreSQL is not installed (initdb not found)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    server = Postgres(programs)
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "headrace.db")
    return request.getfixturevalue("postgres").database()


@pytest.fixture
def open_store(url: str) -> Iterator[Callable[[], SqlStore]]:
    stores: list[SqlStore] = []

    def opened() -> SqlStore:
        stores.append(SqlStore.open(url))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], SqlStore]) -> SqlStore:
    return open_store()


def test_epochs_only_rise_across_stores(open_store: Callable[[], SqlStore]) -> None:
    assert [open_store().begin_epoch() for _ in range(4)] == [1, 2, 3, 4]


def test_a_model_and_its_revision_come_back_whole(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    store.put_model(SPEC, 10.0)
    added = store.add_revision(REVISION)
    store.update_revision(replace(added, loaded=LOADED))
    (model,) = open_store().models()
    assert model.spec == SPEC
    assert model.created_at == 10.0
    assert not model.deleting
    assert model.revisions == (replace(REVISION, revision=1, loaded=LOADED),)


def test_putting_a_model_again_replaces_its_spec_and_keeps_the_rest(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.put_model(replace(SPEC, min_instances=0), 20.0)
    (model,) = store.models()
    assert (model.spec.min_instances, model.created_at, len(model.revisions)) == (0, 10.0, 1)


def test_the_owner_of_a_model_never_changes(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    with pytest.raises(PermissionDenied, match="'ocr' belongs to another tenant"):
        store.put_model(replace(SPEC, tenant="globex"), 20.0)
    assert store.models()[0].spec.tenant == "acme"


def test_revision_numbers_are_never_used_twice(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    assert store.add_revision(REVISION).revision == 1
    assert store.add_revision(REVISION).revision == 2
    store.remove_revision("ocr", 2)
    assert store.add_revision(REVISION).revision == 3, "after a revision was removed"
    store.remove_model("ocr")
    assert store.models() == ()
    store.put_model(replace(SPEC, tenant="globex"), 20.0)
    assert store.add_revision(REVISION).revision == 4, "after the model was removed and made anew"
    store.put_model(replace(SPEC, name="other"), 20.0)
    assert store.add_revision(replace(REVISION, model="other")).revision == 1


def test_revision_numbers_are_not_lost_to_a_refused_revision(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no model 'ocr'"):
        store.add_revision(REVISION)
    store.put_model(SPEC, 10.0)
    assert store.add_revision(REVISION).revision == 1


def test_stores_that_add_at_once_get_distinct_numbers(open_store: Callable[[], SqlStore]) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].put_model(SPEC, 10.0)
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda i: stores[i % 4].add_revision(REVISION).revision, range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_activation_swaps_all_at_once_and_takes_the_spec_along(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    for _ in range(4):
        store.add_revision(REVISION)
    store.activate_revisions("ocr", [1, 2])
    store.activate_revisions("ocr", [2, 3], replace(SPEC, min_instances=0))
    (model,) = store.models()
    assert [revision.state.value for revision in model.revisions] == ["retiring", "serving", "serving", "loading"]
    assert model.spec.min_instances == 0
    assert model.current is not None
    assert model.current.revision == 3


def test_activation_of_an_unknown_revision_changes_nothing(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.activate_revisions("ocr", [1])
    with pytest.raises(NotFound, match="'ocr' has no revision 9"):
        store.activate_revisions("ocr", [9])
    assert store.models()[0].revisions[0].state is RevisionState.SERVING


def test_updating_an_unknown_revision_is_refused(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    with pytest.raises(NotFound, match="'ocr' has no revision 5"):
        store.update_revision(replace(REVISION, revision=5))


def test_deletion_retires_what_serves_and_survives_a_new_spec(store: SqlStore) -> None:
    store.put_model(SPEC, 10.0)
    store.add_revision(REVISION)
    store.activate_revisions("ocr", [1])
    store.mark_deleting("ocr")
    (model,) = store.models()
    assert model.deleting
    assert model.revisions[0].state is RevisionState.RETIRING
    with pytest.raises(NotFound, match="no model 'nobody'"):
        store.mark_deleting("nobody")


def test_failures_outlive_and_precede_models(store: SqlStore) -> None:
    store.record_failure("ocr", DeployFailure(1.0, "first"))
    store.record_failure("ocr", DeployFailure(2.0, "second"))
    store.record_failure("other", DeployFailure(3.0, "x"))
    assert store.failures() == {"ocr": DeployFailure(2.0, "second"), "other": DeployFailure(3.0, "x")}
    store.clear_failure("ocr")
    store.clear_failure("ocr")
    assert set(store.failures()) == {"other"}


def test_a_job_comes_back_whole_is_replaced_and_goes_with_its_model(open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    store.put_model(SPEC, 10.0)
    store.put_model(replace(SPEC, name="other"), 10.0)
    store.put_job(JOB)
    store.put_job(replace(JOB, model="other", state=JobState.QUEUED))
    assert open_store().jobs() == (JOB, replace(JOB, model="other", state=JobState.QUEUED))
    failed = replace(JOB, state=JobState.FAILED, reason="a lack of memory", variants=())
    store.put_job(failed)
    assert store.jobs()[0] == failed
    store.remove_job("other")
    store.remove_job("other")
    assert store.jobs() == (failed,)
    store.remove_model("ocr")
    assert store.jobs() == ()


def test_a_job_of_no_model_is_refused(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="no model 'ocr'"):
        store.put_job(JOB)
    assert store.jobs() == ()


def test_models_from_before_jobs_are_kept(url: str, open_store: Callable[[], SqlStore]) -> None:
    open_store().put_model(SPEC, 10.0)
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE jobs"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    engine.dispose()
    store = open_store()
    assert [model.spec for model in store.models()] == [SPEC]
    store.put_job(JOB)
    assert store.jobs() == (JOB,)


def test_tenants_are_put_replaced_and_removed(store: SqlStore) -> None:
    acme = Tenant(
        "acme", nominal=Limits(cpu_millicores=2000, requests_per_second=0.5), cohort="c", weight=2.5, created_at=5.0
    )
    store.put_tenant(acme)
    store.put_tenant(Tenant("globex"))
    store.put_tenant(replace(acme, refuse_at_budget=False))
    assert store.tenants() == (replace(acme, refuse_at_budget=False), Tenant("globex"))
    store.remove_tenant("acme")
    assert store.tenants() == (Tenant("globex"),)


def test_usage_adds_up_by_hour_tenant_model_shape_and_class(store: SqlStore) -> None:
    key = UsageKey(7200, "acme", "ocr", "1cpu", "on_demand")
    later = replace(key, hour=10800)
    globex = replace(key, tenant="globex")
    store.post(Posting(1, 1, {key: Usage(10.0, 2.0, 5, 1, 700), globex: Usage(1.0)}, 0))
    store.post(Posting(1, 2, {key: Usage(0.5, 0.25, 2, 0, 2**40), later: Usage(requests=1)}, 0))
    rows = {row.key: row.usage for row in store.usage("acme", 0.0)}
    assert rows == {key: Usage(10.5, 2.25, 7, 1, 700 + 2**40), later: Usage(requests=1)}
    assert len(store.usage(None, 0.0)) == 3
    assert [row.key for row in store.usage("acme", 10800.0)] == [later]
    assert len(store.usage("acme", 10799.0)) == 2, "the hour that `since` falls into counts"
    assert store.usage("nobody", 0.0) == ()


def test_usage_of_many_writers_adds_up(open_store: Callable[[], SqlStore]) -> None:
    stores = [open_store() for _ in range(3)]
    keys = [UsageKey(3600, "t", f"m{i}", "s", "spot") for i in range(5)]
    orders = (keys, keys[::-1])
    with ThreadPoolExecutor(6) as threads:
        writes = [
            threads.submit(stores[i % 3].post, Posting(1, i, dict.fromkeys(orders[i % 2], Usage(requests=1)), 0))
            for i in range(24)
        ]
        for write in writes:
            write.result()
    assert {row.usage.requests for row in stores[0].usage(None, 0.0)} == {24}


def test_a_posting_is_booked_once_and_only_from_who_keeps_the_books(store: SqlStore) -> None:
    key = UsageKey(7200, "acme", "ocr", "1cpu", "on_demand")
    more = Usage(1.0, 0.5, 1, 0, 7, network_bytes=1, storage_byte_seconds=2, cache_byte_seconds=3, network_micros=4,
                 storage_micros=1, cache_micros=1, management_micros=1)  # fmt: skip
    assert store.booked_until_us() is None
    first, second = store.begin_epoch(), Posting(1, 2, {key: more}, 2_000_000)
    store.post(Posting(first, 1, {key: more}, 1_000_000))
    store.post(second)
    store.post(second)
    assert store.booked_until_us() == 2_000_000
    (row,) = store.usage(None, 0.0)
    assert row.usage == Usage(**{name: 2 * getattr(more, name) for name in Usage.__dataclass_fields__})
    later = store.begin_epoch()
    with pytest.raises(FailedPrecondition, match=f"epoch {later}"):
        store.post(Posting(first, 3, {key: more}, 3_000_000))
    assert store.booked_until_us() == 2_000_000
    store.post(Posting(later, 1, {}, 4_000_000))
    assert store.booked_until_us() == 4_000_000
    store.post(Posting(later, 2, {}, 3_000_000))
    assert store.booked_until_us() == 3_000_000, "the clock was set back: the last posting says how far the books go"


def test_money_is_summed_by_tenant_and_model_since_an_hour(store: SqlStore) -> None:
    keys = [UsageKey(hour, "acme", model, shape, "c") for hour in (3600, 7200) for model in "mn" for shape in ("", "s")]
    store.post(Posting(1, 1, {key: Usage(cost_micros=10) for key in keys}, 0))
    assert store.spent(3600) == {("acme", "m"): 40, ("acme", "n"): 40}
    assert store.spent(7200) == {("acme", "m"): 20, ("acme", "n"): 20}
    assert store.spent(10_800) == {}


def test_usage_from_before_the_extra_costs_is_kept(url: str, open_store: Callable[[], SqlStore]) -> None:
    store = open_store()
    key = UsageKey(7200, "acme", "ocr", "1cpu", "on_demand")
    store.post(Posting(1, 1, {key: Usage(10.0, 2.0, 5, 1, 700)}, 0))
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE ledger"))
        connection.execute(sa.text("DROP TABLE jobs"))
        for column in USAGE.columns:
            if column.server_default is not None:
                connection.execute(sa.text(f"ALTER TABLE usage DROP COLUMN {column.name}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    (row,) = open_store().usage(None, 0.0)
    assert row.usage == Usage(10.0, 2.0, 5, 1, 700)


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


def test_a_fresh_sqlite_file_opens_fast_and_in_wal_mode(tmp_path: Path) -> None:
    took = []
    for attempt in range(3):
        began = time.monotonic()
        SqlStore.open(sqlite_url(tmp_path / f"{attempt}.db")).close()
        took.append(time.monotonic() - began)
    assert min(took) < 0.5
    with sqlite3.connect(tmp_path / "0.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


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
