"""Models and labels that leave nothing to compare, or not what was meant, are refused with the reason."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(
            lambda labels: np.where(np.arange(len(labels)) < 12, 7, labels),
            "12 of 1,200 different samples have a label that no answer can equal: 7 (12); "
            "the model's classes are numbered 0 to 2; leave out the samples that have no right answer here",
            id="a class too many",
        ),
        pytest.param(
            lambda labels: np.where(np.arange(len(labels)) % 4 == 0, -100.0, labels),
            "300 of 1,200 different samples have a label that no answer can equal: -100 (300); ",
            id="a mark for none",
        ),
        pytest.param(
            lambda labels: labels + 1,
            "numbered 0 to 2; they seem to be counted from 1: subtract 1",
            id="counted from 1",
        ),
        pytest.param(
            lambda labels: labels + 10 * np.minimum(np.arange(len(labels)), 9),
            "more values; the model's classes are numbered 0 to 2",
            id="many",
        ),
    ],
)
def test_labels_outside_the_models_classes_are_no_wrong_answers(
    trained: Any,
    samples: SavesSamples,
    optimize: Optimize,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[NDArray[np.int64]], NDArray[Any]],
    says: str,
) -> None:
    monkeypatch.setattr(building, "build", lambda *_: pytest.fail("nothing is made for a question without an answer"))
    path = samples(x=trained.x, kind=spoil(trained.labels))
    message = refused(optimize(trained.path, "--samples", path, "--labels=kind", "--floor=0.5"))
    assert message.startswith("headrace: --labels kind: ")
    assert says in message


def test_labels_that_the_type_of_the_answers_cannot_hold(
    samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        helper.make_node("Cast", ["place"], ["y"], to=TensorProto.UINT8),
    ]
    model = save(tmp_path / "places.onnx", nodes, helper.make_tensor_value_info("y", TensorProto.UINT8, ["n"]), [])
    path = samples(x=X, place=np.where(np.arange(len(X)) < 3, -1, X.argmax(1)))
    message = refused(optimize(model, "--samples", path, "--labels=place", "--floor=0.5"))
    assert (
        "3 of 600 different samples have a label that no answer can equal: -1 (3); the model's answers are of a type"
        in message
    )
    assert "that holds 0 to 255" in message


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


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process becomes larger: it is as if there were no room for the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_full_disk_is_no_fault_of_the_variants(
    trained: Any, samples: SavesSamples, optimize: Optimize, precision: str
) -> None:
    """Wherever it becomes full."""
    arguments = (trained.path, "--samples", samples(x=trained.x), f"--precisions={precision}", "--floor=0.5")
    whole = [each["verdict"] for each in optimize(*arguments).found["variants"]]
    full = 0
    for size in range(0, 3 * trained.path.stat().st_size, 4096):
        with files_up_to(size):
            ran = optimize(*arguments)
        if ran.code == 2:
            assert refused(ran).endswith(": File too large\n")
            full += 1
        else:
            assert [each["verdict"] for each in ran.found["variants"]] == whole
    assert full


@pytest.mark.parametrize("room", [True, False], ids=["there is room", "the disk is full"])
def test_half_a_file_is_a_variants_fault_only_where_there_is_room(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """On a full disk onnx's C++ tells nobody, and leaves as much of a file as there was room for."""
    size, path = trained.path.stat().st_size, samples(x=trained.x)
    monkeypatch.setattr(
        onnx.shape_inference, "infer_shapes_path", lambda whole, target: Path(target).write_bytes(b"\xff" * 9)
    )
    with files_up_to(16 * size if room else size + size // 2):
        ran = optimize(trained.path, "--samples", path, "--precisions=int8")
    if room:
        assert "onnxruntime.quantization: DecodeError: " in ran.variant("int8-static")["reason"]
    else:
        assert refused(ran).endswith(": File too large\n")


def test_samples_that_no_memory_holds_are_a_sentence(
    trained: Any, samples: SavesSamples, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(run, "read_samples", none_left)
    message = refused(optimize(trained.path, "--samples", samples(x=trained.x)))
    assert "this takes more memory than there is; bring fewer samples" in message
