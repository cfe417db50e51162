"""ModelInferResponse as bytes, put together by hand.

What repeats from answer to answer (names, datatypes, shapes) is serialised once and kept; tensor data
is copied once, by the final join. Field numbers: headrace/oip/inference.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from headrace_router.domain import Buffer, RevisionEntry, TensorData

_LAYOUTS_KEPT = 1024
# A tag is field << 3 | 2: all fields here are length-delimited.
_MODEL_NAME, _MODEL_VERSION, _ID, _OUTPUT, _RAW = b"\x0a", b"\x12", b"\x1a", b"\x2a", b"\x32"
_TENSOR_NAME, _TENSOR_DATATYPE, _TENSOR_SHAPE = b"\x0a", b"\x12", b"\x1a"


def varint(value: int) -> bytes:
    """Base-128 form of a number that is not negative."""
    if value < 0x80:
        return bytes((value,))
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


class ResponseTemplate:
    """Answers of one revision."""

    def __init__(self, entry: RevisionEntry) -> None:
        self._prefix = _field(_MODEL_NAME, entry.model.encode()) + _field(_MODEL_VERSION, entry.version.encode())
        self._outputs: dict[tuple[str, str, tuple[int, ...]], bytes] = {}

    def encode(self, request_id: bytes, outputs: Iterable[TensorData]) -> bytes:
        """Serialised ModelInferResponse; `request_id` is UTF-8."""
        parts: list[Buffer] = [self._prefix]
        contents: list[Buffer] = []
        if request_id:
            parts.append(_field(_ID, request_id))
        known = self._outputs
        for tensor in outputs:
            key = (tensor.name, tensor.datatype, tensor.shape)
            parts.append(known.get(key) or self._add(key))
            contents.append(_raw_head(len(tensor.data)))
            contents.append(tensor.data)
        parts += contents
        return b"".join(parts)

    def _add(self, key: tuple[str, str, tuple[int, ...]]) -> bytes:
        # Models with free output shapes make new layouts without end.
        if len(self._outputs) >= _LAYOUTS_KEPT:
            self._outputs.clear()
        name, datatype, shape = key
        sizes = b"".join(map(varint, shape))
        inner = (
            _field(_TENSOR_NAME, name.encode())
            + _field(_TENSOR_DATATYPE, datatype.encode())
            + _field(_TENSOR_SHAPE, sizes)
        )
        # An output is an element of a repeated field: it is there even if all its fields are empty.
        made = self._outputs[key] = _OUTPUT + varint(len(inner)) + inner
        return made


def _field(tag: bytes, content: bytes) -> bytes:
    """proto3 leaves out what is empty."""
    return tag + varint(len(content)) + content if content else b""


@lru_cache(maxsize=4096)
def _raw_head(size: int) -> bytes:
    return _RAW + varint(size)
