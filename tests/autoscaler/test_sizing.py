"""Which shape, and how many: tables by hand."""

from __future__ import annotations

import pytest

from headrace_autoscaler.core.sizing import options, rate_of, shapes, ways
from headrace_autoscaler.domain import Resources, ShapeProfile

GIB = 1 << 30
ONE, TWO, FOUR = (Resources(cpus * 1000, GIB) for cpus in (1, 2, 4))
NEAR_TWICE = {ONE: 10_000, TWO: 5_500, FOUR: 3_200}
"""Microseconds of one row: 100, 182 and 312 rows per second."""


def price(resources: Resources) -> int:
    return resources.cpu_millicores


def chosen(
    times_us: dict[Resources, int], rate: float, slo_s: float | None = None, minimum: int = 0,
    maximum: int | None = None, most: dict[Resources, int] | None = None,
) -> tuple[int, int]:  # fmt: skip
    """(CPUs of an instance, instances) of the best option."""
    profiles = [ShapeProfile(shape, ((1, micros),)) for shape, micros in times_us.items()]
    found = options(
        ways((ONE, TWO, FOUR), profiles), slo_s, rate, (minimum, maximum), price,
        lambda shape, count: min(count, (most or {}).get(shape, count)),
    )  # fmt: skip
    return found[0].resources.cpu_millicores // 1000, found[0].count


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        pytest.param(1000, None, [1000], id="no range"),
        pytest.param(1000, 1000, [1000], id="a range of one"),
        pytest.param(1000, 8000, [1000, 2000, 4000, 8000], id="doubled each time"),
        pytest.param(500, 3000, [500, 1000, 2000, 3000], id="and the most"),
    ],
)
def test_the_shapes_of_a_range_are_few(least: int, most: int | None, expected: list[int]) -> None:
    assert [each.cpu_millicores for each in shapes(Resources(least, GIB), most)] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"rate": 90}, (1, 1), id="a small one is enough"),
        pytest.param({"rate": 150}, (2, 1), id="at the same price fewer instances"),
        pytest.param({"rate": 190}, (1, 2), id="threads that do not scale cost more than another instance"),
        pytest.param({"rate": 190, "maximum": 1}, (4, 1), id="a larger one where there may be only one"),
        pytest.param({"rate": 900, "maximum": 2}, (4, 2), id="what serves most where nothing serves all"),
        pytest.param({"rate": 50, "slo_s": 0.009}, (2, 1), id="what meets the objective"),
        pytest.param({"rate": 50, "slo_s": 0.001}, (1, 1), id="the cheapest where none meets it"),
        pytest.param({"rate": 0, "minimum": 2}, (1, 2), id="the minimum in small ones"),
        pytest.param({"rate": 190, "most": {ONE: 1, TWO: 1}}, (4, 1), id="what has room"),
        pytest.param({"rate": 150, "most": {TWO: 0, FOUR: 0}}, (1, 2), id="nothing that has none"),
    ],
)
def test_the_best_shape(arguments: dict[str, object], expected: tuple[int, int]) -> None:
    assert chosen(NEAR_TWICE, **arguments) == expected  # type: ignore[arg-type]


def test_what_was_not_measured_is_no_choice() -> None:
    assert chosen({ONE: 10_000}, 190, maximum=1) == (1, 1)
    assert options(ways((ONE, TWO), []), None, 10, (0, None), price, lambda _, count: count) == []


@pytest.mark.parametrize(
    ("desired", "minimum", "arrivals", "expected"),
    [
        pytest.param(1, 0, 16.0, 20.0, id="of one, what arrives tells how busy it is"),
        pytest.param(1, 0, 200.0, 100.0, id="and it is no more than it sustains"),
        pytest.param(3, 0, 16.0, 300.0, id="several are what was decided"),
        pytest.param(3, 3, 16.0, 20.0, id="a minimum is no demand"),
    ],
)
def test_what_a_number_of_instances_stands_for(desired: int, minimum: int, arrivals: float, expected: float) -> None:
    assert rate_of(desired, minimum, 100.0, arrivals) == expected
