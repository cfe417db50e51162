"""A revision's signature as a checker of requests. Knows no protobuf and no JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headrace_common.errors import InvalidArgument
from headrace_router.domain import Buffer, RevisionEntry, TensorSpec
from headrace_router.oip.datatypes import Datatype, datatype_named
from headrace_router.oip.elements import check_bools, count_elements

MAX_ELEMENTS = 1 << 40
"""More than any request can carry. Zero-sized dimensions are left out of the count, since engines
multiply the others too."""

# Messages travel in headers, so they stay short.
_LISTED = 16


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """What a request says of an input, apart from its data."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputLayout:
    """An input that passed every check that does not need its data.

    Attributes:
        volume: number of elements.
        size: bytes of its raw form; None where that depends on the elements (BYTES).
        where: how messages call it.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    volume: int
    size: int | None
    where: str

    @property
    def looks_inside(self) -> bool:
        """Whether checking the raw form takes more than its length."""
        return self.size is None or self.datatype.name == "BOOL"

    def check_raw(self, data: Buffer) -> None:
        """Raises InvalidArgument unless `data` is the raw form of such a tensor."""
        if self.size is None:
            count_elements(data, self.volume, self.where)
            return
        if len(data) != self.size:
            raise InvalidArgument(
                f"{self.where}: {self.datatype.name} of shape {list(self.shape)} takes {self.size} bytes; "
                f"got {len(data)}"
            )
        if self.datatype.name == "BOOL":
            check_bools(data, self.where)


@dataclass(frozen=True, slots=True)
class Layout:
    """All of a request's inputs and outputs, checked.

    Attributes:
        inputs: in the request's order.
        order: positions in `inputs` that put them in the signature's order.
        rows: size of the batch dimension; 1 for a model that is not batchable.
        outputs: names wanted, each once; empty: all.
    """

    inputs: tuple[InputLayout, ...]
    order: tuple[int, ...]
    rows: int
    outputs: tuple[str, ...]


class Signature:
    """Checks requests to one revision."""

    def __init__(self, entry: RevisionEntry) -> None:
        self.entry = entry
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self._inputs = {spec.name: (position, spec) for position, spec in enumerate(entry.inputs)}
        self._of_model = f"of model {entry.model!r}"

    def layout(self, declared: Sequence[DeclaredTensor], outputs: Iterable[str]) -> Layout:
        """Checks names, datatypes, shapes and rows.

        Raises:
            InvalidArgument: names the tensor, what was expected and what came.
        """
        positions: dict[int, int] = {}
        for index, tensor in enumerate(declared):
            position = self._position(tensor.name)
            if position in positions:
                raise InvalidArgument(f"{self._where(tensor.name)} is given more than once")
            positions[position] = index
        self._check_complete(positions)
        inputs = tuple(self._check(tensor) for tensor in declared)
        order = tuple(positions[position] for position in sorted(positions))
        return Layout(inputs, order, self._rows(inputs), self._wanted(outputs))

    def _position(self, name: str) -> int:
        found = self._inputs.get(name)
        if found is None:
            raise InvalidArgument(f"{self._where(name)}: there is no such input; the model has {_names(self._inputs)}")
        return found[0]

    def _check_complete(self, given: dict[int, int]) -> None:
        missing = [
            spec.name for position, spec in enumerate(self.entry.inputs) if position not in given and not spec.optional
        ]
        if missing:
            raise InvalidArgument(f"{self._where(missing[0])} is missing; the model needs {_names(self._required())}")

    def _required(self) -> list[str]:
        return [spec.name for spec in self.entry.inputs if not spec.optional]

    def _check(self, tensor: DeclaredTensor) -> InputLayout:
        spec = self._inputs[tensor.name][1]
        where = self._where(tensor.name)
        if tensor.datatype != spec.datatype:
            raise InvalidArgument(f"{where}: expected datatype {spec.datatype}; got {tensor.datatype!r:.40}")
        self._check_shape(tensor.shape, spec, where)
        datatype = datatype_named(spec.datatype)
        volume = math.prod(tensor.shape)
        size = volume * datatype.size if datatype.size else None
        return InputLayout(tensor.name, datatype, tensor.shape, volume, size, where)

    def _check_shape(self, shape: tuple[int, ...], spec: TensorSpec, where: str) -> None:
        expected = f"{where}: expected shape {list(spec.shape)} (-1 is any size)"
        if len(shape) != len(spec.shape):
            raise InvalidArgument(
                f"{expected}, so {len(spec.shape)} dimensions; got {len(shape)}: {_short_shape(shape)}"
            )
        if any(size < 0 for size in shape):
            raise InvalidArgument(f"{where}: a dimension cannot be negative; got shape {list(shape)}")
        batch_axes = 1 if self.entry.batchable else 0
        if any(want not in (-1, got) for got, want in zip(shape[batch_axes:], spec.shape[batch_axes:], strict=True)):
            raise InvalidArgument(f"{expected}; got {list(shape)}")
        if batch_axes and not 1 <= shape[0] <= self.entry.max_batch_size:
            raise InvalidArgument(
                f"{where}: its first dimension is the batch, 1 to {self.entry.max_batch_size} rows; got {shape[0]}"
            )
        if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
            raise InvalidArgument(f"{where}: shape {list(shape)} has more than {MAX_ELEMENTS} elements")

    def _rows(self, inputs: tuple[InputLayout, ...]) -> int:
        if not self.entry.batchable or not inputs:
            return 1
        first = inputs[0]
        for other in inputs[1:]:
            if other.shape[0] != first.shape[0]:
                raise InvalidArgument(
                    f"{other.where} has {other.shape[0]} rows and input {first.name!r} has {first.shape[0]}; "
                    "all inputs of a request must have the same number of rows (their first dimension)"
                )
        if self.entry.sequences is not None and first.shape[0] != 1:
            raise InvalidArgument(
                f"{first.where} has {first.shape[0]} rows; a request of a stateful model is one step of one sequence, "
                "so one row"
            )
        return first.shape[0]

    def _wanted(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = tuple(dict.fromkeys(names))
        for name in wanted:
            if name not in self.outputs:
                raise InvalidArgument(
                    f"output {name!r:.80} {self._of_model}: there is no such output; "
                    f"the model has {_names(self.outputs)}"
                )
        return wanted

    def _where(self, name: str) -> str:
        return f"input {name!r:.80} {self._of_model}"


class Signatures:
    """Signatures of the revisions in use; compiled once per entry that the catalogue hands out."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._known: dict[tuple[str, int], Signature] = {}

    def of(self, entry: RevisionEntry) -> Signature:
        known = self._known.get(entry.key)
        if known is None or known.entry is not entry:
            if len(self._known) >= self._capacity:
                del self._known[next(iter(self._known))]
            known = self._known[entry.key] = Signature(entry)
        return known


def _names(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more or "none"


def _short_shape(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= _LISTED else f"[{', '.join(map(str, shape[:_LISTED]))}, ...]"
