"""One suite for every store: tenants, usage and money."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from headrace_autoscaler.domain import (
    Limits,
    Posting,
    Tenant,
    Usage,
    UsageKey,
)
from headrace_autoscaler.store import SqlStore
from headrace_autoscaler.store.engine import open_engine
from headrace_autoscaler.store.tables import USAGE
from headrace_common.errors import FailedPrecondition


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
        connection.execute(sa.text("DROP TABLE promised_limits"))
        for column in USAGE.columns:
            if column.server_default is not None:
                connection.execute(sa.text(f"ALTER TABLE usage DROP COLUMN {column.name}"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    (row,) = open_store().usage(None, 0.0)
    assert row.usage == Usage(10.0, 2.0, 5, 1, 700)
