"""`headrace deploy --optimize` on a real mesh: the chosen variant takes over and rolls back, and no request fails."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace import Client
from headrace.client.retry import RetryPolicy
from headrace.errors import HeadraceError

WIDTH, CLASSES = 512, 10
ASKED = ("--floor", "0.8", "--precisions", "int8")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx, which is large enough that int8 is cheaper, and samples.npz."""
    folder, random = tmp_path_factory.mktemp("classifier"), np.random.default_rng(7)
    sizes = (WIDTH, 1024, CLASSES)
    weights = [(random.standard_normal(each) / each[0] ** 0.5).astype(np.float32) for each in pairwise(sizes)]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "samples.npz", x=random.standard_normal((400, WIDTH)).astype(np.float32))
    return folder


class Asking:
    """Threads that ask a model without end and without a second try."""

    def __init__(self) -> None:
        self.answered = 0
        self.errors: list[str] = []


@contextmanager
def asking(mesh: Any, model: str, threads: int = 3) -> Iterator[Asking]:
    told, stop = Asking(), threading.Event()
    rows = np.ones((1, WIDTH), np.float32)

    def ask() -> None:
        with Client(mesh.url, retry=RetryPolicy(max_attempts=1)) as client:
            while not stop.is_set():
                try:
                    assert client.infer(model, {"x": rows})["y"].shape == (1, CLASSES)
                    told.answered += 1
                except HeadraceError as error:
                    told.errors.append(repr(error))
                stop.wait(0.005)

    asks = [threading.Thread(target=ask) for _ in range(threads)]
    for each in asks:
        each.start()
    try:
        yield told
    finally:
        stop.set()
        for each in asks:
            each.join(60)


def variants(mesh: Any, *flags: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mesh.cli("variants", "m", "--json", *flags).stdout)
    return found


def serves(mesh: Any) -> str:
    return str(mesh.describe("m")["variant"])


def test_a_variant_takes_over_and_rolls_back_without_a_failed_request_also_across_a_kill_of_the_autoscaler(
    fresh_mesh: Any, classifier: Path, eventually: Callable[..., Any]
) -> None:
    mesh = fresh_mesh("--standby", "1", config={"autoscaler": {"cpu_overcommit": 64.0}})
    samples = ("--samples", str(classifier / "samples.npz"))
    source = str(classifier / "model.onnx")
    deploy = ("deploy", source, "--name", "m", "--tenant", "acme", "--share-with", "*", "--min-instances", "1")
    said = mesh.cli(*deploy, "--optimize", *samples, *ASKED).stdout
    assert said.splitlines() == [
        "deployed m version 1 for tenant acme: ready",
        "optimizing m: see `headrace variants m`",
    ]
    with asking(mesh, "m") as clients:
        eventually(lambda: mesh.describe("m")["job"]["stage"], "it tells how far it is")
        assert serves(mesh) == "original"
        [autoscaler] = [pid for pid in mesh.pids("headrace_autoscaler") if pid not in mesh.pids("keeper")]
        orphans = mesh.pids("headrace_runner.optimizer")
        os.kill(autoscaler, signal.SIGKILL)
        eventually(lambda: not set(orphans) & set(mesh.pids("headrace_runner.optimizer")), "it goes with it")
        eventually(lambda: mesh.cli("variants", "m", check=False).returncode == 0, "the autoscaler is back")

        found = variants(mesh, "--wait")
        assert (found["job"]["state"], found["job"]["attempts"]) == ("done", 2)
        chosen = found["job"]["chosen"]
        assert chosen.startswith("int8")
        assert [each["name"] for each in found["variants"] if each["serves"]] == [chosen]
        before = clients.answered
        eventually(lambda: clients.answered > before + 50, "the variant answers")

        mesh.cli("variants", "m", "--use", "original")
        assert serves(mesh) == "original"
        assert mesh.post(f"/v1/models/m/variants/{chosen}", {})[1]["model"]["variant"] == chosen
        assert serves(mesh) == chosen
        before = clients.answered
        eventually(lambda: clients.answered > before + 50, "and again")
    assert clients.errors == []

    refused = mesh.cli("deploy", "m", "--optimize", "--samples", _narrow(classifier), check=False)
    assert (refused.returncode, refused.stderr.strip()) == (
        1,
        f"headrace: samples: array 'x' has the shape [400, {WIDTH - 1}]; expected [samples, {WIDTH}]",
    )
    rows = json.loads(mesh.cli("usage", "--json").stdout)
    assert {row["tenant"] for row in rows if row["shape"] == "optimize"} == {"acme"}


def _narrow(folder: Path) -> str:
    path = folder / "narrow.npz"
    np.savez(path, x=np.zeros((400, WIDTH - 1), np.float32))
    return str(path)
