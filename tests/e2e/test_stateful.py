"""Stateful models on a real mesh: clients as they are, processes that die, and silero-vad's own answers."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from headrace import AsyncClient, Client, Step
from headrace.demo import vad
from headrace.demo.audio import made_voice, streams
from headrace.demo.vad_stream import SAMPLE_RATE
from headrace.errors import FailedPrecondition, StreamItemFailed, Unavailable

ROW = 4


@pytest.fixture
def counter(tmp_path: Path) -> Path:
    """y is all that its sequence was given, added up."""
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", ROW]) for n in ("x", "s", "y", "s_out")]
    nodes = [helper.make_node("Add", ["x", "s"], ["y"]), helper.make_node("Identity", ["y"], ["s_out"])]
    graph = helper.make_graph(nodes, "counter", tensors[:2], tensors[2:])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "sums.onnx"
    )
    return tmp_path / "sums.onnx"


def deploy(mesh: Any, counter: Path, *flags: str) -> None:
    mesh.cli("deploy", str(counter), "--name", "sums", "--state", "s_out=s", "--wait", *flags)


def row(value: float, kind: Any = triton) -> list[Any]:
    made = kind.InferInput("x", [1, ROW], "FP32")
    made.set_data_from_numpy(np.full((1, ROW), value, np.float32))
    return [made]


def add(client: Client, value: float, of: int | str = 1, **more: Any) -> float:
    answer = client.infer("sums", {"x": np.full((1, ROW), value, np.float32)}, sequence_id=of, **more)
    assert list(answer) == ["y"]
    return float(answer["y"][0, 0])


@pytest.mark.parametrize("module", [triton, triton_http], ids=["gRPC", "REST"])
@pytest.mark.parametrize("of", [7, "call-7"], ids=["number", "text"])
def test_tritons_clients_keep_sequences(mesh: Any, counter: Path, module: Any, of: int | str) -> None:
    deploy(mesh, counter)
    with module.InferenceServerClient(mesh.target) as client:
        sums = [
            client.infer(
                "sums", row(1.0, module), sequence_id=of, sequence_start=turn == 0, sequence_end=turn == 2
            ).as_numpy("y")[0, 0]
            for turn in range(3)
        ]
        assert sums == [1.0, 2.0, 3.0]
        with pytest.raises(InferenceServerException, match="is not open: it has ended, by a request with sequence_end"):
            client.infer("sums", row(1.0, module), sequence_id=of)
        with pytest.raises(InferenceServerException, match="model 'sums' is stateful, so each request names its"):
            client.infer("sums", row(1.0, module))
    with triton.InferenceServerClient(mesh.target) as client:
        shown = client.get_model_metadata("sums")
        assert ([each.name for each in shown.inputs], [each.name for each in shown.outputs]) == (["x"], ["y"])
        [state] = client.get_model_config("sums").config.sequence_batching.state
        assert (state.input_name, state.output_name, list(state.dims)) == ("s", "s_out", [ROW])


def test_on_one_stream_many_sequences_are_sent_ahead(mesh: Any, counter: Path) -> None:
    deploy(mesh, counter)
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(mesh.target) as client:
        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for turn in range(10):
            for of in range(1, 9):
                client.async_stream_infer(
                    "sums",
                    row(float(of)),
                    request_id=f"{of}/{turn}",
                    sequence_id=of,
                    sequence_start=turn == 0,
                    sequence_end=turn == 9,
                )
        seen: dict[str, float] = {}
        for _ in range(80):
            result, error = answers.get(timeout=30)
            assert error is None, error
            seen[result.get_response().id] = result.as_numpy("y")[0, 0]
        client.stop_stream()
    assert seen == {f"{of}/{turn}": float(of * (turn + 1)) for of in range(1, 9) for turn in range(10)}


def test_our_own_clients_send_the_steps_of_sequences_ahead_on_one_stream(mesh: Any, counter: Path) -> None:
    deploy(mesh, counter)
    steps = [
        Step({"x": np.full((1, ROW), of, np.float32)}, f"s{of}", sequence_start=turn == 0, sequence_end=turn == 4)
        for turn in range(5)
        for of in (1.0, 2.0)
    ]

    async def heard() -> dict[int, float]:
        async with AsyncClient(mesh.url) as client:
            return {index: outputs["y"][0, 0] async for index, outputs in client.stream("sums", steps)}

    sums = {index: float(of * (index // 2 + 1)) for index, of in enumerate([1.0, 2.0] * 5)}
    assert asyncio.run(heard()) == sums
    with Client(mesh.url) as client:
        assert {index: outputs["y"][0, 0] for index, outputs in client.stream("sums", steps)} == sums
        with pytest.raises(StreamItemFailed, match="it has ended, by a request with sequence_end"):
            list(client.stream("sums", [Step({"x": np.ones((1, ROW), np.float32)}, "s1.0")]))


def test_kill_9_of_the_runner_costs_a_sequence_nothing(fresh_mesh: Any, counter: Path) -> None:
    mesh = fresh_mesh("--standby", "1")
    deploy(mesh, counter)
    with Client(mesh.url) as client:
        assert [add(client, 1.0, sequence_start=turn == 0) for turn in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
        os.kill(int(mesh.describe("sums")["instances"][0]["pid"]), signal.SIGKILL)
        assert [add(client, 1.0) for _ in range(5)] == [6.0, 7.0, 8.0, 9.0, 10.0]


def test_a_sequence_outlives_all_instances_of_its_model(
    mesh: Any, counter: Path, eventually: Callable[..., Any]
) -> None:
    deploy(mesh, counter, "--idle-timeout", "100ms")
    with Client(mesh.url) as client:
        assert add(client, 1.0, of="slow", sequence_start=True) == 1.0
        eventually(lambda: not mesh.describe("sums")["instances"], "the model is at zero")
        assert add(client, 2.0, of="slow", sequence_end=True) == 3.0


def test_kill_9_of_the_router_ends_sequences_with_a_clear_error(
    fresh_mesh: Any, counter: Path, eventually: Callable[..., Any]
) -> None:
    mesh = fresh_mesh("--standby", "1")
    deploy(mesh, counter)
    with Client(mesh.url) as client:
        assert add(client, 1.0, sequence_start=True) == 1.0
        [router] = mesh.pids("envoy")
        os.kill(router, signal.SIGKILL)
        said = eventually(lambda: told(client), "the router is back")
        assert "no request with sequence_start has begun it at this router" in said
        assert add(client, 1.0, sequence_start=True) == 1.0


def told(client: Client) -> str:
    """What a client is told that just goes on; "" while it cannot connect."""
    try:
        return f"it went on, with {add(client, 1.0)}"
    except Unavailable:
        return ""
    except FailedPrecondition as error:
        return error.message


def test_a_step_that_reaches_another_router_is_told_so(
    fresh_mesh: Any, counter: Path, eventually: Callable[..., Any]
) -> None:
    mesh = fresh_mesh("--standby", "1", "--routers", "2")
    deploy(mesh, counter)

    def step(**parameters: bool) -> tuple[int, Any]:
        """On a connection of its own, which either router may get."""
        x = {"name": "x", "shape": [1, ROW], "datatype": "FP32", "data": [1.0] * ROW}
        body = {"inputs": [x], "parameters": {"sequence_id": "call-7", **parameters}}
        return mesh.post("/v2/models/sums/infer", body)[:2]

    assert step(sequence_start=True)[0] == 200
    answers: list[tuple[int, Any]] = []
    eventually(lambda: answers.append(step()) or {status for status, _ in answers} == {200, 400}, "both routers asked")
    sums = [answer["outputs"][0]["data"][0] for status, answer in answers if status == 200]
    assert sums == [float(turn) for turn in range(2, 2 + len(sums))]
    [said] = {answer["error"] for status, answer in answers if status == 400}
    assert "all requests of a sequence go to one router, by one connection" in said


def test_a_redeploy_ends_sequences_with_a_clear_error(mesh: Any, counter: Path) -> None:
    deploy(mesh, counter)
    with Client(mesh.url) as client:
        assert add(client, 1.0, of="old", sequence_start=True) == 1.0
        deploy(mesh, counter, "--sequence-idle", "5m")
        with pytest.raises(FailedPrecondition, match="on which it was, was replaced"):
            add(client, 1.0, of="old")
        assert add(client, 1.0, of="old", sequence_start=True) == 1.0


def test_a_model_whose_state_has_a_free_dimension_is_refused(mesh: Any, models: Path) -> None:
    done = mesh.cli("deploy", str(models / "add.onnx"), "--name", "wrong", "--state", "y=h", "--wait", check=False)
    assert done.returncode == 1
    assert "states: the model has no input 'h'; there are: x" in done.stderr


def test_silero_vad_hears_in_16_streams_what_its_package_hears_in_each(mesh: Any) -> None:
    sounds = streams([made_voice(seed, SAMPLE_RATE) for seed in range(3)], 16, 3.0, SAMPLE_RATE)
    vad.deploy(mesh.url)
    heard, alone = asyncio.run(vad.listen(mesh.url, sounds)), vad.listen_alone(sounds)
    assert [len(each) for each in heard.probabilities] == [93] * 16
    for ours, theirs in zip(heard.probabilities, alone.probabilities, strict=True):
        assert np.abs(ours - theirs).max() <= vad.TOLERANCE
        assert theirs.max() - theirs.min() > 0.1, "the streams are no silence"
    statistics = mesh.get(f"/v2/models/{vad.MODEL}/stats")[1]["model_stats"][0]
    assert statistics["execution_count"] < statistics["inference_count"] / 2, "streams share bundles"
