"""Models and labels that leave nothing to compare, or not what was meant, are refused with the reason."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from headrace_runner.optimizer import building, run

Optimize = Callable[..., Any]
SavesSamples = Callable[..., str]
SILERO = "silero_vad/data/silero_vad.onnx"
X = np.random.default_rng(3).normal(size=(600, 4)).astype(np.float32)


def refused(ran: Any) -> str:
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("headrace: ")
    return str(ran.err)


def numbers(*values: int) -> list[Any]:
    return [helper.make_tensor(f"n{value}", TensorProto.INT64, [1], [value]) for value in values]


def save(path: Path, nodes: list[Any], output: Any, constants: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes, "odd", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])], [output], constants
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_answers_without_values_are_not_taken_for_agreement(
    samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Slice", ["x", "n0", "n0", "n1"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 0])
    model = save(tmp_path / "empty.onnx", nodes, output, numbers(0, 1))
    assert "its answers hold no values" in refused(optimize(model, "--samples", samples(x=X), "--precisions=fp32"))


def test_rows_whose_shape_depends_on_the_batch_cannot_be_compared(
    samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole", "n1"], ["width"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "n0", "n1"], ["rows"]),
        helper.make_node("Concat", ["rows", "width"], ["both"], axis=0),
        helper.make_node("ConstantOfShape", ["both"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "k"])
    model = save(tmp_path / "ragged.onnx", nodes, output, numbers(0, 1))
    x = np.abs(X)
    x[:300, 0], x[300:, 0] = 8.0, 9.0
    ran = optimize(model, "--samples", samples(x=x), "--precisions=fp32", "--compare=close")
    assert "output 'y' has rows of [8] and [9], which cannot be compared" in refused(ran)


def test_an_input_that_has_no_rows_is_named(samples: SavesSamples, optimize: Optimize) -> None:
    silero = pytest.importorskip("silero_vad", reason="silero-vad is not installed")
    model = Path(silero.__file__).parents[1] / SILERO
    state, input_ = np.zeros((2, 600, 128), np.float32), np.zeros((600, 576), np.float32)
    message = refused(optimize(model, "--samples", samples(input=input_, state=state, sr=np.int64(16000))))
    assert "input 'sr' is a single value and has no rows; expected inputs with a row per sample" in message


@pytest.mark.parametrize(
    ("spoil", "rows"),
    [
        pytest.param(lambda labels: np.where(np.arange(len(labels)) % 3, labels, np.nan), "400 of 1,200", id="NaN"),
        pytest.param(lambda labels: labels + 0.25, "1,200 of 1,200", id="fractions"),
        pytest.param(lambda labels: np.full(len(labels), np.inf), "1,200 of 1,200", id="infinite"),
    ],
)
def test_labels_that_no_answer_can_equal(
    trained: Any,
    samples: SavesSamples,
    optimize: Optimize,
    spoil: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    rows: str,
) -> None:
    path = samples(x=trained.x, kind=spoil(trained.labels))
    message = refused(optimize(trained.path, "--samples", path, "--labels=kind", "--precisions=fp32"))
    assert f"labels 'kind' are NaN or no whole numbers in {rows} rows" in message


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_answers_in_words_are_held_against_labels_in_words(
    samples: SavesSamples, optimize: Optimize, tmp_path: Path, dtype: str
) -> None:
    words = helper.make_tensor("words", TensorProto.STRING, [4], [b"a", b"b", "ç".encode(), b"d"])
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0),
        helper.make_node("Gather", ["words", "best"], ["y"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.STRING, ["n"])
    model = save(tmp_path / "words.onnx", nodes, output, [words])
    labels = np.array(["a", "b", "ç", "d"])[X.argmax(1)]
    path = samples(x=X, kind=labels if dtype == "U" else np.char.encode(labels, "utf-8"))
    ran = optimize(model, "--samples", path, "--labels=kind", "--precisions=fp32")
    assert ran.code == 0, ran.err
    assert ran.variant("original")["quality"]["share"] == 1.0


def test_a_full_disk_is_no_fault_of_the_variants(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setitem(building._MAKERS, building.Method.CAST, full)
    message = refused(optimize(trained.path, "--samples", samples(x=trained.x), "--precisions=fp16"))
    assert message.endswith(": No space left on device\n")


def test_samples_that_no_memory_holds_are_a_sentence(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(run, "read_samples", none_left)
    message = refused(optimize(trained.path, "--samples", samples(x=trained.x)))
    assert "this takes more memory than there is; bring fewer samples" in message
