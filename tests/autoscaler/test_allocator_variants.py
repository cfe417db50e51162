"""A model's variants: which one runs, where, and which never does. By hand, and against trying everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.allocator import Demand, Kind, Resize, Snapshot, Start, Variant, Way, plan
from headrace_autoscaler.core.allocator.choice import Market, cost, mix
from headrace_autoscaler.domain import Resources
from tests.autoscaler.allocation import GIB, LARGE, ONE, SPOT, T4, TWO, V100, XLARGE, carried_out, demand, nodes

INT8 = Way("int8", Resources(1000, GIB), ((1, 4_000), (8, 20_000)), variant=Variant("int8", "onnxruntime"))
"""400 requests per second in batches of 8, where `ONE` has 100."""
BAD = replace(
    INT8, name="int4", profile_us=((1, 100),), variant=Variant("int4", "onnxruntime", outside="agreement 0.96 of 0.99")
)
ON_T4 = Way("plan", Resources(1000, GIB, 250, 2 * GIB), ((8, 1_000),), variant=Variant("plan", "tensorrt", ("sm_75",)))


def started(wanted: Demand, *kinds: Kind) -> list[Start]:
    found = plan(Snapshot((wanted,), (), tuple(node for kind in kinds for node in nodes(4, kind, kind.shape))))
    return [each for each in found.actions if isinstance(each, Start)]


def test_a_plan_takes_the_variant_that_is_cheapest_and_says_which() -> None:
    [start] = started(demand("m", 250, ways=(ONE, TWO, INT8)), XLARGE)
    assert start.place.way == "int8"
    assert "an instance of 'int8' sustains 400 in batches of 8" in start.reason


def test_a_variant_outside_its_floor_is_not_run_however_cheap_it_is() -> None:
    assert {each.place.way for each in started(demand("m", 250, ways=(ONE, BAD)), XLARGE)} == {"1 thread"}
    [refused] = plan(Snapshot((demand("m", 250, ways=(BAD,)),), (), nodes(1))).refused
    assert "'int4' on c5.xlarge: variant 'int4' is not good enough: agreement 0.96 of 0.99" in refused.reason


def test_a_variant_outside_its_floor_does_not_keep_the_others_from_running_where_only_it_is_fast_enough() -> None:
    assert {each.place.way for each in started(demand("m", 50, ways=(ONE, BAD), slo_s=0.002), XLARGE)} == {"1 thread"}


def test_a_way_that_has_no_node_does_not_keep_slower_ones_from_running() -> None:
    assert {each.place.way for each in started(demand("m", 50, ways=(ONE, ON_T4), slo_s=0.002), XLARGE)} == {"1 thread"}


@pytest.mark.parametrize(
    ("variant", "kinds", "says"),
    [
        pytest.param(ON_T4.variant, (V100,), "tensorrt does not support sm_70", id="a GPU that its engine has not"),
        pytest.param(ON_T4.variant, (XLARGE,), "it has no GPU", id="no GPU"),
        pytest.param(
            Variant("plan", "tensorrt", ("sm_86",)), (T4,), "built for sm_86 and this is sm_75", id="built for another"
        ),
    ],
)
def test_a_variant_goes_only_where_its_own_engine_runs(variant: Variant, kinds: tuple[Kind, ...], says: str) -> None:
    wanted = demand("m", 10, ways=(replace(ON_T4, variant=variant),), engine="onnxruntime")
    [refused] = plan(Snapshot((wanted,), (), nodes(1, kinds[0]))).refused
    assert says in refused.reason


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx", "tensorrt_rtx"])
def test_tensorrt_needs_a_share_of_a_gpu(engine: str) -> None:
    way = replace(ONE, variant=Variant("plan", engine))
    [refused] = plan(Snapshot((demand("m", 10, ways=(way,)),), (), nodes(1, T4))).refused
    assert f"{engine} runs on GPUs only, and an instance of it holds no share of one" in refused.reason


def test_what_runs_is_replaced_by_a_variant_that_saves_more_than_a_sixth() -> None:
    before = Snapshot((demand("m", 250),), (), nodes(4))
    running = carried_out(before, plan(before))
    offered = replace(running, demands=(demand("m", 250, ways=(ONE, INT8)),))
    changes = [each for each in plan(offered).actions if isinstance(each, Resize)]
    assert [each.place.way for each in changes] == ["int8"]
    assert "of 'int8'" in changes[0].reason
    little = replace(INT8, profile_us=((1, 9_000),))
    assert not plan(replace(running, demands=(demand("m", 250, ways=(ONE, little)),))).actions


KINDS = (LARGE, XLARGE, SPOT, T4, V100)
VARIANTS = st.builds(
    Variant,
    st.sampled_from(["", "fp16", "int8", "pruned"]),
    st.sampled_from(["", "onnxruntime", "torch", "tensorrt", "tensorrt-rtx"]),
    st.sampled_from([(), ("sm_75",), ("sm_70", "sm_86")]),
    st.sampled_from(["", "", "", "agreement 0.9 of 0.99"]),
)


@st.composite
def offers(draw: st.DrawFn) -> tuple[Way, ...]:
    """Several ways of several variants, of which some hold for one shape only."""
    return tuple(
        Way(
            str(number),
            Resources(
                draw(st.sampled_from([500, 1000, 2000, 8000])), GIB, *draw(st.sampled_from([(0, 0), (500, 4 * GIB)]))
            ),
            ((1, draw(st.integers(1_000, 60_000))), (8, draw(st.integers(4_000, 200_000)))),
            shape=draw(st.sampled_from(["", "", "c5.large", "g4dn.xlarge"])),
            variant=draw(st.one_of(st.none(), VARIANTS)),
        )
        for number in range(draw(st.integers(1, 5)))
    )


@st.composite
def wishes(draw: st.DrawFn) -> Demand:
    return demand(
        "m",
        float(draw(st.integers(1, 900))),
        ways=draw(offers()),
        slo_s=draw(st.sampled_from([None, 0.1, 0.03, 0.002])),
        engine=draw(st.sampled_from(["", "onnxruntime", "tensorrt"])),
        architectures=draw(st.sampled_from([(), ("sm_75",)])),
        tolerates_spot=draw(st.booleans()),
    )


def may_run(wanted: Demand, way: Way, kind: Kind) -> bool:
    """By the rules as they are written down, one by one."""
    variant = way.variant or Variant("")
    engine, architectures = (
        (variant.engine, variant.architectures)
        if variant.engine
        else (wanted.engine, variant.architectures or wanted.architectures)
    )
    known = {"tensorrt": {"sm_75"}, "tensorrt-rtx": {"sm_75"}}
    needs, has = way.resources, kind.capacity
    on_gpu = needs.gpu_millis > 0
    return all(
        (
            not variant.outside,
            wanted.tolerates_spot or kind.capacity_class != "spot",
            way.shape in ("", kind.shape),
            needs.cpu_millicores <= has.cpu_millicores,
            needs.memory_bytes <= has.memory_bytes,
            on_gpu or engine not in known,
            not on_gpu or kind.gpus > 0,
            not on_gpu or engine not in known or kind.architecture in known[engine],
            not on_gpu or not architectures or kind.architecture in architectures,
        )
    )


def worked_out(way: Way, slo_s: float | None) -> float:
    """Requests per second within half of the objective; one row at a time where no batch is."""
    within = [rows * 1e6 / us for rows, us in way.profile_us if slo_s is None or us <= slo_s * 5e5]
    return max(within, default=1e6 / way.profile_us[0][1])


def price(way: Way, kind: Kind) -> int:
    pairs = (
        (way.resources.cpu_millicores, kind.capacity.cpu_millicores),
        (way.resources.memory_bytes, kind.capacity.memory_bytes),
        (way.resources.gpu_millis, kind.capacity.gpu_millis),
        (way.resources.gpu_memory_bytes, kind.capacity.gpu_memory_bytes),
    )
    return max(-(-kind.micros_per_hour * need // whole) for need, whole in pairs if need)


@given(wishes())
@settings(max_examples=400, deadline=None)
def test_of_all_shapes_and_variants_the_choice_is_the_cheapest_per_request(wanted: Demand) -> None:
    allowed = [(way, kind) for way in wanted.ways for kind in KINDS if may_run(wanted, way, kind)]
    fast = [
        each for each in allowed if wanted.slo_s is None or each[0].profile_us[0][1] <= wanted.slo_s * 1e6
    ] or allowed
    found = Market(KINDS).choices(wanted)
    assert {(each.way, each.kind) for each in found} == set(fast)
    if not fast:
        assert Market(KINDS).why_none(wanted)
        return
    per_request = {(way.name, kind): price(way, kind) / worked_out(way, wanted.slo_s) for way, kind in fast}
    first = found[0]
    assert per_request[first.way.name, first.kind] == pytest.approx(min(per_request.values()))
    # How many: never dearer than the best single choice, which trying each alone finds.
    alone = min(
        price(way, kind) * max(1, -(-int(wanted.rate * 1e6) // int(worked_out(way, wanted.slo_s) * 1e6 + 0.5)))
        for way, kind in fast
    )
    assert cost(mix(found, wanted.rate, 0, None)) <= alone


@given(wishes(), st.lists(st.sampled_from(KINDS), max_size=6))
@settings(max_examples=300, deadline=None)
def test_nothing_runs_that_is_outside_its_floor_or_unfit_for_its_engine(wanted: Demand, kinds: list[Kind]) -> None:
    there = tuple(replace(node, id=f"n{number}") for number, kind in enumerate(kinds) for node in nodes(1, kind))
    world = Snapshot((wanted,), (), there)
    found = plan(world)
    by_name = {way.name: way for way in wanted.ways}
    on = {node.id: node.kind for node in there}
    for each in found.actions:
        assert isinstance(each, Start)
        way = by_name[each.place.way]
        assert may_run(wanted, way, on[each.place.node])
        assert way.variant is None or f"'{way.variant.name}'" in each.reason
    assert not plan(carried_out(world, found)).actions, "it comes to rest"
