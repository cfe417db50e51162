"""A torch module as a file that the mesh serves: an exported program, or ONNX by torch's own exporter."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    import torch

FORMATS = ("pt2", "onnx")
NAMES_FILE = "headrace.json"
"""Among the extra files of a .pt2: the names of inputs and outputs."""
BATCH = "batch"
_TRACED_ROWS = 2
"""torch takes sizes of 0 and 1 for fixed ones."""

Axes = Mapping[int, str]
"""Dimension -> the name of its size. Dimensions of the same name are equally large."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        inputs, outputs: names, in the module's order.
    """

    path: Path
    format: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size_bytes: int


def export(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    path: str | Path,
    batch: bool = True,
    dynamic: Mapping[str, Axes] | None = None,
    bounds: Mapping[str, tuple[int, int]] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    format: str = "",
) -> Exported:
    """Writes a module so that the mesh can serve it, and checks that what was written answers as the module does.

    The module is exported as it is in eval mode, without gradients, and left as it was. The file holds its graph and
    its weights; neither pickles, nor the examples, nor paths and lines of your source.

    Args:
        example_inputs: a tensor, a tuple of them, or a mapping by names of arguments: as the module takes them, with
            rows in the first dimension. An argument may be a list or a dictionary of tensors.
        path: ends in .pt2 or .onnx. Replaced as a whole.
        batch: the first dimension of every input has any size, the same for all.
        dynamic: further dimensions that have any size, by the name of the module's argument:
            {"tokens": {1: "length"}}. The example must have 2 or more there.
        bounds: least and largest size by name: {"length": (1, 512)}.
        inputs, outputs: names for clients, in the module's order. By default its arguments' names; for outputs the keys
            where it returns a dictionary, else "output", or "output_0" and so on.
        format: "pt2" or "onnx"; by default what the path ends in.

    Raises:
        InvalidArgument: an argument does not fit the module, or the module cannot run on the examples.
        FailedPrecondition: torch cannot export the module, or its answers changed, or torch is not installed.
    """
    _require_torch()
    target, kind = _target(Path(path), format)
    example = _Example.of(example_inputs)
    with _evaluating(module):
        expected = _run(module, example)
        program = _traced(module, example, batch, dynamic or {}, bounds or {})
        _check_same(program, example, expected)
    names = _names(program, expected, inputs, outputs)
    _strip(program)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".headrace-export-") as folder:
        made = Path(folder) / target.name
        if kind == "onnx":
            write_onnx(program, made, *names)
        else:
            _write_pt2(program, made, *names)
        size = made.stat().st_size
        os.replace(made, target)
    return Exported(target, kind, tuple(names[0]), tuple(names[1]), size)


def write_onnx(
    program: torch.export.ExportedProgram, path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Converts an exported program by torch's own exporter, weights and all into one file.

    Args:
        program: a torch.export.ExportedProgram.

    Raises:
        FailedPrecondition: it cannot be converted, or the libraries for it are not installed.
    """
    import torch

    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise FailedPrecondition(f"ONNX needs {' and '.join(missing)}; pip install 'headrace[torch]'")
    # That torchvision is not there to be converted is no news.
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
            )
            made.save(path, external_data=False)
    except Exception as error:
        raise FailedPrecondition(f"torch cannot convert the program to ONNX: {_first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Example:
    arguments: tuple[Any, ...]
    named: dict[str, Any]

    @classmethod
    def of(cls, given: Any) -> _Example:
        if isinstance(given, Mapping):
            return cls((), dict(given))
        return cls(tuple(given) if isinstance(given, tuple | list) else (given,), {})

    def mapped(self, change: Any) -> _Example:
        """With every tensor changed."""
        import torch
        from torch.utils import _pytree as pytree

        def one(leaf: Any) -> Any:
            return change(leaf) if isinstance(leaf, torch.Tensor) else leaf

        return _Example(pytree.tree_map(one, self.arguments), pytree.tree_map(one, self.named))


def _require_torch() -> None:
    if find_spec("torch") is None:
        raise FailedPrecondition(
            "headrace.models.export needs torch, which is not installed here; pip install 'headrace[torch]'"
        )


def _target(path: Path, given: str) -> tuple[Path, str]:
    kind = given or path.suffix.removeprefix(".")
    if kind not in FORMATS or path.suffix != f".{kind}":
        raise InvalidArgument(
            f"path: expected a file that ends in .pt2 or .onnx, as its format does; got {path.name!r}"
        )
    if not path.parent.is_dir():
        raise InvalidArgument(f"path: there is no directory {str(path.parent)!r}")
    return path, kind


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """In eval mode and without gradients, and as it was afterwards, part by part."""
    import torch

    if not isinstance(module, torch.nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise InvalidArgument(f"module: expected a torch.nn.Module in Python; got {type(module).__name__}")
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for each, training in modes:
            each.training = training


def _run(module: Any, example: _Example) -> Any:
    try:
        return module(*example.arguments, **example.named)
    except Exception as error:
        raise InvalidArgument(f"example_inputs: the module cannot run on them: {_first_line(error)}") from error


def _traced(
    module: Any, example: _Example, batch: bool, dynamic: Mapping[str, Axes], bounds: Mapping[str, tuple[int, int]]
) -> Any:
    import torch

    def widened(tensor: Any) -> Any:
        single = batch and tensor.ndim > 0 and tensor.shape[0] == 1
        return torch.cat([tensor] * _TRACED_ROWS) if single else tensor

    wide = example.mapped(widened)
    shapes = _shapes(module, wide, batch, dynamic, bounds)
    try:
        return torch.export.export(module, wide.arguments, wide.named, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        hint = "" if not (batch or dynamic) else "; a size that it fixes cannot vary: see batch, dynamic and bounds"
        raise FailedPrecondition(f"torch cannot export the module: {_telling_line(error)}{hint}") from error


def _shapes(
    module: Any, example: _Example, batch: bool, dynamic: Mapping[str, Axes], bounds: Mapping[str, tuple[int, int]]
) -> dict[str, Any]:
    """torch's `dynamic_shapes`: for every argument the names of its dimensions, nested as the argument is."""
    import inspect

    import torch
    from torch.utils import _pytree as pytree

    names = {BATCH, *(name for axes in dynamic.values() for name in axes.values())}
    if unknown := sorted(set(bounds) - names):
        raise InvalidArgument(f"bounds: no dimension is named {unknown[0]!r}; there are {', '.join(sorted(names))}")
    sizes = {
        name: torch.export.Dim(name, **dict(zip(("min", "max"), bounds[name], strict=True) if name in bounds else ()))
        for name in names
    }
    try:
        bound = inspect.signature(module.forward).bind(*example.arguments, **example.named).arguments
    except TypeError as error:
        raise InvalidArgument(f"example_inputs: {error}") from None
    if unknown := sorted(set(dynamic) - set(bound)):
        raise InvalidArgument(f"dynamic: the examples have no argument {unknown[0]!r}; expected {', '.join(bound)}")
    given = {}
    for name, argument in bound.items():
        axes = {**({0: BATCH} if batch else {}), **dynamic.get(name, {})}

        def spec(leaf: Any, axes: Axes = axes, name: str = name) -> Any:
            return _axes_of(leaf, axes, name, sizes) if isinstance(leaf, torch.Tensor) else None

        given[name] = pytree.tree_map(spec, argument)
    return given


def _axes_of(tensor: Any, axes: Axes, name: str, sizes: Mapping[str, Any]) -> dict[int, Any]:
    for axis, size in axes.items():
        if axis and (not 0 < axis < tensor.ndim or tensor.shape[axis] < _TRACED_ROWS):
            raise InvalidArgument(
                f"dynamic: {name!r} has the shape {list(tensor.shape)} in the example; expected 2 or more in dimension "
                f"{axis}, which is to vary as {size!r}"
            )
    return {axis: sizes[size] for axis, size in axes.items() if axis < tensor.ndim}


def _check_same(program: Any, example: _Example, expected: Any) -> None:
    import torch
    from torch.utils import _pytree as pytree

    got = pytree.tree_leaves(program.module()(*example.arguments, **example.named))
    try:
        for mine, theirs in zip(got, pytree.tree_leaves(expected), strict=True):
            if isinstance(theirs, torch.Tensor):
                torch.testing.assert_close(mine, theirs, equal_nan=True)
    except AssertionError as error:
        raise FailedPrecondition(
            f"the exported program does not answer as the module does: {' '.join(str(error).split())[:300]}; a module "
            "that draws random numbers, or remembers what it was asked, cannot be served"
        ) from None


def _names(program: Any, expected: Any, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[list[str], list[str]]:
    import torch
    from torch.utils import _pytree as pytree

    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    taken = [name for name in program.graph_signature.user_inputs if isinstance(values.get(name), torch.Tensor)]
    leaves, _ = pytree.tree_flatten_with_path(expected)
    returned = [_label(path) for path, leaf in leaves if isinstance(leaf, torch.Tensor)]
    return _chosen(inputs, taken, "inputs"), _chosen(outputs, returned, "outputs")


def _label(path: Sequence[Any]) -> str:
    """A key path as one name: "logits", "output_1", "states_0"."""
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", "")))) for key in path]
    first_is_key = bool(path) and hasattr(path[0], "key")
    return "_".join(parts if first_is_key else ["output", *parts])


def _chosen(given: Sequence[str], found: list[str], what: str) -> list[str]:
    if isinstance(given, str) or (given and len(given) != len(found)):
        raise InvalidArgument(f"{what}: expected {len(found)} names, for {', '.join(found)}; got {given!r}")
    names = list(given) or found
    if len(set(names)) != len(names) or not all(names):
        raise InvalidArgument(f"{what}: expected different names; got {', '.join(map(repr, names))}")
    return names


def _strip(program: Any) -> None:
    """Examples would be written as a pickle, and stack traces tell the paths of whoever exports."""
    import torch

    program.example_inputs = None
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "custom"):
                node.meta.pop(key, None)


def _write_pt2(program: Any, path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    import torch

    names = json.dumps({"inputs": list(inputs), "outputs": list(outputs)})
    try:
        torch.export.save(program, path, extra_files={NAMES_FILE: names})
    except Exception as error:
        raise FailedPrecondition(f"torch cannot write the program: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:500]


def _telling_line(error: BaseException) -> str:
    """torch explains at length; what it says of sizes is marked by a dash."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marked = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    return (marked or lines or [type(error).__name__])[0][:500]
