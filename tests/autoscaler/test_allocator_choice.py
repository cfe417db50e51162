"""Which way, on which kind of node, and how many: by hand, and against trying everything."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.allocator import CapacityClass, Demand, Kind, Way
from headrace_autoscaler.core.allocator.choice import Choice, Market, cost, mix, serves, sustained
from headrace_autoscaler.domain import Resources
from tests.autoscaler.allocation import GIB, LARGE, ONE, SPOT, T4, TWO, V100, XLARGE, demand

PROFILE = ((1, 10_000), (2, 12_000), (8, 30_000), (32, 160_000))


@pytest.mark.parametrize(
    ("slo_s", "expected"),
    [
        pytest.param(None, (8e6 / 30_000, 8), id="no objective: the best rate"),
        pytest.param(0.1, (8e6 / 30_000, 8), id="the objective leaves time for it"),
        pytest.param(0.05, (2e6 / 12_000, 2), id="a batch takes half of the objective at most"),
        pytest.param(0.015, (100.0, 1), id="too tight for any: one row at a time"),
    ],
)
def test_what_an_instance_sustains_under_an_objective(slo_s: float | None, expected: tuple[float, int]) -> None:
    assert sustained(PROFILE, slo_s) == expected


def chosen(wanted: Demand, *kinds: Kind) -> list[tuple[str, str, int]]:
    counted = mix(Market(kinds).choices(wanted), wanted.rate, wanted.minimum, wanted.maximum)
    return sorted((choice.way.name, choice.kind.shape, count) for choice, count in counted.items())


@pytest.mark.parametrize(
    ("wanted", "kinds", "expected"),
    [
        pytest.param(demand("m", 250), (XLARGE,), [("1 thread", "c5.xlarge", 3)], id="as many as serve it"),
        pytest.param(
            demand("m", 150, ways=(ONE, replace(TWO, profile_us=((1, 4_000),)))),
            (XLARGE,),
            [("2 threads", "c5.xlarge", 1)],
            id="vertical where more threads are cheaper than another instance",
        ),
        pytest.param(
            demand("m", 290, ways=(ONE, TWO)),
            (XLARGE,),
            [("1 thread", "c5.xlarge", 3)],
            id="horizontal where threads scale badly",
        ),
        pytest.param(demand("m", 90, tolerates_spot=True), (XLARGE, SPOT), [("1 thread", "c5.xlarge", 1)], id="spot"),
        pytest.param(demand("m", 0, minimum=2), (XLARGE,), [("1 thread", "c5.xlarge", 2)], id="the minimum"),
        pytest.param(demand("m", 900, maximum=4), (XLARGE,), [("1 thread", "c5.xlarge", 4)], id="the maximum"),
        pytest.param(demand("m", 0), (XLARGE,), [], id="nothing for nothing"),
        pytest.param(
            demand("m", 50, ways=(replace(ONE, profile_us=()),)), (XLARGE,), [("1 thread", "c5.xlarge", 1)],
            id="what was never measured: one, until it has been",
        ),
    ],
)  # fmt: skip
def test_the_cheapest_that_serves(
    wanted: Demand, kinds: tuple[Kind, ...], expected: list[tuple[str, str, int]]
) -> None:
    assert chosen(wanted, *kinds) == expected


def test_spot_is_for_those_who_tolerate_it() -> None:
    assert {each.kind.capacity_class for each in Market([XLARGE, SPOT]).choices(demand("m", 1))} == {
        CapacityClass.ON_DEMAND
    }


GPU = Way("gpu", Resources(1000, GIB, 500, 4 * GIB), ((1, 1000),))


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt_rtx"])
def test_a_tensorrt_model_never_goes_to_a_v100(engine: str) -> None:
    wanted = demand("m", 10, ways=(GPU,), engine=engine)
    assert [each.kind.architecture for each in Market([V100, T4]).choices(wanted)] == ["sm_75"]
    assert not Market([V100]).choices(wanted)
    assert f"{engine} does not support sm_70" in Market([V100]).why_none(wanted)


def test_other_engines_may_use_a_v100() -> None:
    assert Market([V100]).choices(demand("m", 10, ways=(GPU,), engine="onnxruntime"))


def test_an_engine_built_for_an_architecture_runs_only_there() -> None:
    wanted = demand("m", 10, ways=(GPU,), engine="tensorrt", architectures=("sm_86",))
    assert "its engine was built for sm_86 and this is sm_75" in Market([T4]).why_none(wanted)


def test_what_was_measured_on_one_shape_says_nothing_of_another() -> None:
    wanted = demand("m", 10, ways=(replace(ONE, shape="c5.large"),))
    assert [each.kind.shape for each in Market([LARGE, XLARGE]).choices(wanted)] == ["c5.large"]


def test_ways_that_cannot_meet_the_objective_are_for_when_none_can() -> None:
    slow = replace(ONE, profile_us=((1, 300_000),))
    assert [each.way for each in Market([XLARGE]).choices(demand("m", 1, ways=(slow, TWO), slo_s=0.1))] == [TWO]
    assert [each.way for each in Market([XLARGE]).choices(demand("m", 1, ways=(slow,), slo_s=0.1))] == [slow]


def cheapest(found: list[Choice], rate: float, minimum: int) -> int:
    """Tries everything: the cost of the cheapest that serves it."""
    best = math.inf
    most = [max(minimum, math.ceil(rate / each.rate)) for each in found]
    for counts in itertools.product(*(range(count + 1) for count in most)):
        served = sum(count * each.rate for count, each in zip(counts, found, strict=True))
        if served >= rate - 1e-9 and sum(counts) >= minimum:
            best = min(best, sum(count * each.micros_per_hour for count, each in zip(counts, found, strict=True)))
    return int(best)


OFFERS = st.lists(st.tuples(st.integers(10, 100), st.integers(1, 100)), min_size=1, max_size=3)


@given(OFFERS, st.integers(1, 300), st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_it_costs_at_most_one_instance_more_than_the_cheapest_and_two_with_a_minimum(
    offers: list[tuple[int, int]], rate: int, minimum: int
) -> None:
    found = [
        Choice(Way(str(number), Resources()), LARGE, float(each), 1, price)
        for number, (each, price) in enumerate(offers)
    ]
    found.sort(key=lambda choice: choice.order)
    counted = mix(found, float(rate), minimum, None)
    assert serves(counted) >= rate - 1e-6
    assert counted.total() >= minimum
    dearest = max(each.micros_per_hour for each in found)
    slack = dearest if minimum <= 1 else 2 * dearest
    assert cheapest(found, float(rate), minimum) <= cost(counted) <= cheapest(found, float(rate), minimum) + slack
