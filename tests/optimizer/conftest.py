"""A small real model: a perceptron with two hidden layers, trained here on three kinds of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headrace_runner.optimizer.__main__ import main

FEATURES, HIDDEN, KINDS, ROWS = 16, 64, 3, 1200


@dataclass(frozen=True)
class Trained:
    path: Path
    x: NDArray[np.float32]
    labels: NDArray[np.int64]


def _data() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(7)
    centres = generator.normal(size=(KINDS, FEATURES)) * 2
    labels = generator.integers(0, KINDS, ROWS)
    return (centres[labels] + generator.normal(size=(ROWS, FEATURES))).astype(np.float32), labels


def _train(x: NDArray[np.float32], labels: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Three weight matrices, by gradient descent on the cross entropy."""
    generator = np.random.default_rng(8)
    sizes = [(FEATURES, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, KINDS)]
    layers = [(generator.normal(size=size) / np.sqrt(size[0])).astype(np.float32) for size in sizes]
    wanted = np.eye(KINDS, dtype=np.float32)[labels]
    for _ in range(60):
        first = np.maximum(x @ layers[0], 0)
        second = np.maximum(first @ layers[1], 0)
        scores = second @ layers[2]
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        back = (shares / shares.sum(axis=1, keepdims=True) - wanted) / len(x)
        back_second = (back @ layers[2].T) * (second > 0)
        back_first = (back_second @ layers[1].T) * (first > 0)
        for layer, slope in zip(layers, (x.T @ back_first, first.T @ back_second, second.T @ back), strict=True):
            layer -= np.float32(0.5) * slope
    return layers


def _write(layers: list[NDArray[np.float32]], path: Path, rows: int | str = "n") -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, KINDS])],
        [numpy_helper.from_array(layer, f"w{place}") for place, layer in enumerate(layers)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("model") / "kinds.onnx"
    x, labels = _data()
    _write(_train(x, labels), path)
    return Trained(path, x, labels)


@pytest.fixture
def fixed_batch(trained: Trained, tmp_path: Path) -> Path:
    """The same model for exactly four rows."""
    weights = [numpy_helper.to_array(tensor) for tensor in onnx.load(str(trained.path)).graph.initializer]
    path = tmp_path / "four.onnx"
    _write([np.array(each) for each in weights], path, rows=4)
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Callable[..., str]:
    def write(**arrays: Any) -> str:
        path = tmp_path / "samples.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


@dataclass(frozen=True)
class Ran:
    code: int
    found: dict[str, Any]
    out: str
    err: str

    def variant(self, name: str) -> dict[str, Any]:
        [found] = [each for each in self.found["variants"] if each["name"] == name]
        return found


@pytest.fixture
def optimize(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the program as `headrace optimize` does; timing is as short as it can be."""

    def run(*arguments: object) -> Ran:
        code = main([*map(str, arguments), "--time=0.01s"])
        printed = capsys.readouterr()
        return Ran(code, json.loads(printed.out) if printed.out else {}, printed.out, printed.err)

    return run
