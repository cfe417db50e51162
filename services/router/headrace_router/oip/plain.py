"""A message as plain values for JSON, as Triton prints it: 64-bit integers are numbers, defaults are there.

protobuf's own JSON form writes 64-bit integers as strings, which clients of `config` and `stats` do not expect.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from google.protobuf.message import Message


def plain(message: Message) -> dict[str, Any]:
    """Fields by their proto names; absent messages and oneofs are left out."""
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    if not field.is_repeated:
        return _single(field, value)
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of_value = entry.fields_by_name["value"]
        return {str(key): _single(of_value, value[key]) for key in value}
    return [_single(field, element) for element in value]


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return b64encode(value).decode() if isinstance(value, bytes) else value
