"""The overhead benchmark measures what it says it does."""

from __future__ import annotations

from benchmarks import engine_overhead, workloads
from benchmarks.one_runner import running


def test_every_call_has_as_many_turns() -> None:
    calls: list[str] = []
    turns = engine_overhead.in_turn(tuple(lambda name=name: calls.append(name) for name in "abc"), 0)  # type: ignore[misc]
    assert [len(each) for each in turns] == [12] * 3
    assert set(calls) == set("abc")
    assert calls[:3] == ["a", "b", "c"]


def test_a_runner_answers_what_bare_onnxruntime_does_by_message_and_by_shared_memory() -> None:
    for name in ("mlp", "image"):
        workload = workloads.load(name)
        with running(workload) as runner:
            rows = list(engine_overhead.measure(workload, runner, 0))
        assert [(row.workload, row.batch) for row in rows] == [(name, 1), (name, 32)]
        assert f"| {name} | 32 | 12 |" in engine_overhead.table(rows)
