"""Lease books of tenants that lend, and routers that hear and obey."""

from __future__ import annotations

from hypothesis import strategies as st

from headrace_autoscaler.core.leases import LeaseBook
from headrace_autoscaler.core.quota import quota_of
from headrace_autoscaler.domain import Limits, Tenant
from tests.autoscaler.lease_mesh import TTL_S

LENT = ("concurrency", "requests_per_second")


def tenant(name: str, concurrency: int | None = None, rate: float | None = None, **rest: object) -> Tenant:
    return Tenant(name, Limits(concurrency=concurrency, requests_per_second=rate), cohort="c", **rest)  # type: ignore[arg-type]


def book_of(tenants: list[Tenant], routers: int = 1, held_until: float = 0.0) -> LeaseBook:
    book = LeaseBook(routers, TTL_S, held_until)
    set_tenants(book, tenants)
    return book


def set_tenants(book: LeaseBook, tenants: list[Tenant]) -> None:
    book.set_limits({each.name: each.nominal for each in tenants}, [quota_of(each) for each in tenants])


def settle(book: LeaseBook, now: float = 0.0) -> dict[str, Limits]:
    """Everybody hears and obeys until nothing moves. What each tenant has in all."""
    for _ in range(3):
        shares = {}
        for router in book.routers:
            serial, shares[router] = book.issue(router, list(book._pools), now, now)
            book.applied(router, serial)
    assert not any(book.moves(book.routers, now).values()), "steady demand moves nothing"
    return {
        key: Limits(
            **{
                name: None if getattr(shares["router-0"][key].limits, name) is None
                else sum(getattr(share[key].limits, name) for share in shares.values())
                for name in LENT
            }
        )
        for key in shares["router-0"]
    }  # fmt: skip


def parts_of(book: LeaseBook, router: str, now: float) -> dict[str, int | None]:
    serial, shares = book.issue(router, list(book._pools), now, now)
    book.applied(router, serial)
    return {key: share.limits.concurrency for key, share in shares.items()}


units = st.integers(0, 30)
