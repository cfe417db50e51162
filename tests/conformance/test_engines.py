"""What every engine must do. New engines are added to `engines.registered`."""

from __future__ import annotations

import gc
import resource
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import MOST_DIMENSIONS, EngineTensor
from headrace_runner.engines.base import (
    EngineError,
    ExecutionFailed,
    InputRefused,
    LoadedModel,
    ModelRefused,
    OutOfMemory,
)
from headrace_runner.engines.fake import FakeEngine
from headrace_runner.engines.registry import SERVED, pick, prepare
from headrace_runner.probe import probe_rows
from headrace_runner.process import resident_bytes
from headrace_runner.tensors import DTYPES
from tests.conformance.engines.kits import DATATYPES, ENGINES, Kit, Tensors, bf16, made_up
from tests.conformance.engines.registered import KITS

COMPUTE = [kit for kit in KITS if kit.doubled is not None]
# Two NaNs, the infinities, minus zero and the smallest denormal.
_BF16_ODDITIES = np.array([0x7FC0, 0x7FC1, 0x7F80, 0xFF80, 0x8000, 0x0001], np.uint16)


def with_datatypes(
    datatypes: Iterable[str],
    kits: Iterable[Kit] = KITS,
    which: Callable[[Kit], frozenset[str]] = lambda kit: kit.datatypes,
) -> pytest.MarkDecorator:
    """Runs a test for each of these datatypes with each engine that has it."""
    pairs = [(kit, datatype) for kit in kits for datatype in sorted(which(kit).intersection(datatypes))]
    names = [f"{kit.engine}-{datatype}" for kit, datatype in pairs]
    return pytest.mark.parametrize(("kit", "datatype"), pairs, indirect=["kit"], ids=names)


@pytest.fixture(params=KITS, ids=lambda kit: kit.engine)
def kit(request: pytest.FixtureRequest) -> Kit:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def loader(kit: Kit, tmp_path: Path) -> Callable[..., LoadedModel]:
    """Loads bytes, or an identity on the given tensors."""

    def load(content: bytes | Tensors, outputs: Tensors | None = None, **options: str) -> LoadedModel:
        if not isinstance(content, bytes):
            made = outputs or [(f"{name}_out", datatype, shape) for name, datatype, shape in content]
            content = kit.identity(content, made)
        return kit.load(tmp_path, content, **options)

    return load


@with_datatypes(DATATYPES)
def test_every_datatype_passes_as_it_is(loader: Callable[..., LoadedModel], datatype: str) -> None:
    model = loader([("x", datatype, ["N", 3])])
    given = made_up(datatype, (4, 3))
    result = model.run({"x": given})["x_out"]
    assert (result.dtype, result.shape) == (given.dtype, given.shape)
    assert result.tolist() == given.tolist()
    assert model.inputs[0].datatype == model.outputs[0].datatype == datatype


@with_datatypes(DATATYPES)
def test_a_batch_of_no_rows_has_no_rows(loader: Callable[..., LoadedModel], datatype: str) -> None:
    result = loader([("x", datatype, ["N", 3])]).run({"x": made_up(datatype, (0, 3))})["x_out"]
    assert (result.shape, result.dtype) == ((0, 3), DTYPES[datatype])


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (0, 2, 3), (2, 0, 3), (1, 300_000, 3)], ids=str)
def test_dimensions_of_any_size_have_any_size(loader: Callable[..., LoadedModel], shape: tuple[int, ...]) -> None:
    model = loader([("x", "FP32", ["N", "T", 3])])
    given = made_up("FP32", shape)
    result = model.run({"x": given})["x_out"]
    assert result.shape == shape
    assert (result == given).all()


def test_there_may_be_as_many_dimensions_as_are_served(loader: Callable[..., LoadedModel]) -> None:
    sizes = [*(1 for _ in range(MOST_DIMENSIONS - 2)), 2]
    given = made_up("FP32", (3, *sizes))
    result = loader([("x", "FP32", ["N", *sizes])]).run({"x": given})["x_out"]
    assert (result.shape, result.tolist()) == (given.shape, given.tolist())


def test_one_model_takes_one_shape_after_another(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", ["N", "T"])])
    for shape in [(1, 5), (64, 5), (2, 1), (0, 1), (1, 5), (3, 200)] * 3:
        given = made_up("FP32", shape)
        assert model.run({"x": given})["x_out"].tolist() == given.tolist()


def test_symbolic_and_fixed_dimensions_are_told_apart(loader: Callable[..., LoadedModel]) -> None:
    dims = loader([("x", "FP32", ["N", 4])]).inputs[0].dims
    assert [isinstance(dim, str) for dim in dims] == [True, False]
    assert dims[1] == 4


def test_a_scalar_is_a_scalar(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", [])])
    assert model.inputs == (EngineTensor("x", "FP32", ()),)
    assert model.run({"x": np.array(2.5, np.float32)})["x_out"].tolist() == 2.5


@with_datatypes(["FP16", "FP32", "FP64", "BF16"])
def test_what_is_not_a_number_passes(loader: Callable[..., LoadedModel], datatype: str) -> None:
    model = loader([("x", datatype, ["N"])])
    if datatype == "BF16":
        given = _BF16_ODDITIES
    else:
        given = np.array([np.nan, np.inf, -np.inf, -0.0, np.finfo(DTYPES[datatype]).smallest_subnormal])
        given = given.astype(DTYPES[datatype])
    assert model.run({"x": given})["x_out"].tobytes() == given.tobytes()


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda array: np.frombuffer(array.tobytes(), np.float32).reshape(array.shape), id="read-only"),
        pytest.param(lambda array: np.repeat(array, 2, axis=0)[::2], id="every other row"),
        pytest.param(lambda array: np.ascontiguousarray(array.T).T, id="by columns"),
        pytest.param(
            lambda array: np.frombuffer(b"\0" + array.tobytes(), np.uint8)[1:].view(np.float32).reshape(array.shape),
            id="at an odd address",
        ),
    ],
)
def test_input_may_lie_in_memory_in_any_way(loader: Callable[..., LoadedModel], view: Callable[[Any], Any]) -> None:
    model = loader([("x", "FP32", ["N", "T"])])
    given = made_up("FP32", (3, 5))
    assert model.run({"x": view(given)})["x_out"].tolist() == given.tolist()


def test_what_was_answered_stays_when_the_next_batch_runs(loader: Callable[..., LoadedModel], kit: Kit) -> None:
    model = loader([("x", "FP32", ["N"])])
    first = model.run({"x": np.full(8, 1, np.float32)})["x_out"]
    model.run({"x": np.full(8, 2, np.float32)})
    assert first.tolist() == [1] * 8
    model.close()
    assert first.tolist() == [1] * 8


def test_only_wanted_outputs_are_given(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("a", "FP32", ["N"]), ("b", "INT64", ["N"])])
    given = {"a": made_up("FP32", (2,)), "b": made_up("INT64", (2,))}
    assert list(model.run(given)) == ["a_out", "b_out"]
    assert list(model.run(given, ("b_out",))) == ["b_out"]
    with pytest.raises(InputRefused, match="none"):
        model.run(given, ("none",))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"x": np.zeros((2, 4), np.float32)}, id="a wrong size"),
        pytest.param({"x": np.zeros(3, np.float32)}, id="a wrong rank"),
        pytest.param({"x": np.zeros((2, 3), np.float64)}, id="a wrong datatype"),
        pytest.param({"x": np.array([[b"text"] * 3], dtype=object)}, id="text for numbers"),
        pytest.param({"z": np.zeros((2, 3), np.float32)}, id="another name"),
        pytest.param({"x": np.zeros((2, 3), np.float32), "z": np.zeros(1, np.float32)}, id="one too many"),
        pytest.param({}, id="nothing"),
    ],
)
def test_input_that_does_not_fit_is_refused_and_the_next_runs(
    loader: Callable[..., LoadedModel], inputs: dict[str, Any]
) -> None:
    model = loader([("x", "FP32", ["N", 3])])
    with pytest.raises(InputRefused) as caught:
        model.run(inputs)
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert model.run({"x": np.ones((1, 3), np.float32)})["x_out"].tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    "content", [None, b"", b"\0" * 64, b"PK\3\4"], ids=["corrupt", "empty", "zeros", "a zip's head"]
)
def test_what_is_no_model_is_refused_with_the_engines_reason(kit: Kit, tmp_path: Path, content: bytes | None) -> None:
    with pytest.raises(ModelRefused) as caught:
        kit.load(tmp_path, kit.corrupt if content is None else content)
    reason = str(caught.value)
    assert kit.file in reason
    assert content is not None or reason.startswith(kit.reason)
    assert str(tmp_path) not in reason
    assert "\n" not in reason


def test_an_unknown_option_is_refused_by_name(loader: Callable[..., LoadedModel]) -> None:
    with pytest.raises(ModelRefused, match="'warp_speed' is not known"):
        loader([("x", "FP32", ["N"])], warp_speed="9")


def test_models_load_and_run_beside_each_other(kit: Kit, tmp_path: Path) -> None:
    width = 4
    barrier = threading.Barrier(width)
    content = kit.identity([("x", "FP32", ["N"])], [("y", "FP32", ["N"])])

    def one(number: int) -> list[list[float]]:
        folder = tmp_path / str(number)
        folder.mkdir()
        barrier.wait(20)
        model = kit.load(folder, content)
        runs = [model.run({"x": np.full(2, 10 * number + turn, np.float32)})["y"].tolist() for turn in range(5)]
        model.close()
        return runs

    with ThreadPoolExecutor(width) as pool:
        assert list(pool.map(one, range(width))) == [[[10 * n + t] * 2 for t in range(5)] for n in range(width)]


def test_a_closed_model_does_not_run(loader: Callable[..., LoadedModel]) -> None:
    model = loader([("x", "FP32", ["N"])])
    model.close()
    model.close()
    with pytest.raises(ExecutionFailed, match="closed"):
        model.run({"x": np.zeros(1, np.float32)})


def test_independent_rows_are_found_so(loader: Callable[..., LoadedModel], kit: Kit) -> None:
    second = ("s", "BYTES", ["N", 1]) if "BYTES" in kit.datatypes else ("s", "INT32", ["N", 1])
    assert probe_rows(loader([("x", "FP32", ["N", "T"]), second])).difference is None


@with_datatypes(DATATYPES, COMPUTE, lambda kit: kit.doubles)
def test_sums_are_numpys(loader: Callable[..., LoadedModel], kit: Kit, datatype: str) -> None:
    """Integers wrap around, as numpy's do."""
    assert kit.doubled is not None
    dtype = DTYPES[datatype]
    if datatype == "BF16":
        odd = np.array([0, 0.5, -7, 2.0**126, np.inf, -np.inf, np.nan], np.float32)
        assert loader(kit.doubled(datatype)).run({"x": bf16(odd)})["y"].tolist() == bf16(odd + odd).tolist()
        return
    if dtype.kind == "f":
        given = np.array([0, 0.1, -7, np.finfo(dtype).max, np.inf, np.nan], dtype)
    else:
        given = np.array([0, 1, 3, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype)
    with np.errstate(over="ignore"):
        expected = given + given
    np.testing.assert_array_equal(loader(kit.doubled(datatype)).run({"x": given})["y"], expected)


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
@pytest.mark.parametrize("rows", [0, 1, 2, 33])
def test_answers_are_numpys_within_the_tolerance_of_floats(
    loader: Callable[..., LoadedModel], kit: Kit, rows: int
) -> None:
    assert kit.dense is not None
    random = np.random.default_rng(5)
    w, b = random.normal(size=(70, 30)).astype(np.float32), random.normal(size=30).astype(np.float32)
    x = random.normal(size=(rows, 70)).astype(np.float32)
    reference = np.maximum(x.astype(np.float64) @ w + b, 0)
    np.testing.assert_allclose(loader(kit.dense(w, b)).run({"x": x})["y"], reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
def test_a_row_that_is_not_a_number_spoils_no_other(loader: Callable[..., LoadedModel], kit: Kit) -> None:
    assert kit.dense is not None
    x = np.ones((5, 3), np.float32)
    x[1, 1], x[3] = np.nan, np.inf
    result = loader(kit.dense(np.ones((3, 2), np.float32), np.zeros(2, np.float32))).run({"x": x})["y"]
    np.testing.assert_array_equal(result, np.repeat([[3], [np.nan], [3], [np.inf], [3]], 2, axis=1))


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
def test_an_output_has_the_size_that_the_data_say(loader: Callable[..., LoadedModel], kit: Kit) -> None:
    assert kit.sized is not None
    model = loader(kit.sized())
    for size in (3, 0, 1, 1 << 20, 3):
        assert model.run({"n": np.array([size])})["y"].shape == (size,)


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
@pytest.mark.parametrize(
    ("size", "error"),
    [(1 << 44, OutOfMemory), (1 << 62, ExecutionFailed), (-5, ExecutionFailed)],
    ids=["64 TiB", "over 64 bits", "below zero"],
)
def test_a_size_that_no_memory_has_fails_its_batch_and_the_next_runs(
    loader: Callable[..., LoadedModel], kit: Kit, size: int, error: type[EngineError]
) -> None:
    assert kit.sized is not None
    model = loader(kit.sized())
    with pytest.raises(EngineError) as caught:
        model.run({"n": np.array([size])})
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert model.run({"n": np.array([2])})["y"].tolist() == [0, 0]


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
def test_closing_frees_the_weights(kit: Kit, tmp_path: Path) -> None:
    assert kit.weights is not None
    size = 64 << 20
    model = kit.load(tmp_path, kit.weights(size))
    assert model.run({"x": np.ones((2, 1), np.float32)})["y"].ravel().tolist() == [size // 4 - 1] * 2
    gc.collect()
    held = resident_bytes()
    model.close()
    gc.collect()
    assert held - resident_bytes() > size // 2


@pytest.mark.parametrize("kit", COMPUTE, indirect=True)
def test_loading_again_and_again_holds_no_more_memory(kit: Kit, tmp_path: Path) -> None:
    assert kit.weights is not None
    size, held = 16 << 20, []
    content = kit.weights(size)
    for _ in range(24):
        model = kit.load(tmp_path, content)
        model.run({"x": np.ones((2, 1), np.float32)})
        model.close()
        gc.collect()
        held.append(resident_bytes())
    # The allocator may keep the pages of some loads before it reuses them; what leaks goes on growing.
    assert held[-1] - held[12] < 4 * size


def test_every_engine_that_needs_no_gpu_is_here_and_has_a_kit() -> None:
    assert {kit.engine for kit in KITS} == SERVED - {"tensorrt", "tensorrt-rtx"}


def test_an_unknown_engine_names_those_there_are() -> None:
    with pytest.raises(InvalidArgument, match="engine 'nonesuch' is not available on this runner; it has: fake, onnx"):
        pick(ENGINES, "nonesuch")


def test_a_prepared_engine_holds_heap_for_the_load_that_comes() -> None:
    with ThreadPoolExecutor(1) as thread:
        thread.submit(prepare, ENGINES).result()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        thread.submit(lambda: np.ones(8 << 20, np.uint8)).result()
        pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert pages < (8 << 20) // resource.getpagesize() // 2


def test_an_engine_that_cannot_be_prepared_does_not_keep_the_runner_from_starting() -> None:
    class Broken(FakeEngine):
        def prepare(self) -> None:
            raise RuntimeError("no device")

    prepare({"broken": Broken()})
