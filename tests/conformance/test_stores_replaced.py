"""Every store, when a second autoscaler takes over while the first lives on: nothing twice, and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace_autoscaler.core.pricing import LocalPrices
from headrace_autoscaler.core.rates import FREE
from headrace_autoscaler.domain import (
    DeployFailure,
    ModelFile,
    ModelSpec,
    Posting,
    Resources,
    Revision,
    RevisionState,
    Tenant,
)
from headrace_autoscaler.fleet.books import Books, Opening
from headrace_autoscaler.fleet.runners import Assignment, Runner, RunnerState
from headrace_autoscaler.store import SqlStore
from headrace_common.clock import FakeClock
from headrace_common.errors import FailedPrecondition

OpenStore = Callable[[], SqlStore]
REVISION = Revision("ocr", 1, "1", RevisionState.SERVING, "artifact", (ModelFile("m.onnx", "a" * 64, 1),), "m", "fake")
WRITES: dict[str, Callable[[SqlStore], object]] = {
    "a model's spec": lambda store: store.put_model(ModelSpec("ocr", max_instances=9), 0.0),
    "a revision": lambda store: store.add_revision(REVISION),
    "what a revision is": lambda store: store.update_revision(REVISION),
    "which revision serves": lambda store: store.activate_revisions("ocr", [1]),
    "a revision's end": lambda store: store.remove_revision("ocr", 1),
    "a model that is being deleted": lambda store: store.mark_deleting("ocr"),
    "a model's end": lambda store: store.remove_model("ocr"),
    "a failed deploy": lambda store: store.record_failure("ocr", DeployFailure(1.0, "no")),
    "that it is over": lambda store: store.clear_failure("ocr"),
    "a job's end": lambda store: store.remove_job("ocr"),
    "a tenant": lambda store: store.put_tenant(Tenant("acme")),
    "a tenant's end": lambda store: store.remove_tenant("globex"),
}


def stand(store: SqlStore) -> object:
    return store.models(), store.tenants(), store.failures(), store.jobs()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_who_was_replaced_writes_nothing_any_more(open_store: OpenStore, write: Callable[[SqlStore], object]) -> None:
    """The successor has read what stands, and would never see it."""
    first, second = open_store(), open_store()
    first.begin_epoch()
    first.put_model(ModelSpec("ocr"), 0.0)
    first.add_revision(REVISION)
    first.put_tenant(Tenant("globex"))
    later = second.begin_epoch()
    before = stand(second)
    with pytest.raises(FailedPrecondition, match=f"that of epoch {later} writes the database"):
        write(first)
    assert stand(second) == stand(first) == before
    write(second)


def test_whatever_was_written_before_the_successor_began_is_what_it_reads(open_store: OpenStore) -> None:
    """Writers race it. What it does not find was refused."""
    first, second = open_store(), open_store()
    first.begin_epoch()

    def write(number: int) -> str:
        try:
            first.put_tenant(Tenant(f"t{number}"))
        except FailedPrecondition:
            return ""
        return f"t{number}"

    with ThreadPoolExecutor(4) as threads:
        writes = [threads.submit(write, number) for number in range(40)]
        writes[3].result()
        second.begin_epoch()
        found = {tenant.name for tenant in second.tenants()}
        assert {name for each in writes if (name := each.result())} == found
    assert {tenant.name for tenant in second.tenants()} == found


class Keeper:
    """Books over a store, as a process of its own would keep them."""

    def __init__(self, store: SqlStore, clock: FakeClock) -> None:
        self.replaced = 0
        epoch = store.begin_epoch()
        opening = Opening.read(store, clock.wall())

        async def post(posting: Posting) -> None:
            await asyncio.to_thread(store.post, posting)

        prices = LocalPrices.parse("0.0425", "USD")
        self.books = Books(prices, FREE, post, clock, epoch, opening, self._was_replaced)
        since_us = self.books.adopted_from_us(None)
        held = Assignment("ocr", 1, "1", "acme", Resources())
        self.runner = Runner("runner-a", "", 1, 0.0, 0.0, since_us, RunnerState.READY, assignment=held)

    def _was_replaced(self) -> None:
        self.replaced += 1

    async def flush(self) -> bool:
        return await self.books.flush([self.runner], [])


async def test_time_is_booked_once_while_two_keep_the_books(open_store: OpenStore) -> None:
    clock, store = FakeClock(), open_store()
    first = Keeper(store, clock)
    clock.advance(10.0)
    assert await first.flush()
    clock.advance(0.5)
    second = Keeper(open_store(), clock)
    clock.advance(0.5)
    assert not await first.flush(), "the second books from where the books end"
    assert first.replaced == 1, "so the first ends, and its routers go to the second"
    clock.advance(1.0)
    assert await second.flush()
    assert not await first.flush()
    assert (first.replaced, second.replaced) == (1, 0)
    assert sum(row.usage.instance_seconds for row in store.usage("acme", 0.0)) == pytest.approx(12.0)


async def test_a_posting_whose_answer_was_lost_is_booked_once_by_whoever_comes(open_store: OpenStore) -> None:
    clock, store = FakeClock(), open_store()
    first = Keeper(store, clock)
    clock.advance(4.0)
    written, post = [], store.post

    def lose(posting: Posting) -> None:
        post(posting)
        written.append(posting)
        raise ConnectionError("the answer was lost")

    store.post = lose  # type: ignore[method-assign]
    assert not await first.flush()
    store.post = post  # type: ignore[method-assign]
    assert written
    second = Keeper(open_store(), clock)
    clock.advance(2.0)
    assert not await first.flush()
    assert first.replaced == 1
    assert await second.flush()
    assert sum(row.usage.instance_seconds for row in store.usage("acme", 0.0)) == pytest.approx(6.0)
