"""What goes into an exported program and comes out, with the sizes that it takes: read from its JSON, without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace_runner.core.pt2_archive import EXPORT, Refused
from headrace_runner.core.pt2_expressions import Size, size_of
from headrace_runner.core.pt2_program import Json, parse_tree
from headrace_runner.core.signature import EngineTensor

_DATATYPES = {
    1: "UINT8", 2: "INT8", 3: "INT16", 4: "INT32", 5: "INT64", 6: "FP16", 7: "FP32", 8: "FP64", 12: "BOOL", 13: "BF16",
    28: "UINT16", 34: "UINT32", 35: "UINT64",
}  # fmt: skip
"""By torch's number (torch/_export/serde/schema.py, ScalarType). Complex numbers and 8-bit floats are not served."""
_MOST_NAME_CHARACTERS = 512
_MOST_TOLD = 300
_TRAINING = {
    "buffer_mutation": "its buffers, as normalisation does in training,",
    "parameter_mutation": "its parameters",
    "gradient_to_parameter": "gradients",
    "gradient_to_user_input": "gradients",
    "loss_output": "a loss",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output. `position`: among the leaves of arguments or results."""

    name: str
    datatype: str
    sizes: tuple[int | Size, ...]
    position: int

    def described(self) -> EngineTensor:
        dims = tuple(size if isinstance(size, int) else size.label for size in self.sizes)
        return EngineTensor(self.name, self.datatype, dims)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes that a symbol may have; None: no end."""

    least: int
    most: int | None

    def __str__(self) -> str:
        return f"{self.least} to {self.most}" if self.most is not None else f"{self.least} or more"

    def hold(self, size: int) -> bool:
        return self.least <= size and (self.most is None or size <= self.most)


@dataclass(frozen=True, slots=True)
class ProgramSignature:
    """
    Attributes:
        bounds: by symbol; a symbol without any takes every size.
        constants: arguments that are no tensors, by their position; they are as they were at the export.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    bounds: Mapping[str, Bounds]
    constants: Mapping[int, object]

    def refusal(self, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """Why inputs of these shapes are not taken; None: they are. By the names of what is wrong, with its bounds."""
        symbols: dict[str, int] = {}
        taken_from: dict[str, str] = {}
        for tensor in self.inputs:
            shape = shapes.get(tensor.name)
            if shape is None:
                return f"input {tensor.name!r} is missing"
            if len(shape) != len(tensor.sizes):
                return f"input {tensor.name!r}: expected {_shape(tensor)}; {list(shape)} came"
            for axis, (size, expected) in enumerate(zip(shape, tensor.sizes, strict=True)):
                wrong = None
                if isinstance(expected, int) and size != expected:
                    wrong = f"input {tensor.name!r}: expected {_shape(tensor)}; {list(shape)} came"
                elif isinstance(expected, Size) and expected.symbol is not None:
                    wrong = self._wrong(tensor, axis, expected.symbol, size, symbols, taken_from)
                if wrong:
                    return wrong
        return self._wrong_derived(shapes, symbols)

    def _wrong(
        self, tensor: Tensor, axis: int, symbol: str, size: int, symbols: dict[str, int], taken_from: dict[str, str]
    ) -> str | None:
        bounds = self.bounds.get(symbol)
        if bounds is not None and not bounds.hold(size):
            return f"input {tensor.name!r}: dimension {axis} takes {bounds}; {size} came"
        known = symbols.setdefault(symbol, size)
        if known != size:
            return f"input {tensor.name!r}: dimension {axis} is as large as {taken_from[symbol]}, {known}; {size} came"
        taken_from.setdefault(symbol, f"dimension {axis} of {tensor.name!r}")
        return None

    def _wrong_derived(self, shapes: Mapping[str, tuple[int, ...]], symbols: Mapping[str, int]) -> str | None:
        for tensor in self.inputs:
            for axis, (size, expected) in enumerate(zip(shapes[tensor.name], tensor.sizes, strict=True)):
                if isinstance(expected, int) or expected.symbol is not None:
                    continue
                value = expected.value(symbols)
                if value is not None and value != size:
                    return f"input {tensor.name!r}: dimension {axis} is {expected.label}, {value} here; {size} came"
        return None


def read_signature(program: Mapping[str, Json], names: bytes) -> ProgramSignature:
    """
    Args:
        program: as `pt2_program.checked` leaves it.
        names: extra/headrace.json, or empty.

    Raises:
        Refused
    """
    try:
        return _read(program, _given_names(names))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise Refused(f"models/model.json in it is not what torch writes; {EXPORT}") from None


def _read(program: Mapping[str, Json], names: Mapping[str, Sequence[str]]) -> ProgramSignature:
    module = program["graph_module"]
    values = module["graph"]["tensor_values"]
    call = module["module_call_graph"][0]["signature"]
    inputs, constants = _inputs(module["signature"]["input_specs"], values)
    outputs = _outputs(module["signature"]["output_specs"], values, parse_tree(call["out_spec"]))
    bounds = {
        symbol: Bounds(_limit(limits.get("min_val")) or 0, _limit(limits.get("max_val")))
        for symbol, limits in program["range_constraints"].items()
    }
    if not outputs:
        raise Refused(f"it returns no tensor; {EXPORT}")
    for spec in module["signature"]["output_specs"]:
        [kind] = spec
        if kind in _TRAINING:
            raise Refused(f"it writes to {_TRAINING[kind]} while it runs; call module.eval() first, and {EXPORT}")
    return ProgramSignature(
        _renamed(inputs, names.get("inputs"), "input"),
        _renamed(outputs, names.get("outputs"), "output"),
        bounds,
        constants,
    )


def _limit(value: Json) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(value)


def _inputs(specs: Sequence[Json], values: Json) -> tuple[list[Tensor], dict[int, object]]:
    tensors: list[Tensor] = []
    constants: dict[int, object] = {}
    position = 0
    for spec in specs:
        if "constant_input" in spec:
            [(kind, value)] = spec["constant_input"]["value"].items()
            constants[position] = None if kind == "as_none" else value
        elif "user_input" in spec:
            argument = spec["user_input"]["arg"]
            if "as_tensor" not in argument:
                raise Refused(f"it takes a number that is no tensor; make it one, and {EXPORT}")
            name = argument["as_tensor"]["name"]
            tensors.append(_tensor(name, values[name], position, "input"))
        else:
            continue
        position += 1
    return tensors, constants


def _outputs(specs: Sequence[Json], values: Json, tree: Json) -> list[Tensor]:
    arguments = [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]
    labels = list(_leaf_labels(tree, ""))
    tensors = []
    for position, (argument, label) in enumerate(zip(arguments, labels, strict=True)):
        [kind] = argument
        if kind == "as_tensor":
            tensors.append(_tensor(label or "output", values[argument["as_tensor"]["name"]], position, "output"))
        elif kind != "as_none":
            raise Refused(f"it returns something that is no tensor; make it one, and {EXPORT}")
    return tensors


def _tensor(name: str, meta: Json, position: int, kind: str) -> Tensor:
    datatype = _DATATYPES.get(meta["dtype"])
    if datatype is None:
        raise Refused(f"{kind} {name!r} has a type of element that is not served; cast it in the module, and {EXPORT}")
    return Tensor(name, datatype, tuple(_size(each) for each in meta["sizes"]), position)


def _size(size: Json) -> int | Size:
    if "as_int" in size:
        return int(size["as_int"])
    found = size_of(size["as_expr"]["expr_str"])
    # An expression without symbols is a number that torch did not work out.
    fixed = found.value({})
    return found if fixed is None else fixed


def _leaf_labels(tree: Json, prefix: str) -> Iterator[str]:
    """A name for each leaf: keys of dictionaries, and places in the rest: "logits", "output_0", "states_1"."""
    if tree["type"] is None:
        yield prefix
        return
    children = tree["children_spec"]
    keys = json.loads(tree["context"]) if tree["type"] in ("builtins.dict", "collections.OrderedDict") else None
    for index, child in enumerate(children):
        if keys is not None:
            yield from _leaf_labels(child, f"{prefix}_{keys[index]}" if prefix else str(keys[index]))
        else:
            yield from _leaf_labels(child, f"{prefix or 'output'}_{index}" if len(children) > 1 or prefix else prefix)


def _given_names(content: bytes) -> Mapping[str, Sequence[str]]:
    try:
        given = json.loads(content) if content else {}
        names = {key: given[key] for key in given if key in ("inputs", "outputs")}
        if isinstance(given, dict) and all(
            isinstance(each, list) and all(map(_is_name, each)) for each in names.values()
        ):
            return names
    except (ValueError, TypeError, RecursionError):
        pass
    raise Refused(f"extra/headrace.json in it is not what headrace.models.export writes; {EXPORT}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _MOST_NAME_CHARACTERS and name.isprintable()


def _renamed(tensors: Sequence[Tensor], names: Sequence[str] | None, kind: str) -> tuple[Tensor, ...]:
    if names is None:
        names = [tensor.name for tensor in tensors]
    if not all(map(_is_name, names)):
        raise Refused(
            f"the name of one of its {kind}s is empty, longer than {_MOST_NAME_CHARACTERS} characters or has such as "
            f"cannot be printed; {EXPORT}"
        )
    if len(names) != len(tensors) or len(set(names)) != len(names):
        given = ", ".join(map(repr, names))[:_MOST_TOLD]
        raise Refused(f"it names its {kind}s {given}; expected {len(tensors)} different names")
    return tuple(
        Tensor(name, tensor.datatype, tensor.sizes, tensor.position)
        for name, tensor in zip(names, tensors, strict=True)
    )


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(str(size) if isinstance(size, int) else size.label for size in tensor.sizes)}]"
