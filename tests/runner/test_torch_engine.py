"""The torch engine on programs that headrace.models.export wrote: the module's answers, or a refusal that says why."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.models import export
from headrace_runner.engines.base import (
    ExecutionFailed,
    InputRefused,
    LoadedModel,
    ModelRefused,
    ModelSource,
    OnGpu,
    OutOfMemory,
)
from headrace_runner.engines.torch_engine import TorchEngine
from headrace_runner.probe import probe_rows
from headrace_runner.process import resident_bytes
from headrace_runner.tensors import DTYPES

TYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}


class Function(torch.nn.Module):
    """A module of a function of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Same(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Two(torch.nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scaled": x * mask.unsqueeze(1), "kept": mask > 0}


class Net(torch.nn.Module):
    """Convolution and normalisation, which differ between training and serving."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.5),
            torch.nn.Flatten(),
        )
        self.head = torch.nn.Linear(4 * 36, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(image))  # type: ignore[no-any-return]


@pytest.fixture
def served(tmp_path: Path) -> Callable[..., LoadedModel]:
    """Exports a module and loads what was written. `options`: of the engine; the rest: of the export."""

    def serve(module: torch.nn.Module, example: Any, options: dict[str, str] | None = None, **how: Any) -> LoadedModel:
        path = tmp_path / "model.pt2"
        export(module, example, path=path, **how)
        return TorchEngine().load(ModelSource(path, "model.pt2", options or {}))

    return serve


def test_it_answers_as_the_module_does(served: Callable[..., LoadedModel]) -> None:
    net = Net()
    model = served(net, torch.randn(1, 1, 8, 8))
    images = np.random.default_rng(1).random((5, 1, 8, 8), np.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(model.run({"image": images})["output"], expected, rtol=1e-5, atol=1e-6)
    assert [(t.name, t.datatype, t.dims[1:]) for t in model.inputs] == [("image", "FP32", (1, 8, 8))]
    assert [(t.name, t.datatype, t.dims[1:]) for t in model.outputs] == [("output", "FP32", (10,))]
    assert model.inputs[0].dims[0] == model.outputs[0].dims[0]
    assert isinstance(model.inputs[0].dims[0], str)
    assert probe_rows(model).difference is None


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_passes_as_it_is(served: Callable[..., LoadedModel], datatype: str) -> None:
    model = served(Same(), torch.zeros(2, 3).to(TYPES[datatype]))
    given = (np.arange(12) % 2).astype(DTYPES[datatype]).reshape(4, 3)
    given.flags.writeable = False
    got = model.run({"x": given})["output"]
    assert (got.dtype, got.shape, got.tolist()) == (given.dtype, given.shape, given.tolist())
    assert model.inputs[0].datatype == model.outputs[0].datatype == datatype
    assert not np.shares_memory(got, given)


def test_what_is_not_a_number_passes(served: Callable[..., LoadedModel]) -> None:
    given = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    model = served(Same(), torch.zeros(2, 4))
    assert model.run({"x": given})["output"].tobytes() == given.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 2, 100])
def test_a_batch_has_any_number_of_rows(served: Callable[..., LoadedModel], rows: int) -> None:
    model = served(Two(), (torch.ones(2, 3), torch.ones(2)))
    found = model.run({"x": np.full((rows, 3), 2, np.float32), "mask": np.ones(rows, np.float32)})
    assert found["scaled"].tolist() == [[2, 2, 2]] * rows
    assert found["kept"].dtype == np.bool_


def test_only_wanted_outputs_are_given(served: Callable[..., LoadedModel]) -> None:
    model = served(Two(), (torch.ones(2, 3), torch.ones(2)), inputs=["pixels", "weights"])
    given = {"pixels": np.ones((1, 3), np.float32), "weights": np.ones(1, np.float32)}
    assert list(model.run(given)) == ["scaled", "kept"]
    assert list(model.run(given, ("kept",))) == ["kept"]


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        pytest.param(
            {"x": np.zeros((2, 4), np.float32)}, r"'x': expected \[\w+, 3\]; \[2, 4\] came", id="a wrong size"
        ),
        pytest.param({"x": np.zeros(3, np.float32)}, r"'x': expected \[\w+, 3\]; \[3\] came", id="a wrong rank"),
        pytest.param({"x": np.zeros((2, 3))}, "'x': expected FP32; float64 came", id="a wrong datatype"),
        pytest.param({}, "'mask' is missing", id="nothing"),
        pytest.param({"y": np.zeros(1)}, "there is no input 'y'; expected 'x', 'mask'", id="unknown"),
        pytest.param(
            {"x": np.zeros((3, 3), np.float32)},
            "'mask': dimension 0 is as large as dimension 0 of 'x', 3; 2 came",
            id="rows that differ",
        ),
    ],
)
def test_input_that_does_not_fit_is_refused_and_the_next_runs(
    served: Callable[..., LoadedModel], inputs: dict[str, Any], reason: str
) -> None:
    model = served(Two(), (torch.ones(2, 3), torch.ones(2)))
    good = {"x": np.zeros((2, 3), np.float32), "mask": np.zeros(2, np.float32)}
    bad = {**({"mask": good["mask"]} if inputs else {"x": good["x"]}), **inputs}
    with pytest.raises(InputRefused, match=reason):
        model.run(bad)
    with pytest.raises(InputRefused, match="there is no output 'none'; expected 'scaled', 'kept'"):
        model.run(good, ("none",))
    assert model.run(good)["kept"].tolist() == [False, False]


def test_a_size_outside_its_bounds_is_refused_with_them(served: Callable[..., LoadedModel]) -> None:
    model = served(
        Same(), torch.ones(2, 8), dynamic={"x": {1: "length"}}, bounds={"length": (2, 512), "batch": (1, 16)}
    )
    assert model.run({"x": np.ones((16, 512), np.float32)})["output"].shape == (16, 512)
    with pytest.raises(InputRefused, match="'x': dimension 1 takes 2 to 512; 513 came"):
        model.run({"x": np.ones((1, 513), np.float32)})
    with pytest.raises(InputRefused, match="'x': dimension 0 takes 1 to 16; 17 came"):
        model.run({"x": np.ones((17, 9), np.float32)})


def test_a_size_that_follows_from_another_is_checked(tmp_path: Path) -> None:
    class Pairs(torch.nn.Module):
        def forward(self, x: torch.Tensor, twice: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x]) + twice

    rows = torch.export.Dim("rows")
    shapes = {"x": {0: rows}, "twice": {0: 2 * rows}}
    program = torch.export.export(Pairs(), (torch.ones(3), torch.ones(6)), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "model.pt2")
    model = TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))
    assert model.run({"x": np.ones(4, np.float32), "twice": np.ones(8, np.float32)})["output"].tolist() == [2] * 8
    with pytest.raises(InputRefused, match=r"'twice': dimension 0 is 2\*\w+, 8 here; 9 came"):
        model.run({"x": np.ones(4, np.float32), "twice": np.ones(9, np.float32)})


def test_an_index_out_of_bounds_is_an_error_of_one_request(served: Callable[..., LoadedModel]) -> None:
    model = served(torch.nn.Embedding(3, 2), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises((InputRefused, ExecutionFailed), match="index out of range"):
        model.run({"input": np.full((1, 4), 9)})
    assert model.run({"input": np.zeros((1, 4), np.int64)})["output"].shape == (1, 4, 2)


def test_an_allocation_that_cannot_be_is_out_of_memory(served: Callable[..., LoadedModel]) -> None:
    model = served(Function(lambda x: x.new_zeros(x.shape[0], x.shape[0], x.shape[0])), torch.ones(2))
    with pytest.raises(OutOfMemory, match="allocate"):
        model.run({"x": np.ones(1 << 15, np.float32)})
    assert model.run({"x": np.ones(3, np.float32)})["output"].shape == (3, 3, 3)


def test_a_program_that_writes_into_its_inputs_leaves_the_request_as_it_is(tmp_path: Path) -> None:
    program = torch.export.export(Function(lambda x: x.add_(1) * 2), (torch.ones(2),))
    torch.export.save(program, tmp_path / "model.pt2")
    model = TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))
    given = np.ones(2, np.float32)
    assert model.run({"x": given})["output"].tolist() == [4, 4]
    assert given.tolist() == [1, 1]


def _part_of_a_split(x: torch.Tensor) -> torch.Tensor:
    x.split(1, dim=1)[0].add_(1)
    return x * 2


def _given_as_out(x: torch.Tensor) -> torch.Tensor:
    return torch.add(x, x, out=x)


@pytest.mark.parametrize("function", [_part_of_a_split, _given_as_out])
def test_however_a_program_writes_into_its_inputs_the_request_stays_as_it_is(
    tmp_path: Path, function: Callable[..., Any]
) -> None:
    program = torch.export.export(Function(function), (torch.ones(2, 3),))
    torch.export.save(program, tmp_path / "model.pt2")
    model = TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))
    given = np.ones((2, 3), np.float32)
    expected = function(torch.ones(2, 3)).numpy()
    np.testing.assert_array_equal(model.run({"x": given})[model.outputs[0].name], expected)
    np.testing.assert_array_equal(given, np.ones((2, 3), np.float32))


def test_a_module_exported_in_training_mode_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Net().train(), (torch.randn(2, 1, 8, 8),)), tmp_path / "model.pt2")
    with pytest.raises(ModelRefused, match=r"it is in training mode, .*; call module.eval\(\) first"):
        TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))


def test_complex_numbers_are_refused_by_the_outputs_name(served: Callable[..., LoadedModel]) -> None:
    with pytest.raises(ModelRefused, match="output 'output' has a type of element that is not served; cast it"):
        served(Function(torch.fft.fft), torch.ones(2, 8))


def test_nested_arguments_and_results_are_taken_apart(tmp_path: Path) -> None:
    class Nested(torch.nn.Module):
        def forward(self, pair: dict[str, torch.Tensor], scale: float = 2.0) -> tuple[Any, ...]:
            return pair["a"] * scale, [pair["b"], pair["a"] + pair["b"]]

    found = export(Nested(), {"pair": {"a": torch.ones(2), "b": torch.zeros(2)}, "scale": 3.0}, path=tmp_path / "m.pt2")
    assert (found.inputs, found.outputs) == (("pair_a", "pair_b"), ("output_0", "output_1_0", "output_1_1"))
    model = TorchEngine().load(ModelSource(tmp_path / "m.pt2", "m.pt2"))
    got = model.run({"pair_a": np.ones(3, np.float32), "pair_b": np.full(3, 5, np.float32)})
    assert {name: array.tolist() for name, array in got.items()} == {
        "output_0": [3] * 3,
        "output_1_0": [5] * 3,
        "output_1_1": [6] * 3,
    }


def test_sizes_that_are_computed_from_sizes_are_served(served: Callable[..., LoadedModel]) -> None:
    module = Function(lambda x: x.reshape(x.shape[0] * x.shape[1]) + x.shape[1])
    model = served(module, torch.ones(2, 8), dynamic={"x": {1: "length"}})
    assert model.run({"x": np.arange(3, dtype=np.float32).reshape(1, 3)})["output"].tolist() == [3, 4, 5]
    assert "*" in str(model.outputs[0].dims[0])


def test_control_flow_of_torch_is_served(served: Callable[..., LoadedModel]) -> None:
    def choose(x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,))  # type: ignore[no-any-return]

    model = served(Function(choose), torch.ones(2, 2))
    assert model.run({"x": np.ones((3, 2), np.float32)})["output"].tolist() == [[2, 2]] * 3
    assert model.run({"x": -np.ones((1, 2), np.float32)})["output"].tolist() == [[-2, -2]]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"warp_speed": "9"}, "'warp_speed' is not known to torch; it knows: compile, device, intra_op_threads"),
        ({"device": "tpu"}, "device: expected cpu, cuda or cuda:N; got 'tpu'"),
        ({"device": "cuda:31"}, r"device: cuda:31 is not there: torch 2\.\S+ sees \d+ GPUs; `headrace doctor`"),
        ({"intra_op_threads": "0"}, "intra_op_threads: expected 1 to 256; got '0'"),
        pytest.param({"intra_op_threads": "9" * 5000}, "intra_op_threads: expected 1 to 256", id="many digits"),
        ({"compile": "fast"}, "compile: expected off or inductor; got 'fast'"),
    ],
)
def test_an_option_that_cannot_be_had_is_refused_by_name(
    served: Callable[..., LoadedModel], options: dict[str, str], reason: str
) -> None:
    with pytest.raises(ModelRefused, match=reason):
        served(Same(), torch.ones(2), options)


def test_threads_are_those_of_the_instance(served: Callable[..., LoadedModel]) -> None:
    served(Same(), torch.ones(2), {"intra_op_threads": "2"})
    assert torch.get_num_threads() == 2
    served(Same(), torch.ones(2))
    assert torch.get_num_threads() == 1


@pytest.mark.timeout(400)
def test_a_compiled_program_answers_the_same(served: Callable[..., LoadedModel]) -> None:
    model = served(Function(lambda x: torch.relu(x) * 2 + 1), torch.ones(2, 3), {"compile": "inductor"})
    for rows in (1, 3):
        given = np.full((rows, 3), -1, np.float32)
        given[0] = 5
        assert model.run({"x": given})["output"].tolist() == [[11, 11, 11]] + [[1, 1, 1]] * (rows - 1)


def test_without_a_compiler_compilation_is_refused_with_what_to_install(
    served: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelRefused, match=r"compile: inductor needs a C\+\+ compiler .*; install one, or leave"):
        served(Same(), torch.ones(2), {"compile": "inductor"})


def test_a_closed_model_does_not_run_and_gives_its_weights_back(served: Callable[..., LoadedModel]) -> None:
    size = 64 << 20
    module = torch.nn.Linear(4096, size // 4 // 4096, bias=False)
    model = served(module, torch.ones(2, 4096))
    del module
    gc.collect()
    held = resident_bytes()
    model.close()
    model.close()
    assert held - resident_bytes() > size // 2
    with pytest.raises(ExecutionFailed, match="closed"):
        model.run({"input": np.ones((1, 4096), np.float32)})


def test_a_file_of_another_kind_is_refused_with_what_to_export(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(
        ModelRefused, match=r"model.pt: expected a file that ends in .pt2; export the module with headrace"
    ):
        TorchEngine().load(ModelSource(tmp_path / "model.pt", "model.pt"))
    (tmp_path / "model.pt").rename(tmp_path / "model.pt2")
    with pytest.raises(ModelRefused, match=r"it is TorchScript, or a pickle of torch\.save"):
        TorchEngine().load(ModelSource(tmp_path / "model.pt2", "model.pt2"))


def test_a_runner_that_holds_no_program_never_imports_torch() -> None:
    code = (
        "import sys; from headrace_runner.engines.registry import import_engines, prepare\n"
        "engines = import_engines(allow_fake=True)\n"
        "for preload_torch in (False, True):\n"
        "    prepare(engines, preload_torch)\n"
        "    print('torch' in engines, 'torch._export.serde.serialize' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "True"]


def test_the_modules_that_read_programs_are_imported_with_the_first() -> None:
    code = (
        "import sys; from headrace_runner.engines.registry import import_engines, prepare\n"
        "prepare(import_engines(allow_fake=True))\n"
        "print([name for name in sys.modules if name.startswith(('headrace_runner.engines.torch_', "
        "'headrace_runner.core.pt2_', 'torch.'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['headrace_runner.engines.torch_engine']"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_it_answers_as_on_the_cpu_and_tells_its_memory(served: Callable[..., LoadedModel]) -> None:
    net = Net()
    images = np.random.default_rng(1).random((5, 1, 8, 8), np.float32)
    expected = served(net, torch.randn(1, 1, 8, 8)).run({"image": images})["output"]
    model = served(net, torch.randn(1, 1, 8, 8), {"device": "cuda"})
    np.testing.assert_allclose(model.run({"image": images})["output"], expected, rtol=1e-3, atol=1e-3)
    assert isinstance(model, OnGpu)
    memory = model.gpu_memory()
    assert memory is not None
    assert 0 < memory.used_bytes < memory.total_bytes
    model.close()
    assert model.gpu_memory() is None
