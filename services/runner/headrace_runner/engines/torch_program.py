"""Opens `.pt2` files without unpickling anything. Imports torch only when one is opened, and found to be in order.

`torch.export.load` unpickles example inputs, custom objects and tensors of some kinds, with `weights_only=False` where
less does not do (torch/_export/serde/serialize.py, deserialize_torch_artifact; torch/export/pt2_archive/_package.py,
_load_state_dict and _load_constants). So it is not called: the archive is read here, and torch is given tensors and a
graph that was checked (`core.pt2_program`). Beneath that, what unpickles raises while torch makes the program.
"""

from __future__ import annotations

import operator
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_runner.core import pt2_archive, pt2_program
from headrace_runner.core.pt2_archive import EXPORT, Member, Refused
from headrace_runner.core.pt2_signature import ProgramSignature, read_signature

READER = "torch._export.serde.serialize"
"""torch's own of graphs, half of what importing takes."""
_LITTLE = b"little"
_PIECE_BYTES = 1 << 20
_PREFIXES = {pt2_archive.WEIGHTS: pt2_archive.WEIGHTS_CONFIG, pt2_archive.CONSTANTS: pt2_archive.CONSTANTS_CONFIG}


@dataclass(frozen=True, slots=True)
class Program:
    """Attributes:
    exported: a torch.export.ExportedProgram, on its device.
    changes_inputs: it writes into its inputs, which then must be copies.
    """

    exported: Any
    signature: ProgramSignature
    changes_inputs: bool


def open_program(path: Path, device: str = "cpu") -> Program:
    """Reads a program and puts it on a device.

    Args:
        device: "cpu", or "cuda:0".

    Raises:
        Refused: the file is not an exported program, or holds what is not loaded.
        OSError: it cannot be read.
    """
    kind, _, index = device.partition(":")
    with _archive(path) as archive:
        document = pt2_program.parse(archive.read(pt2_archive.PROGRAM), pt2_archive.PROGRAM)
        program = pt2_program.checked(document, {"type": kind, "index": int(index) if index else None})
        signature = read_signature(program, archive.read(pt2_archive.NAMES))
        weights, constants = (_tensors(archive, prefix, device) for prefix in _PREFIXES)
    exported = _deserialized(program, weights, constants)
    _check_targets(exported)
    return Program(exported, signature, _writes_to_inputs(exported))


class _Archive:
    """A checked archive."""

    def __init__(self, file: zipfile.ZipFile, records: Mapping[str, Member]) -> None:
        self._file = file
        self._records = records

    def read(self, record: str) -> bytes:
        """Empty where there is no such record."""
        member = self._records.get(record)
        return self._file.read(member.name) if member else b""

    def read_into(self, record: str, buffer: memoryview) -> None:
        done = 0
        with self._file.open(self._records[record].name) as content:
            while piece := content.read(min(_PIECE_BYTES, len(buffer) - done)):
                buffer[done : done + len(piece)] = piece
                done += len(piece)

    def size(self, record: str) -> int:
        member = self._records.get(record)
        if member is None:
            raise Refused(f"it has no {record[:80]!r}, which it refers to; {EXPORT}")
        return member.size


@contextmanager
def _archive(path: Path) -> Iterator[_Archive]:
    try:
        with zipfile.ZipFile(path) as file:
            members = [
                Member(
                    each.filename,
                    each.file_size,
                    each.compress_size,
                    each.header_offset,
                    each.compress_type != zipfile.ZIP_STORED,
                    bool(each.flag_bits & 1),
                )
                for each in file.infolist()
            ]
            archive = _Archive(file, pt2_archive.check_members(members, os.stat(path).st_size))
            _check_sample_inputs(file, archive, members)
            if archive.read("byteorder") not in (b"", _LITTLE):
                raise Refused(f"it was written on a machine with another order of bytes; {EXPORT} on one like this")
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError):
        raise Refused(f"it is not a .pt2 archive, or a broken one: expected a zip that torch wrote; {EXPORT}") from None


def _check_sample_inputs(file: zipfile.ZipFile, archive: _Archive, members: list[Member]) -> None:
    """Looks at the opcodes of example inputs, which torch.export.save writes as a pickle in a zip of its own."""
    name = next((each.name for each in members if each.name.endswith(pt2_archive.SAMPLE_INPUTS)), None)
    if name is None or not archive.size(pt2_archive.SAMPLE_INPUTS):
        return
    try:
        with file.open(name) as content, zipfile.ZipFile(content) as inner:
            pickled = [each for each in inner.infolist() if each.filename.endswith("data.pkl")]
            stored = all(each.compress_type == zipfile.ZIP_STORED for each in pickled)
            if not stored or len(pickled) != 1 or pickled[0].file_size > pt2_archive.MOST_PICKLE_BYTES:
                raise zipfile.BadZipFile
            pt2_archive.check_sample_inputs(inner.read(pickled[0]))
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        raise Refused(
            f"its example inputs are not what torch writes, perhaps a bare pickle: nothing of it was loaded; {EXPORT}, "
            "which writes none"
        ) from None


def _tensors(archive: _Archive, prefix: str, device: str) -> dict[str, Any]:
    """The tensors that the program refers to by name; several may share a record."""
    import torch
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE

    config = pt2_program.parse(archive.read(_PREFIXES[prefix]), _PREFIXES[prefix])
    records: dict[str, Any] = {}
    found: dict[str, Any] = {}
    try:
        for name, entry in config["config"].items():
            meta, record = entry["tensor_meta"], prefix + entry["path_name"]
            if entry["use_pickle"] or meta is None:
                raise Refused(f"it keeps {name[:80]!r} as a pickle, and loading it would run code; {EXPORT}")
            dtype = _SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]]
            if record not in records:
                records[record] = _storage(archive, record, dtype).to(device)
            sizes, strides, [offset] = map(_numbers, (meta["sizes"], meta["strides"], [meta["storage_offset"]]))
            tensor = torch.as_strided(records[record].view(dtype), sizes, strides, offset)
            found[name] = torch.nn.Parameter(tensor, meta["requires_grad"]) if entry["is_param"] else tensor
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise Refused(f"it describes its tensors wrongly ({' '.join(str(error).split())[:200]}); {EXPORT}") from None
    return found


def _storage(archive: _Archive, record: str, dtype: Any) -> Any:
    import torch

    size = archive.size(record)
    if size % dtype.itemsize:
        raise Refused(f"{record!r} in it has {size} bytes, which are no whole number of elements; {EXPORT}")
    content = torch.empty(size, dtype=torch.uint8)
    if size:
        archive.read_into(record, memoryview(content.numpy()))
    return content


def _numbers(sizes: list[Mapping[str, int]]) -> list[int]:
    return [int(size["as_int"]) for size in sizes]


def _deserialized(program: Mapping[str, Any], weights: dict[str, Any], constants: dict[str, Any]) -> Any:
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass

    # One at a time: torch keeps the reader that is at work in a global.
    with _ONE_AT_A_TIME, nothing_is_unpickled():
        try:
            typed = _dict_to_dataclass(schema.ExportedProgram, program)
            exported = ExportedProgramDeserializer().deserialize(typed, weights, constants)
        except MemoryError:
            raise
        except Exception as error:
            # torch raises what comes, from AssertionError to sympy's own.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise Refused(
                f"it cannot be read by torch: {reason[-1][:300]}; {EXPORT} with this version of torch"
            ) from error
    return exported


def _check_targets(exported: Any) -> None:
    """Once more, on what the names of operators have become."""
    import torch

    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if node.op == "call_function":
                if not isinstance(node.target, torch._ops.OpOverload | torch._ops.HigherOrderOperator):
                    named = (getattr(node.target, key, "?") for key in ("__module__", "__name__"))
                    pt2_program.check_operator(".".join(map(str, named)))
            elif node.op not in ("placeholder", "get_attr", "output"):
                raise Refused(f"it has a step {node.op!r}, which no exported program has; {EXPORT}")


def _writes_to_inputs(exported: Any) -> bool:
    """Raises Refused where it writes to its own weights and buffers: it then answers by what it was asked before."""
    import torch

    own = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.target is not None}
    wrote = False
    for node in exported.graph_module.graph.nodes:
        bases = {base for base in map(_base, _written(node)) if base is not None}
        if _trains(node) or any(base.name in own for base in bases):
            raise Refused(
                f"it is in training mode, or writes to what it keeps ({node.target}); call module.eval() first, "
                f"and {EXPORT}"
            )
        wrote = wrote or any(base.op == "placeholder" for base in bases)
    # Graphs in the graph take what the outer one has by other names.
    nested = (each for each in exported.graph_module.modules() if each is not exported.graph_module)
    inner = (node for each in nested if isinstance(each, torch.fx.GraphModule) for node in each.graph.nodes)
    return wrote or any(True for node in inner for _ in _written(node))


def _arguments(node: Any) -> Iterator[tuple[Any, Any]]:
    """Of an operator: what its schema says of each argument, and what is given."""
    import torch

    if isinstance(node.target, torch._ops.OpOverload):
        schema = node.target._schema.arguments
        yield from zip(schema, node.args, strict=False)
        yield from ((each, node.kwargs[each.name]) for each in schema if each.name in node.kwargs)


def _trains(node: Any) -> bool:
    return any(argument.name in ("train", "training") and value is True for argument, value in _arguments(node))


def _written(node: Any) -> Iterator[Any]:
    """The tensors that an operator writes to."""
    for argument, value in _arguments(node):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from value if isinstance(value, list | tuple) else (value,)


def _base(node: Any) -> Any:
    """The tensor that this one is a view of, and itself where it is none; None: it is no tensor of the graph."""
    import torch

    while isinstance(node, torch.fx.Node) and node.args:
        # One of several views, such as those of a split.
        views = node.target is operator.getitem or (
            isinstance(node.target, torch._ops.OpOverload)
            and any(each.alias_info is not None for each in node.target._schema.returns)
        )
        if not views:
            break
        node = node.args[0]
    return node if isinstance(node, torch.fx.Node) else None


_ONE_AT_A_TIME = threading.Lock()


class UnpicklingForbidden(RuntimeError):
    """Something tried to unpickle while a program was being made."""


class _Watch:
    """Counts who forbids. A hook, once added, stays as long as the process (sys.addaudithook)."""

    def __init__(self) -> None:
        self.forbidding = 0
        self.added = False


_WATCH = _Watch()


@contextmanager
def nothing_is_unpickled() -> Iterator[None]:
    """Both of Python's unpicklers raise as soon as they would import anything (audit event pickle.find_class)."""
    if not _WATCH.added:
        _WATCH.added = True
        sys.addaudithook(_forbid)
    _WATCH.forbidding += 1
    try:
        yield
    finally:
        _WATCH.forbidding -= 1


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "pickle.find_class" and _WATCH.forbidding:
        raise UnpicklingForbidden(f"unpickling {'.'.join(map(str, arguments))} is forbidden here")
