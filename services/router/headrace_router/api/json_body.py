"""A JSON body that came from outside, checked against the message that it is to become. Pure.

What json_format would take in silence or refuse with a text about Python is refused here: keys that are there twice,
keys that name no field, NaN.
"""

from __future__ import annotations

import json
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from headrace_common.errors import InvalidArgument
from headrace_router.api.rules import field_named

_WELL_KNOWN = "google.protobuf."
_SHOWN_FIELDS = 24


def parse_json(text: bytes) -> Any:
    """Raises InvalidArgument: it is no JSON, or an object has a key twice."""
    if not text:
        raise InvalidArgument("the request has no body; expected a JSON object")
    try:
        orjson.loads(text)  # Stricter than `json`: no NaN, no half surrogates; and says where it is wrong.
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        hint = "; JSON has no NaN or Infinity" if b"NaN" in text or b"Infinity" in text else ""
        raise InvalidArgument(f"the request is not JSON that can be read: {error!s:.200}{hint}") from None


def check_fields(document: Any, message: Descriptor, where: str = "the request") -> None:
    """Raises InvalidArgument that names the first key of `document` that is no field of `message`."""
    if not isinstance(document, dict):
        raise InvalidArgument(f"{where} is a JSON object; got {_kind(document)}")
    seen: set[int] = set()
    for key, value in document.items():
        field = field_named(message, key)
        if field is None:
            raise InvalidArgument(f"{where} has no field {key!r:.100}; it has: {_fields_of(message)}")
        if field.number in seen:
            raise InvalidArgument(f"{where} has the field {field.name!r} in two spellings")
        seen.add(field.number)
        if value is not None and field.message_type is not None:
            _check_value(value, field, field.message_type, key if where == "the request" else f"{where}.{key}")


def _check_value(value: Any, field: FieldDescriptor, message: Descriptor, where: str) -> None:
    if message.GetOptions().map_entry:
        _check_map(value, message.fields_by_name["value"].message_type, where)
    elif message.full_name.startswith(_WELL_KNOWN):
        return  # These have forms of their own, such as "60s", and json_format names what is wrong.
    elif not field.is_repeated:
        check_fields(value, message, where)
    elif not isinstance(value, list):
        raise InvalidArgument(f"{where} is a JSON array; got {_kind(value)}")
    else:
        for index, one in enumerate(value):
            check_fields(one, message, f"{where}[{index}]")


def _check_map(value: Any, held: Descriptor | None, where: str) -> None:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{where} is a JSON object; got {_kind(value)}")
    if held is not None and not held.full_name.startswith(_WELL_KNOWN):
        for key, one in value.items():
            check_fields(one, held, f"{where}.{key:.100}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in pairs:
        if key in built:
            raise InvalidArgument(f"an object in the request has the key {key!r:.100} more than once")
        built[key] = value
    return built


def _fields_of(message: Descriptor) -> str:
    names = [field.name for field in message.fields]
    return ", ".join(names[:_SHOWN_FIELDS]) + (", ..." if len(names) > _SHOWN_FIELDS else "") or "none"


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "true or false", list: "an array", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")
