"""The lifecycle as a table."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common.errors import FailedPrecondition
from headrace_runner.core.lifecycle import TRANSITIONS, Admission, Holding, IllegalTransition, Standing, State

HELD = Holding("i-1", "acme", "echo", 1, "1")
LEGAL = [(start, to) for start, nexts in TRANSITIONS.items() for to in nexts]
ILLEGAL = [pair for pair in itertools.product(State, State) if pair not in LEGAL]


def standing(state: State, **changes: object) -> Standing:
    return Standing(**{"state": state, "epoch": 5, "holding": HELD, "reason": "told to go", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "to"), LEGAL)
def test_steps_of_the_table_are_taken(start: State, to: State) -> None:
    assert standing(start).advance(to, "because") == standing(to, reason="because")


@pytest.mark.parametrize(("start", "to"), ILLEGAL)
def test_other_steps_are_refused_by_name(start: State, to: State) -> None:
    with pytest.raises(IllegalTransition, match=f"cannot go from {start} to {to}"):
        standing(start).advance(to)


def test_the_reason_to_go_survives_the_last_step() -> None:
    assert standing(State.READY).advance(State.DRAINING, "unload").advance(State.GONE).reason == "unload"


@given(st.lists(st.sampled_from(State), max_size=20))
def test_nothing_follows_gone(steps: list[State]) -> None:
    now, was_gone = Standing(), False
    for step in steps:
        try:
            now = now.advance(step)
        except IllegalTransition:
            continue
        assert not was_gone
        was_gone = now.state is State.GONE


@given(st.lists(st.integers(0, 10), min_size=1))
def test_the_epoch_never_falls(epochs: list[int]) -> None:
    now = Standing()
    for epoch in epochs:
        if epoch < now.epoch:
            with pytest.raises(FailedPrecondition, match=f"epoch {epoch} is over"):
                now.obey(epoch)
        else:
            now = now.obey(epoch)
            assert now.epoch == epoch


def test_a_first_load_is_no_repetition() -> None:
    assert not Standing(State.STANDBY).repeats(HELD)


@pytest.mark.parametrize("state", [State.LOADING, State.READY])
def test_the_same_load_again_is_a_repetition(state: State) -> None:
    assert standing(state).repeats(HELD)


@pytest.mark.parametrize(
    ("state", "wanted", "reason"),
    [
        pytest.param(State.READY, Holding("i-2", "acme", "echo", 1, "1"), "for life", id="another instance"),
        pytest.param(State.READY, Holding("i-1", "acme", "echo", 2, "1"), "for life", id="another revision"),
        pytest.param(State.READY, Holding("i-1", "other", "echo", 1, "1"), "for life", id="another tenant"),
        pytest.param(State.DRAINING, HELD, "draining", id="the same, while it drains"),
    ],
)
def test_other_loads_are_refused(state: State, wanted: Holding, reason: str) -> None:
    with pytest.raises(FailedPrecondition, match=reason):
        standing(state).repeats(wanted)


@pytest.mark.parametrize(
    ("now", "attach", "admission"),
    [
        pytest.param(Standing(State.STANDBY), ("i-1", "echo", 1), Admission.HOLD, id="before the load has come"),
        pytest.param(standing(State.LOADING), ("i-1", "echo", 1), Admission.HOLD, id="while it loads"),
        pytest.param(standing(State.READY), ("i-1", "echo", 1), Admission.GRANT, id="ready"),
        pytest.param(standing(State.READY), ("i-1", "echo", 2), Admission.LEAVE, id="another revision"),
        pytest.param(standing(State.READY), ("i-1", "other", 1), Admission.LEAVE, id="another model"),
        pytest.param(standing(State.DRAINING), ("i-1", "echo", 1), Admission.LEAVE, id="draining"),
        pytest.param(Standing(State.DRAINING), ("i-1", "echo", 1), Admission.LEAVE, id="draining, never loaded"),
    ],
)
def test_what_becomes_of_a_router(now: Standing, attach: tuple[str, str, int], admission: Admission) -> None:
    assert now.admit(*attach).admission is admission


def test_a_router_that_looks_for_another_instance_is_told_so() -> None:
    with pytest.raises(FailedPrecondition, match="is instance 'i-1', not 'i-9'"):
        standing(State.READY).admit("i-9", "echo", 1)
