"""What no plan may do, over worlds that nobody would think of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.allocator import CapacityClass, Demand, Instance, Node, Plan, Snapshot, Way, plan
from headrace_autoscaler.core.quota import Amount, Bounds, Dimension, TenantQuota
from headrace_autoscaler.domain import Resources
from tests.autoscaler.allocation import GIB, LARGE, SPOT, T4, V100, XLARGE, carried_out

MODELS = ("m0", "m1", "m2", "m3", "m4")
TENANTS = ("a", "b", "c")
SMALL = Way("small", Resources(500, GIB), ((1, 20_000), (4, 40_000)))
MIDDLE = Way("middle", Resources(1000, 2 * GIB), ((1, 10_000), (8, 60_000)))
BIG = Way("big", Resources(2000, 3 * GIB), ((1, 6_000), (8, 30_000)))
HALF_GPU = Way("half gpu", Resources(500, GIB, 500, 6 * GIB), ((1, 2_000), (16, 8_000)))
UNKNOWN = Way("unknown", Resources(1000, GIB))
WAYS = st.sampled_from(
    [(SMALL,), (MIDDLE,), (SMALL, BIG), (SMALL, MIDDLE, BIG), (HALF_GPU, SMALL), (HALF_GPU,), (UNKNOWN,)]
)


@st.composite
def demands(draw: st.DrawFn) -> tuple[Demand, ...]:
    return tuple(
        Demand(
            model,
            draw(st.sampled_from(TENANTS)),
            float(draw(st.sampled_from([0, 0, 5, 40, 90, 130, 300]))),
            draw(WAYS),
            slo_s=draw(st.sampled_from([None, 0.1, 0.05, 0.001])),
            minimum=draw(st.sampled_from([0, 0, 1, 2])),
            maximum=draw(st.sampled_from([None, None, 2, 4])),
            tolerates_spot=draw(st.booleans()),
            spread=draw(st.sampled_from([1, 1, 2, 3])),
            engine=draw(st.sampled_from(["onnxruntime", "tensorrt"])),
        )
        for model in MODELS[: draw(st.integers(1, len(MODELS)))]
    )


@st.composite
def node_sets(draw: st.DrawFn) -> tuple[Node, ...]:
    kinds = draw(st.lists(st.sampled_from([LARGE, LARGE, XLARGE, SPOT, T4, V100]), max_size=6))
    return tuple(
        Node(f"n{number}", kind, draw(st.sampled_from(["x", "y", "z"])), draw(st.sampled_from(["", "", "", "notice"])))
        for number, kind in enumerate(kinds)
    )


@st.composite
def quotas(draw: st.DrawFn) -> tuple[TenantQuota, ...]:
    cpus = st.sampled_from([None, 500, 1000, 2000, 3000])

    def bounds(cpu: int | None) -> Bounds:
        return Bounds() if cpu is None else Bounds.of(Amount(Dimension.CPU, cpu))

    found = []
    for name in TENANTS[: draw(st.integers(0, len(TENANTS)))]:
        nominal = bounds(draw(cpus))
        if draw(st.booleans()):
            nominal = nominal.with_limit(Amount(Dimension.MEMORY, 4 * GIB))
        if draw(st.integers(0, 4)) == 0:
            nominal = nominal.with_limit(Amount(Dimension.MONEY_PER_HOUR, 100_000))
        lending = bounds(draw(cpus))
        cohort = draw(st.sampled_from(["", "pool", "pool"]))
        found.append(TenantQuota(name, nominal, bounds(draw(cpus)), lending, cohort, draw(st.sampled_from([1.0, 2.0]))))
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn) -> Snapshot:
    world = Snapshot(draw(demands()), (), draw(node_sets()), draw(quotas()))
    for step in range(draw(st.integers(0, 2))):
        world = carried_out(world, plan(world), float(step))
        world = replace(
            world,
            demands=draw(demands()),
            tenants=draw(st.one_of(st.just(world.tenants), quotas())),
            nodes=tuple(replace(each, ending=draw(st.sampled_from(["", "", "notice"]))) for each in world.nodes),
            instances=tuple(replace(each, in_flight=draw(st.integers(0, 2))) for each in world.instances),
        )
    return world


def held(instances: tuple[Instance, ...]) -> dict[str, list[int]]:
    by_node: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for each in instances:
        by_node[each.node][0] += each.resources.cpu_millicores
        by_node[each.node][1] += each.resources.memory_bytes
    return by_node


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_no_node_and_no_gpu_is_over_its_capacity(world: Snapshot) -> None:
    after = carried_out(world, plan(world))
    by_id = {node.id: node for node in world.nodes}
    for node, (cpu, memory) in held(after.instances).items():
        capacity = by_id[node].kind.capacity
        assert cpu <= capacity.cpu_millicores
        assert memory <= capacity.memory_bytes
    shares: dict[tuple[str, int | None], list[int]] = defaultdict(lambda: [0, 0])
    for each in after.instances:
        if each.resources.gpu_millis:
            assert each.device is not None
            shares[each.node, each.device][0] += each.resources.gpu_millis
            shares[each.node, each.device][1] += each.resources.gpu_memory_bytes
    for (node, _), (millis, memory) in shares.items():
        assert millis <= 1000
        assert memory <= by_id[node].kind.capacity.gpu_memory_bytes // by_id[node].kind.gpus


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_nothing_runs_where_it_may_not(world: Snapshot) -> None:
    by_id = {node.id: node for node in world.nodes}
    wanted = {each.key: each for each in world.demands}
    for each in carried_out(world, plan(world)).instances:
        node, demand = by_id[each.node], wanted[each.key]
        assert not node.ending
        assert demand.tolerates_spot or node.kind.capacity_class is not CapacityClass.SPOT
        if each.resources.gpu_millis and demand.engine == "tensorrt":
            assert node.kind.architecture == "sm_75", "no current TensorRT supports sm_70"


@given(worlds())
@settings(max_examples=400, deadline=None)
def test_no_tenant_and_no_cohort_is_over_its_quota(world: Snapshot) -> None:
    after = carried_out(world, plan(world))
    used = defaultdict(int)
    for each in after.instances:
        used[each.tenant] += each.resources.cpu_millicores
    cohorts: dict[str, list[TenantQuota]] = defaultdict(list)
    for quota in world.tenants:
        nominal = quota.nominal.units[Dimension.CPU]
        if nominal is None:
            continue
        cohorts[quota.cohort or f"alone: {quota.name}"].append(quota)
        borrowing = quota.borrowing_limit.units[Dimension.CPU]
        if borrowing is not None:
            assert used[quota.name] <= nominal + borrowing
    for members in cohorts.values():
        assert sum(used[each.name] for each in members) <= sum(
            each.nominal.units[Dimension.CPU] or 0 for each in members
        )


@given(worlds())
@settings(max_examples=600, deadline=None)
def test_the_plan_of_what_a_plan_leads_to_does_nothing(world: Snapshot) -> None:
    after = carried_out(world, plan(world), now=9.0)
    again = plan(after)
    assert again.actions == ()


@given(worlds(), st.randoms())
@settings(max_examples=200, deadline=None)
def test_a_plan_does_not_depend_on_the_order_of_what_it_is_told(world: Snapshot, random: object) -> None:
    def shuffled(items: tuple[object, ...]) -> tuple[object, ...]:
        mixed = list(items)
        random.shuffle(mixed)  # type: ignore[attr-defined]
        return tuple(mixed)

    other = replace(world, instances=shuffled(world.instances), nodes=shuffled(world.nodes))  # type: ignore[arg-type]
    first, second = plan(world), plan(other)
    assert first.actions == second.actions
    assert first.refused == second.refused
    assert first == plan(world)


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_what_starts_at_once_finds_room_beside_all_that_still_runs(world: Snapshot) -> None:
    decided: Plan = plan(world)
    now = held(world.instances)
    by_id = {node.id: node for node in world.nodes}
    for each in decided.actions:
        place = getattr(each, "place", None)
        if place is not None and not each.after:  # type: ignore[union-attr]
            now[place.node][0] += place.resources.cpu_millicores
            assert now[place.node][0] <= by_id[place.node].kind.capacity.cpu_millicores


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_whoever_gets_less_than_it_needs_is_told_why(world: Snapshot) -> None:
    decided = plan(world)
    after = carried_out(world, decided)
    refused = {(each.model, each.revision): each for each in decided.refused}
    for demand in world.demands:
        has = sum(each.key == demand.key for each in after.instances)
        if (demand.rate > 0 or demand.minimum) and not has:
            assert refused[demand.key].reason
