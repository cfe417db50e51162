"""What may be in a `.pt2` archive that is loaded here. Members come in, a verdict goes out: nothing is read.

The layout is that of torch's `torch/export/pt2_archive/constants.py`. torch stores its records uncompressed, and so
nothing here is larger than the file that holds it.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PROGRAM = "models/model.json"
WEIGHTS = "data/weights/"
CONSTANTS = "data/constants/"
WEIGHTS_CONFIG = WEIGHTS + "model_weights_config.json"
CONSTANTS_CONFIG = CONSTANTS + "model_constants_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
NAMES = "extra/headrace.json"
"""Written by `headrace.models.export`: the names of inputs and outputs."""

MOST_JSON_BYTES = 64 << 20
MOST_PICKLE_BYTES = 1 << 20
_MOST_MEMBERS = 100_000
_MOST_NAME_CHARACTERS = 512
_HEADER_BYTES = 30
"""Of a member's local header without its name (APPNOTE.TXT 4.3.7)."""

EXPORT = "export the module with headrace.models.export(module, example_inputs, path='model.pt2')"
_ALLOWED = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.(format_version|storage_alignment)"
    r"|models/model\.json|data/weights/(weight_[0-9]+|model_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]+|model_constants_config\.json)|data/sample_inputs/model\.pt|extra/[^/]+"
)
_NATIVE = re.compile(r"data/aotinductor/.*|.*\.(so|dll|dylib|o|a|cpp|cc|cu|cubin|ptx|hsaco)", re.DOTALL)
_PICKLED = re.compile(r"data/constants/(custom_obj|opaque_obj)_.*|data/(weights|constants)/[^/]*\.pt|.*\.(pkl|pickle)")
_HARMLESS = re.compile(
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\._tensor _rebuild_from_type_v2|collections OrderedDict"
    r"|torch (\w+Storage|Size|device|float\w*|bfloat16|u?int\d+|bool)|torch\.serialization _get_layout"
    r"|torch\.nn\.parameter Parameter"
)


class Refused(Exception):
    """The file is not loaded. One line, for people: what is in it, and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the archive's directory.

    Attributes:
        size, packed_size: bytes, as declared.
        offset: of its local header.
    """

    name: str
    size: int
    packed_size: int
    offset: int
    compressed: bool = False
    encrypted: bool = False


def check_members(members: Sequence[Member], archive_bytes: int) -> dict[str, Member]:
    """The archive's records by their names without the archive's own directory, such as "models/model.json".

    Raises:
        Refused: something is in it that is not loaded, or its directory is not to be believed.
    """
    if len(members) > _MOST_MEMBERS:
        raise Refused(f"it holds {len(members)} members; expected at most {_MOST_MEMBERS}")
    records = _records(members)
    for name in records:
        _check_name(name)
    for member in members:
        _check_size(member)
    _check_places(members, archive_bytes)
    missing = [name for name in (PROGRAM, WEIGHTS_CONFIG, CONSTANTS_CONFIG) if name not in records]
    if missing:
        raise Refused(f"it is no exported program: it has no {missing[0]}; {EXPORT}")
    return records


def check_sample_inputs(pickle: bytes) -> None:
    """Example inputs are never loaded. That they would import something is a reason to trust nothing of the file.

    Args:
        pickle: their stream of opcodes.

    Raises:
        Refused
    """
    try:
        for name in _imported(pickle):
            if not _HARMLESS.fullmatch(name):
                raise Refused(
                    f"its example inputs are a pickle that would run {name.replace(' ', '.')!r}: nothing of it was "
                    f"loaded; {EXPORT}, which writes none"
                )
    except ValueError:
        raise Refused(f"its example inputs are a broken pickle: nothing of it was loaded; {EXPORT}") from None


def _imported(pickle: bytes) -> Iterable[str]:
    """ "module name" of all that the pickle would import (pickletools, GLOBAL and STACK_GLOBAL)."""
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name == "STACK_GLOBAL":
            # What is on the stack is known only where it was pushed just before.
            yield " ".join(strings[-2:])
        elif opcode.name.startswith("EXT"):
            yield f"extension {argument}"
        elif isinstance(argument, str):
            strings.append(argument)


def _records(members: Sequence[Member]) -> dict[str, Member]:
    records: dict[str, Member] = {}
    roots = set()
    for member in members:
        root, slash, name = member.name.partition("/")
        parts = member.name.split("/")
        wrong = "\\" in member.name or "\0" in member.name or not {"", ".", ".."}.isdisjoint(parts)
        if wrong or len(member.name) > _MOST_NAME_CHARACTERS:
            raise Refused(f"it holds {member.name[:80]!r}, a path that leads elsewhere; {EXPORT}")
        if not slash or root in (".data", "code", "data"):
            raise Refused(f"it is no exported program: it holds {member.name[:80]!r}; {EXPORT}")
        roots.add(root)
        if name in records:
            raise Refused(f"it holds {name!r} twice; {EXPORT}")
        records[name] = member
    if len(roots) != 1:
        raise Refused(f"it is no exported program: expected one directory in the archive, found {len(roots)}; {EXPORT}")
    return records


def _check_name(name: str) -> None:
    if name in ("data.pkl", "constants.pkl") or name.startswith("code/"):
        raise Refused(f"it is TorchScript, or a pickle of torch.save, and loading it would run code; {EXPORT}")
    if _NATIVE.fullmatch(name):
        raise Refused(
            f"it holds native code ({name}), as AOTInductor packages do, and native code of a model is not run here; "
            f"{EXPORT}, and the engine option compile=inductor compiles it in the runner"
        )
    if _PICKLED.fullmatch(name):
        raise Refused(
            f"it holds a pickle ({name}): a custom object, or weights in a form of old, and loading it would run code; "
            f"keep what the module needs in tensors, and {EXPORT}"
        )
    if name.startswith("models/") and name != PROGRAM:
        raise Refused(f"it holds the program {name[:80]!r}; expected one, models/model.json; {EXPORT}")
    if not _ALLOWED.fullmatch(name):
        raise Refused(f"it holds {name[:80]!r}, which no exported program needs; {EXPORT}")


def _check_size(member: Member) -> None:
    if member.encrypted or member.compressed or member.size != member.packed_size:
        how = "encrypted" if member.encrypted else "compressed"
        raise Refused(f"{member.name!r} in it is {how}, and torch.export.save stores plainly; {EXPORT}")
    if member.name.endswith(".json") and member.size > MOST_JSON_BYTES:
        raise Refused(f"{member.name!r} in it has {member.size} bytes; expected at most {MOST_JSON_BYTES}")


def _check_places(members: Sequence[Member], archive_bytes: int) -> None:
    """Members that lie over each other declare more than there is."""
    end = 0
    for member in sorted(members, key=lambda each: each.offset):
        if member.offset < end:
            raise Refused(f"{member.name!r} in it lies over what is before it; {EXPORT}")
        end = member.offset + _HEADER_BYTES + len(member.name) + member.size
    if end > archive_bytes:
        raise Refused(f"it declares {end} bytes and has {archive_bytes}: it was cut short, or is made up; {EXPORT}")
