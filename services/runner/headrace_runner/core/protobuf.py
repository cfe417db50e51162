"""A walk over the fields of a serialised protobuf, which copies nothing and runs nothing.

The wire format is https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class Malformed(ValueError):
    """Not a protobuf of the form that was expected; says where it breaks."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as it is on the wire.

    Attributes:
        value: of a varint.
        content: of everything else; a view.
        is_message: it has a length, so that it can be a message, a string or packed numbers.
    """

    number: int
    value: int = 0
    content: memoryview = field(default_factory=lambda: memoryview(b""))
    is_message: bool = False


def fields(message: memoryview) -> Iterator[Field]:
    """Raises Malformed."""
    position, end = 0, len(message)
    while position < end:
        tag, position = varint(message, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = varint(message, position)
            yield Field(number, value)
            continue
        if wire == _LENGTH:
            size, position = varint(message, position)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise Malformed(f"it is not a protobuf: wire type {wire} does not exist")
        if number == 0 or size > end - position:
            raise Malformed("it is not a complete protobuf")
        yield Field(number, content=message[position : position + size], is_message=wire == _LENGTH)
        position += size


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """The number at `position`, and where the next thing begins. Raises Malformed."""
    value = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise Malformed("it is not a complete protobuf")
