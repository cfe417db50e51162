"""torch: executes programs that `torch.export` made, on CPUs and CUDA GPUs.

torch is imported when the first program is loaded, or by `prepare`. It takes seconds and 200 MiB, which runners that
hold other models, and those in waiting, need not pay (docs/engines.md has the numbers). So are our own modules that
read programs.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headrace_common.errors import HeadraceError, InvalidArgument
from headrace_runner import samples
from headrace_runner.core.options import thread_count, unknown_option
from headrace_runner.engines.base import (
    ExecutionFailed,
    GpuMemory,
    InputRefused,
    LoadedModel,
    ModelClosed,
    ModelRefused,
    ModelSource,
    OutOfMemory,
)
from headrace_runner.engines.checks import check_datatypes, check_outputs
from headrace_runner.engines.reasons import lacks_memory, reason_of

if TYPE_CHECKING:
    from headrace_runner.engines.torch_program import Program

SUFFIX = ".pt2"
_THREADS, _DEVICE, _COMPILE = "intra_op_threads", "device", "compile"
_OPTIONS = (_COMPILE, _DEVICE, _THREADS)
_COMPILED_ROWS = (2, 1, 64)


class TorchEngine:
    """Options: device, cpu (the default) or cuda or cuda:N; intra_op_threads, 1 to 256, by default the whole CPUs of
    the instance; compile, off (the default) or inductor.

    Raises:
        ImportError: torch is not installed.
    """

    name = "torch"
    platform = "torch_export"

    def __init__(self) -> None:
        if find_spec("torch") is None:
            raise ImportError("torch is not installed; pip install 'headrace[torch]'")

    def prepare(self) -> None:
        """Imports all that a load would."""
        from headrace_runner.engines.torch_program import READER

        _import_torch(1)
        importlib.import_module(READER)

    def external_files(self, source: ModelSource) -> frozenset[str]:
        return frozenset()

    def load(self, source: ModelSource) -> LoadedModel:
        from headrace_runner.core.pt2_archive import EXPORT, Refused
        from headrace_runner.engines.torch_program import open_program

        if not source.name.endswith(SUFFIX):
            raise ModelRefused(f"torch cannot load {source.name}: expected a file that ends in {SUFFIX}; {EXPORT}")
        try:
            device, threads, compiled = _settings(source)
        except HeadraceError as error:
            raise ModelRefused(error.message) from error
        _import_torch(threads)
        try:
            model = TorchModel(open_program(source.path, _present(device)), device, compiled=compiled)
            if compiled:
                _compile_now(model)
        except ModelRefused:
            raise
        except Refused as error:
            raise ModelRefused(f"torch cannot load {source.name}: {error}") from error
        except Exception as error:
            # Of a file that is made up, torch may say anything.
            kind = OutOfMemory if lacks_memory(error) else ModelRefused
            raise kind(f"torch cannot load {source.name}: {reason_of(error)}") from error
        return model


class TorchModel:
    """A program with its weights."""

    def __init__(self, program: Program, device: str, *, compiled: bool) -> None:
        self._signature = program.signature
        self.inputs = tuple(tensor.described() for tensor in program.signature.inputs)
        self.outputs = tuple(tensor.described() for tensor in program.signature.outputs)
        self._datatypes = {tensor.name: tensor.datatype for tensor in program.signature.inputs}
        self._positions = {tensor.name: tensor.position for tensor in program.signature.outputs}
        self._changes_inputs = program.changes_inputs
        self._device = device
        self._module: Any = _flat_module(program.exported)
        if compiled:
            from headrace_runner.engines import torch_compile

            self._module = torch_compile.compiled(self._module)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        if self._module is None:
            raise ModelClosed
        names = outputs or tuple(self._positions)
        self._check(inputs, names)
        import torch

        arguments: dict[int, Any] = dict(self._signature.constants)
        for tensor in self._signature.inputs:
            arguments[tensor.position] = self._sent(inputs[tensor.name], tensor.datatype)
        try:
            with torch.inference_mode():
                results = self._module(*(arguments[position] for position in range(len(arguments))))
            return {name: _fetched(results[self._positions[name]], arguments.values()) for name in names}
        except (MemoryError, RuntimeError) as error:
            kind = OutOfMemory if lacks_memory(error) else ExecutionFailed
            raise kind(reason_of(error)) from error
        except (IndexError, ValueError, AssertionError) as error:
            raise InputRefused(reason_of(error)) from error

    def gpu_memory(self) -> GpuMemory | None:
        """By torch's own allocator, which asks nobody: what it holds for tensors, also for those to come."""
        if self._device == "cpu" or self._module is None:
            return None
        import torch

        total = torch.cuda.get_device_properties(self._device).total_memory
        return GpuMemory(torch.cuda.memory_reserved(self._device), total)

    def close(self) -> None:
        if self._module is None:
            return
        self._module = None
        # A module and its graph refer to each other.
        gc.collect()
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()

    def _check(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...]) -> None:
        check_datatypes(self._datatypes, inputs)
        if reason := self._signature.refusal({name: array.shape for name, array in inputs.items()}):
            raise InputRefused(reason)
        check_outputs(outputs, self._positions)

    def _sent(self, array: NDArray[Any], datatype: str) -> Any:
        import torch

        if self._changes_inputs or not array.flags.c_contiguous:
            array = array.copy()
        tensor = torch.from_numpy(array)
        if datatype == "BF16":
            tensor = tensor.view(torch.bfloat16)
        return tensor if self._device == "cpu" else tensor.to(self._device)


def _import_torch(threads: int) -> None:
    # Read by OpenMP when torch loads it: threads that spin between two operators burn the CPUs of others. What the
    # machine's owner has set stays.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    # Inputs are read-only views of what a router sent, and programs that write into inputs get copies.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    torch.set_num_threads(threads)


def _flat_module(exported: Any) -> Any:
    """The program as a function of its tensors in a row, which spares each run what torch does for nested arguments.

    Its checks of shapes are ours, by `ProgramSignature.refusal`.
    """
    import torch

    module = exported.module(check_guards=False)
    module._forward_pre_hooks.clear()
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    module.recompile()
    return module


def _compile_now(model: TorchModel) -> None:
    """By batches of zeros, so that what cannot be compiled fails the load, and not each request.

    Of several sizes: TorchInductor compiles anew for one row, and for sizes that it had assumed away.
    """
    try:
        for rows in _COMPILED_ROWS:
            model.run(samples.zeros(model.inputs, rows, samples.SIZES[0]))
    except InputRefused:
        return
    except ExecutionFailed as error:
        if type(error.__cause__).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise ModelRefused(f"engine option {_COMPILE}: inductor cannot compile it: {error}") from error


def _fetched(tensor: Any, arguments: Any) -> NDArray[Any]:
    import torch

    result = tensor.detach().cpu()
    if result.dtype is torch.bfloat16:
        result = result.contiguous().view(torch.uint16)
    if any(isinstance(each, torch.Tensor) and _shares(each, result) for each in arguments):
        # What came belongs to its request, and is gone with it.
        result = result.clone()
    array: NDArray[Any] = np.ascontiguousarray(result.numpy()).reshape(tuple(result.shape))
    return array


def _shares(argument: Any, result: Any) -> bool:
    return bool(argument.untyped_storage().data_ptr() == result.untyped_storage().data_ptr())


def _settings(source: ModelSource) -> tuple[str, int, bool]:
    """Device, threads, whether it is compiled. Raises InvalidArgument."""
    for option in sorted(set(source.options) - set(_OPTIONS)):
        raise InvalidArgument(unknown_option("torch", option, _OPTIONS))
    device = source.options.get(_DEVICE, "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,2})?", device):
        raise InvalidArgument(f"engine option {_DEVICE}: expected cpu, cuda or cuda:N; got {device!r}")
    threads = thread_count(_THREADS, source.options.get(_THREADS, str(source.threads)))
    compiled = source.options.get(_COMPILE, "off")
    if compiled not in ("off", "inductor"):
        raise InvalidArgument(f"engine option {_COMPILE}: expected off or inductor; got {compiled!r}")
    if compiled == "inductor" and device == "cpu" and not _has_compiler():
        raise InvalidArgument(
            f"engine option {_COMPILE}: inductor needs a C++ compiler on the runner's machine (g++, or what CXX says) "
            "and finds none; install one, or leave the option out"
        )
    return device, threads, compiled == "inductor"


def _has_compiler() -> bool:
    from headrace_runner.engines import torch_compile

    return torch_compile.compiler() is not None


def _present(device: str) -> str:
    """The device with its number. Raises ModelRefused where there is none."""
    if device == "cpu":
        return device
    import torch

    _, _, number = device.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        raise ModelRefused(
            f"engine option {_DEVICE}: {device} is not there: torch {torch.__version__} sees {count} GPUs; "
            "`headrace doctor` says what is missing"
        )
    return f"cuda:{number or 0}"
