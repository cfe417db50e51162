"""What never happens in changes of shape, whatever the model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_autoscaler.core.plans import DrainInstance, Holding, LoadOnStandby, Plan, StartStandby
from headrace_autoscaler.domain import Limits, Tenant
from tests.autoscaler.resizing_mesh import (
    FOUR,
    GIB,
    ONE,
    TWO,
    Mesh,
    Ranged,
)

TENANTS = ("t0", "t1")


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    models = []
    for index in range(draw(st.integers(1, 4))):
        one = draw(st.integers(2_000, 150_000))
        two = int(one * draw(st.floats(0.2, 1.1)))
        four = int(two * draw(st.floats(0.2, 1.1)))
        models.append(
            Ranged(
                f"m{index}",
                {ONE: one, TWO: two, FOUR: four},
                float(draw(st.sampled_from((0, 0, 1, 20, 60, 150)))),
                draw(st.sampled_from((None, 0.01, 0.1))),
                draw(st.sampled_from(TENANTS)),
                draw(st.integers(0, 2)),
                draw(st.sampled_from((None, None, 2, 3))),
                draw(st.sampled_from((1000, 2000, 4000))),
                {ONE} | draw(st.sets(st.sampled_from((TWO, FOUR)))),
                draw(st.sampled_from((Limits(), Limits(), Limits(cpu_millicores=3000)))),
            )
        )
    cohort = draw(st.sampled_from(("", "c")))
    tenants = tuple(
        Tenant(name, Limits(cpu_millicores=draw(st.sampled_from((None, 2000, 4000, 8000)))), cohort=cohort)
        for name in TENANTS
    )
    mesh = Mesh(models, Limits(draw(st.integers(2, 16)) * 1000, draw(st.integers(2, 16)) * GIB, 0, 0), tenants)
    for model in models:
        mesh.run(model.name, *draw(st.lists(st.sampled_from((ONE, ONE, TWO, FOUR)), max_size=3)))
    return mesh


def used(holdings: list[Holding], tenant: str | None = None, model: str | None = None) -> int:
    return sum(
        each.resources.cpu_millicores
        for each in holdings
        if tenant in (None, each.tenant) and model in (None, each.model)
    )


@settings(max_examples=200, deadline=None)
@given(meshes())
def test_no_start_breaks_a_limit_with_mixed_shapes_and_no_change_leaves_demand_unserved(mesh: Mesh) -> None:
    settled = {
        model.name: sum(model.sustains(each.resources) for each in mesh.holdings if each.model == model.name)
        for model in mesh.models
    }
    for _ in range(25):
        before = list(mesh.holdings)
        decided = mesh.pass_(7.0)
        loads = [each for each in decided.actions if isinstance(each, LoadOnStandby)]
        started = [each for each in mesh.holdings if not each.ready and each.started_at == mesh.now]
        assert len(loads) == len(started)
        if started:
            assert used(before) + used(started) <= (mesh.capacity.cpu_millicores or 0)
        for tenant in mesh.tenants:
            if used(started, tenant.name) and tenant.nominal.cpu_millicores is not None and not tenant.cohort:
                assert used(before, tenant.name) + used(started, tenant.name) <= tenant.nominal.cpu_millicores
        for model in mesh.models:
            if used(started, model=model.name) and model.limits.cpu_millicores is not None:
                taken = used(before, model=model.name) + used(started, model=model.name)
                assert taken <= model.limits.cpu_millicores
            _assert_answers(mesh, model, before, decided, settled)


def _assert_answers(mesh: Mesh, model: Ranged, before: list[Holding], decided: Plan, settled: dict[str, float]) -> None:
    """A change of shape takes nothing away that demand needs and that was there before it began."""
    ready = {each.id: each for each in before if each.model == model.name and each.ready and not each.draining}
    resized = [each.runner for each in decided.actions if isinstance(each, DrainInstance) and "resized" in each.reason]
    gone = ready.keys() & set(resized)
    staying = [each for id_, each in ready.items() if id_ not in gone]
    # During a change there are more than the maximum; afterwards there may not be.
    if gone and (model.maximum is None or len(staying) < model.maximum):
        left = sum(model.sustains(each.resources) for each in staying)
        assert left >= min(settled[model.name], model.load) * (1 - 1e-9)
    if not mesh.sizings[model.name].leaving:
        settled[model.name] = sum(model.sustains(each.resources) for each in ready.values())


@settings(max_examples=150, deadline=None)
@given(meshes())
def test_under_unchanged_demand_shapes_come_to_rest(mesh: Mesh) -> None:
    quiet = 0
    for _ in range(400):
        decided = mesh.pass_(20.0 if not quiet else 700.0)
        acts = [each for each in decided.actions if not isinstance(each, StartStandby)]
        quiet = quiet + 1 if not acts and all(each.ready for each in mesh.holdings) else 0
        # More than an hour in which nothing happened: no pause ends later.
        if quiet > 12:
            return
    pytest.fail(f"still acts: {acts}; {mesh.sizings}")
