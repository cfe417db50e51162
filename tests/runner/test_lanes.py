"""Several batches in hand at once: who has which lane, which sizes are recorded, and that a runner takes up the next
bundle while it waits for the GPU.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.clock import SystemClock
from headrace_common.config import TelemetryConfig
from headrace_common.enforcement import ENGINE_LOST_STATUS
from headrace_common.gpu_facts import Gpu, visible_gpus
from headrace_common.telemetry import Telemetry
from headrace_runner.core.graph_policy import GraphPolicy, planned_shapes, shapes_of
from headrace_runner.core.lanes import MOST, Roster, lane_count
from headrace_runner.core.shape_ranges import ShapeRange
from headrace_runner.core.signature import EngineTensor, make_signature
from headrace_runner.domain import Loaded
from headrace_runner.engines.base import EngineLost, ModelSource
from headrace_runner.execution import Executor, Job
from headrace_runner.measures import Measures
from headrace_runner.runner import Runner
from headrace_runner.transport import Answer
from headrace_runner.worker import EngineWorker
from tests.runner.harness import bundle

PATIENCE_S = 20.0


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=60))
def test_a_lane_has_one_owner_and_the_lowest_free_one_is_given(lanes: int, steps: list[bool]) -> None:
    roster, owned = Roster(lanes), set[int]()
    for takes in steps:
        if takes:
            lane = roster.take()
            assert lane == min(set(range(lanes)) - owned, default=None)
            owned |= {lane} if lane is not None else set()
        elif owned:
            roster.give_back(owned.pop())
        assert roster.taken == len(owned)


def test_a_lane_that_nobody_has_cannot_be_given_back() -> None:
    with pytest.raises(ValueError, match="lane 0 is given back, and nobody has it"):
        Roster(1).give_back(0)


@pytest.mark.parametrize(
    ("slots", "lane_bytes", "free_bytes", "lanes"),
    [(1, 10, 1000, 1), (2, 10, 1000, 2), (64, 10, 1000, MOST), (2, 10, 19, 1), (2, 10, 20, 2), (2, 0, 0, 1)],
    ids=["one slot", "two slots", "more than a GPU overlaps", "no room", "just room", "nothing known"],
)
def test_there_are_as_many_lanes_as_slots_unless_memory_or_the_gpu_is_the_limit(
    slots: int, lane_bytes: int, free_bytes: int, lanes: int
) -> None:
    assert lane_count(slots, lane_bytes, free_bytes) == lanes


def rows(*sizes: int) -> list[Any]:
    return [shapes_of({"x": (size, 4)}) for size in sizes]


@pytest.mark.parametrize(
    ("profile", "planned"),
    [
        ({"x": ShapeRange((1, 4), (32, 4), (64, 4))}, rows(1, 32, 64, 2, 4, 8, 16)),
        ({"x": ShapeRange((3, 4), (3, 4), (9, 4))}, rows(3, 9, 4, 8)),
        ({"x": ShapeRange((8, 4), (8, 4), (8, 4))}, rows(8)),
        (
            {"x": ShapeRange((1, 4), (2, 8), (4, 16))},
            [shapes_of({"x": (1, 4)}), shapes_of({"x": (2, 8)}), shapes_of({"x": (4, 16)})],
        ),
        ({"x": ShapeRange((1, 4), (512, 4), (1024, 4))}, rows(1, 512, 1024, 2, 4, 8, 16, 32)),
    ],
    ids=["powers of two", "not from one", "one size", "other dimensions vary", "no more than the most"],
)
def test_sizes_worth_a_graph_are_the_profiles_own_and_powers_of_two(profile: Any, planned: Any) -> None:
    assert planned_shapes(profile) == tuple(planned)


def test_a_size_is_recorded_once_within_memory_and_never_after_a_refusal() -> None:
    [small, large, other] = rows(1, 8, 3)
    policy = GraphPolicy((small, large), most_bytes=100)
    assert [policy.captures(each) for each in (other, small, small)] == [False, True, False]
    policy.captured(100)
    assert not policy.captures(large), "the memory is used up"

    refused = GraphPolicy((small, large))
    refused.refuse()
    assert not refused.captures(small)


GPUS = [Gpu("A", 86, uuid="GPU-aa11"), Gpu("B", 89, uuid="GPU-aa22"), Gpu("C", 89, uuid="GPU-cc33")]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, "ABC"),
        ("", ""),
        ("1", "B"),
        ("2,0", "CA"),
        ("GPU-cc", "C"),
        ("GPU-aa", ""),
        ("0,9,1", "A"),
        ("-1", ""),
        ("1, 1", "B"),
        ("MIG-x", ""),
    ],
)
def test_a_process_uses_the_gpus_that_cuda_shows_it(visible: str | None, names: str) -> None:
    assert "".join(gpu.name for gpu in visible_gpus(GPUS, visible)) == names


class Gate:
    """A pipelined model whose batches are done when the test says so."""

    inputs = (EngineTensor("x", "FP32", ("", 2)),)
    outputs = (EngineTensor("y", "FP32", ("", 2)),)

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.begun: list[float] = []
        self.inside = 0
        self.open = threading.Event()
        self.changed = threading.Condition()

    def begin(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> Any:
        batch = inputs["x"].copy()
        with self.changed:
            self.begun.append(float(batch[0, 0]))
            self.inside += 1
            self.changed.notify_all()
        return GatePending(self, batch)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        return self.begin(inputs, outputs).finish()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Holds nothing."""

    def until_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, PATIENCE_S), self.begun


class GatePending:
    def __init__(self, gate: Gate, batch: NDArray[Any]) -> None:
        self._gate, self._batch = gate, batch

    def finish(self) -> dict[str, NDArray[Any]]:
        assert self._gate.open.wait(PATIENCE_S)
        with self._gate.changed:
            self._gate.inside -= 1
        return {"y": 2 * self._batch}


class Faulty(Gate):
    """Its GPU is lost with the first batch."""

    def begin(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> Any:
        raise EngineLost("cudaStreamSynchronize: cudaErrorIllegalAddress")


def test_a_runner_whose_gpu_is_lost_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(status: int) -> None:
        raise SystemExit(status)

    # In place of the end of the tests.
    monkeypatch.setattr(os, "_exit", end)
    clock, gate = SystemClock(), Faulty(2)
    telemetry = Telemetry.start("runner-0", TelemetryConfig())
    loaded = Loaded(gate, make_signature(gate.inputs, gate.outputs, True), 64, "", "test", {}, {})
    executor = Executor(loaded, clock, Measures(telemetry, clock), lambda: None)
    with pytest.raises(SystemExit) as ended:
        executor.execute(Job(0, bundle(1).bundle, clock.monotonic(), lambda job, answer: None))
    assert ended.value.code == ENGINE_LOST_STATUS
    telemetry.shutdown()


async def answers(gate: Gate, fills: list[float], in_hand: int) -> dict[int, pb.BundleResult]:
    """Submits a bundle for each, and opens the gate once so many have begun."""
    clock = SystemClock()
    telemetry = Telemetry.start("runner-0", TelemetryConfig())
    loaded = Loaded(gate, make_signature(gate.inputs, gate.outputs, True), 64, "", "test", {}, {})
    worker = EngineWorker(clock)
    executor = Executor(loaded, clock, Measures(telemetry, clock), lambda: None)
    worker.use(executor)
    results: dict[int, pb.BundleResult] = {}
    done = asyncio.Event()

    def deliver(job: Job, answer: Answer) -> None:
        results[job.bundle.bundle_id] = answer.result
        if len(results) == len(fills):
            done.set()

    for number, fill in enumerate(fills):
        worker.submit(Job(0, bundle(number, fill=fill).bundle, clock.monotonic(), deliver))
    await asyncio.to_thread(gate.until_begun, in_hand)
    assert gate.inside == in_hand
    gate.open.set()
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    assert worker.stop(PATIENCE_S)
    telemetry.shutdown()
    return results


@pytest.mark.parametrize("lanes", [1, 2, 3])
async def test_a_runner_begins_as_many_bundles_as_the_model_has_lanes(lanes: int) -> None:
    gate = Gate(lanes)
    fills = [float(number) for number in range(6)]
    results = await answers(gate, fills, in_hand=lanes)

    assert sorted(gate.begun) == fills
    for number, fill in enumerate(fills):
        [output] = results[number].outputs
        assert np.frombuffer(output.data, np.float32).tolist() == [2 * fill, 2 * fill]


class Keeper(Gate):
    """It has compiled something since it was loaded."""

    kept = 0

    def keep(self) -> None:
        self.kept += 1


class KeeperEngine:
    """Loads a `Keeper`, whatever it is given."""

    name, platform = "keeper", "test"

    def __init__(self) -> None:
        self.model = Keeper(1)
        self.model.open.set()

    def prepare(self) -> None:
        """Nothing."""

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset()

    def load(self, source: ModelSource) -> Keeper:
        return self.model


async def test_a_runner_that_leaves_has_its_model_keep_what_the_next_process_can_use(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"")
    file = pb.ModelFile(path="m.bin", sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0)
    clock, engine = SystemClock(), KeeperEngine()
    telemetry = Telemetry.start("runner-0", TelemetryConfig())
    worker = EngineWorker(clock)
    runner = Runner("runner-0", {"keeper": engine}, worker, Measures(telemetry, clock), clock, 1, 8)
    runner.standby()
    request = pb.LoadRequest(
        epoch=1,
        instance_id="i-1",
        tenant="acme",
        model="m",
        revision=1,
        version="1",
        directory=str(tmp_path),
        files=[file],
        entry_point="m.bin",
        engine="keeper",
    )
    await runner.load(request)
    runner.unload(PATIENCE_S, "drain")
    await runner.until_gone()
    assert engine.model.kept == 0
    await runner.close()

    assert engine.model.kept == 1
    assert worker.stop(PATIENCE_S)
    telemetry.shutdown()
