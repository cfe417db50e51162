"""Plans by hand: what starts where, what goes, what waits for what, and why."""

from __future__ import annotations

from dataclasses import replace

from headrace_autoscaler.core.allocator import Move, Node, Resize, Snapshot, Start, Stop, Way, plan
from headrace_autoscaler.core.quota import Amount, Bounds, Dimension, TenantQuota
from headrace_autoscaler.domain import Resources
from tests.autoscaler.allocation import (
    GIB,
    LARGE,
    ONE,
    SPOT,
    T4,
    TWO,
    XLARGE,
    carried_out,
    demand,
    nodes,
    places,
    running,
)


def quota(name: str, cpus: int, cohort: str = "pool", **rest: object) -> TenantQuota:
    nominal = Bounds.of(Amount(Dimension.CPU, cpus * 1000), Amount(Dimension.MEMORY, 64 * GIB))
    return TenantQuota(name, nominal, cohort=cohort, **rest)  # type: ignore[arg-type]


def test_instances_fill_one_node_before_they_open_another() -> None:
    decided = plan(Snapshot((demand("m", 350),), (), nodes(3)))
    assert places(decided) == [("m", "n0")] * 4
    assert decided.idle_nodes == ("n1", "n2")
    assert decided.micros_per_hour == 170_000


def test_a_start_says_what_for() -> None:
    [start] = plan(Snapshot((demand("m", 50),), (), nodes(1))).actions
    assert isinstance(start, Start)
    assert start.reason == "50 requests per second; an instance sustains 100 in batches of 1, at 0.0425 an hour"


def test_larger_things_are_placed_before_smaller_ones() -> None:
    wanted = (demand("small", 100), demand("large", 160, ways=(TWO,)))
    [refused] = plan(Snapshot(wanted, (), nodes(1, LARGE))).refused
    assert refused.model == "small"


def test_everybodys_first_comes_before_anybodys_second() -> None:
    decided = plan(Snapshot((demand("a", 1000), demand("b", 90)), (), nodes(1)))
    assert sorted(places(decided)) == [("a", "n0")] * 3 + [("b", "n0")]
    [refused] = decided.refused
    assert (refused.model, refused.lacking, refused.reason) == ("a", 700.0, "no c5.xlarge node has room for it")


def test_surplus_goes_where_least_is_in_hand() -> None:
    instances = (running("busy", "m", "n0", in_flight=3), running("idle", "m", "n0"))
    assert plan(Snapshot((demand("m", 50),), instances, nodes(1))).actions == (Stop("idle", "fewer are enough"),)


def test_what_runs_is_not_replaced_for_a_small_saving() -> None:
    dearer = replace(TWO, profile_us=((1, 5_500),))
    world = Snapshot((demand("m", 181, ways=(ONE, dearer)),), (running("i", "m", "n0", way=dearer),), nodes(1))
    assert plan(world).actions == ()


def test_a_cheaper_way_replaces_what_runs_once_it_has_started() -> None:
    world = Snapshot((demand("m", 90, ways=(ONE, TWO)),), (running("i", "m", "n0", way=TWO),), nodes(1))
    [resize] = plan(world).actions
    assert isinstance(resize, Resize)
    assert (resize.instance, resize.place.way, resize.after) == ("i", "1 thread", ())


def test_a_bigger_way_takes_the_place_of_several_smaller_ones() -> None:
    fast = replace(TWO, profile_us=((1, 2_000),))
    world = Snapshot(
        (demand("m", 450, ways=(ONE, fast)),), tuple(running(f"i{n}", "m", "n0") for n in range(2)), nodes(2)
    )
    decided = plan(world)
    assert [type(each) for each in decided.actions] == [Resize, Stop]
    assert plan(carried_out(world, decided)).actions == ()


def test_a_notice_moves_what_runs_and_falls_back_to_on_demand() -> None:
    spot = Node("s0", SPOT, ending="spot notice: two minutes")
    world = Snapshot((demand("m", 50, tolerates_spot=True),), (running("i", "m", "s0"),), (spot, *nodes(1)))
    [move] = plan(world).actions
    assert isinstance(move, Move)
    assert (move.place.node, move.reason, move.after) == ("n0", "spot notice: two minutes", ())


def test_a_notice_with_no_room_elsewhere_drains_and_says_so() -> None:
    world = Snapshot((demand("m", 50),), (running("i", "m", "n0"),), (Node("n0", XLARGE, ending="notice"),))
    decided = plan(world)
    assert decided.actions == (Stop("i", "notice"),)
    assert decided.refused[0].reason == "no c5.xlarge node has room for it"


def test_instances_spread_over_failure_domains() -> None:
    zones = tuple(Node(f"n{each}", XLARGE, f"zone-{each}") for each in range(3))
    decided = plan(Snapshot((demand("m", 250, spread=3),), (), zones))
    assert sorted(places(decided)) == [("m", "n0"), ("m", "n1"), ("m", "n2")]


def test_what_shares_a_failure_domain_moves_into_an_empty_one() -> None:
    zones = (Node("n0", XLARGE, "a"), Node("n1", XLARGE, "b"))
    world = Snapshot(
        (demand("m", 150, spread=2),), (running("i0", "m", "n0", in_flight=5), running("i1", "m", "n0")), zones
    )
    [move] = plan(world).actions
    assert isinstance(move, Move)
    assert (move.instance, move.place.node) == ("i1", "n1")
    assert plan(carried_out(world, plan(world))).actions == ()


def test_two_halves_share_a_gpu_and_a_third_takes_the_next() -> None:
    half = Way("half", Resources(500, GIB, 500, 8 * GIB), ((1, 1_000),))
    decided = plan(Snapshot((demand("m", 3000, ways=(half,)),), (), nodes(2, T4)))
    assert places(decided) == [("m", "n0"), ("m", "n0"), ("m", "n1")]
    too_much = Way("10 GiB", Resources(500, GIB, 300, 10 * GIB), ((1, 1_000),))
    decided = plan(Snapshot((demand("m", 2000, ways=(too_much,)),), (), nodes(1, T4)))
    assert len(decided.actions) == 1, "the GPU's memory is what binds"


def test_the_quota_that_binds_is_named() -> None:
    decided = plan(Snapshot((demand("m", 300),), (), nodes(1), (quota("acme", 2, cohort=""),)))
    assert len(decided.actions) == 2
    assert decided.refused[0].reason == "nominal of 'acme': cpu 2, of which 2 are used"


def test_a_budget_binds_like_any_other_limit() -> None:
    tenant = TenantQuota("acme", Bounds.of(Amount(Dimension.MONEY_PER_HOUR, 100_000)))
    decided = plan(Snapshot((demand("m", 300),), (), nodes(1), (tenant,)))
    assert len(decided.actions) == 2
    assert decided.refused[0].reason == "nominal of 'acme': budget 0.1/h, of which 0.085/h are used"


def test_a_lender_takes_its_own_back_by_draining_and_starts_after_it() -> None:
    borrowed = tuple(running(f"b{n}", "mb", "n0", "borrower") for n in range(4))
    world = Snapshot(
        (demand("mb", 400, "borrower"), demand("ml", 150, "lender")),
        borrowed,
        nodes(1),
        (quota("borrower", 2), quota("lender", 2)),
    )
    decided = plan(world)
    stops = [each for each in decided.actions if isinstance(each, Stop)]
    starts = [each for each in decided.actions if isinstance(each, Start)]
    assert [each.reason for each in stops] == ["tenant 'lender' takes back its own"] * 2
    assert [set(each.after) for each in starts] == [{each.instance for each in stops}] * 2
    after = carried_out(world, decided)
    assert plan(after).actions == ()
    assert sorted(each.tenant for each in after.instances) == ["borrower"] * 2 + ["lender"] * 2


def test_what_is_spare_goes_by_share_over_weight() -> None:
    tenants = (quota("a", 0), quota("b", 0, weight=3.0), quota("idle", 4))
    wanted = (demand("ma", 400, "a"), demand("mb", 400, "b"))
    decided = plan(Snapshot(wanted, (), nodes(1), tenants))
    assert sorted(model for model, _ in places(decided)) == ["ma", "mb", "mb", "mb"]


def test_without_any_quota_the_richer_tenant_gives_up_one_for_the_poorer() -> None:
    instances = tuple(running(f"i{n}", "ma", "n0", "a", in_flight=n) for n in range(4))
    world = Snapshot((demand("ma", 400, "a"), demand("mb", 300, "b")), instances, nodes(1))
    decided = plan(world)
    after = carried_out(world, decided)
    assert sorted(each.tenant for each in after.instances) == ["a", "a", "b", "b"]
    assert {each.id for each in after.instances if each.tenant == "a"} == {"i2", "i3"}, "those with most in hand stay"
    assert plan(after).actions == ()


def test_an_unknown_model_goes() -> None:
    [stop] = plan(Snapshot((), (running("i", "gone", "n0"),), nodes(1))).actions
    assert stop == Stop("i", "the model or this revision of it is gone")


def test_no_node_at_all() -> None:
    [refused] = plan(Snapshot((demand("m", 1),), (), ())).refused
    assert refused.reason == "there is no node to run it on"
