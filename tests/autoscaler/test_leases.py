"""How limits are divided among routers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace_autoscaler.core.leases import divide
from headrace_autoscaler.domain import Limits


def test_what_does_not_divide_evenly_goes_to_the_first() -> None:
    shares = divide(Limits(concurrency=5, requests_per_second=9.0), ("router-1", "router-0"), 2)
    assert (shares["router-0"].concurrency, shares["router-1"].concurrency) == (3, 2)
    assert (shares["router-0"].floor_concurrency, shares["router-0"].requests_per_second) == (2, 4.5)


def test_the_part_of_a_router_that_is_not_there_is_not_lent() -> None:
    assert divide(Limits(concurrency=4), ("router-0",), 2)["router-0"].concurrency == 2


def test_what_does_not_divide_evenly_stays_with_a_router_that_is_away() -> None:
    alone = divide(Limits(concurrency=5), ("router-1",), 2)
    assert alone["router-1"].concurrency == 2, "router-0 may still be using its three"
    assert list(alone) == ["router-1"]


def test_no_limit_stays_none() -> None:
    share = divide(Limits(), ("router-0",), 1)["router-0"]
    assert not share.limited
    assert share.concurrency is None


@given(
    concurrency=st.integers(0, 1000),
    rate=st.floats(0, 1e6),
    connected=st.sets(st.integers(0, 20).map(lambda n: f"router-{n}"), min_size=1),
    processes=st.integers(1, 20),
)
def test_shares_never_exceed_the_limit_and_floors_never_exceed_shares(
    concurrency: int, rate: float, connected: set[str], processes: int
) -> None:
    limits = Limits(concurrency=concurrency, requests_per_second=rate)
    shares = divide(limits, tuple(connected), processes).values()
    assert sum(share.concurrency or 0 for share in shares) <= concurrency
    assert sum(share.requests_per_second or 0 for share in shares) <= rate * (1 + 1e-9)
    assert all((share.floor_concurrency or 0) <= (share.concurrency or 0) for share in shares)
    if {f"router-{number}" for number in range(processes)} <= connected:
        assert sum(share.concurrency or 0 for share in shares) == concurrency
