"""JSON that came from outside: parsed once, with errors for people. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import orjson

from headrace_common.errors import InvalidArgument

Json = dict[str, Any]
T = TypeVar("T")

# Possessive, so that a string of any length costs no backtracking. A key is a string before a colon.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"([ \t\r\n]*+:)?', re.DOTALL)
_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    type(None): "null",
}
# To say which key it was, the text is parsed again by a slower parser; not if it is large.
_EXPLAINED_BYTES = 64 * 1024


def parse_object(text: bytes) -> Json:
    """A JSON object. Raises InvalidArgument with line and column of what is wrong."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        numbers = b"NaN" in text or b"Infinity" in text
        hint = "; JSON has no NaN or Infinity: send such tensors in binary form" if numbers else ""
        raise InvalidArgument(f"the request is not JSON that can be read: {error}{hint}") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"the request is a JSON object; got {kind_of(document)}")
    return document


def member(document: Json, name: str, kind: type[T], where: str, default: T | None = None) -> T:
    """A member of an object; one that may be absent, since it has a default, may be null too.

    Raises:
        InvalidArgument: it is of another kind, or absent and has no default.
    """
    value = document.get(name)
    if value is None and default is not None:
        return default
    if name not in document:
        raise InvalidArgument(f"{where}: {name!r} is missing; expected {_NAMES[kind]}")
    if type(value) is not kind:
        raise InvalidArgument(f"{where}: {name!r} is {_NAMES[kind]}; got {kind_of(value)}")
    return value


def kind_of(value: object) -> str:
    return _NAMES[type(value)]


def check_keys(text: bytes, document: Json) -> None:
    """Raises InvalidArgument where an object has a key twice; the parser keeps the last, in silence."""
    check_key_count(text, count_keys(document))


def check_key_count(text: bytes, kept: int) -> None:
    """As `check_keys`, given how many keys the parser kept.

    The keys written in the text are counted and compared with those. The text has been parsed, so a string
    before a colon is a key. Strings apart, there is a colon for each key: no more colons than keys that were
    kept, and none was lost.
    """
    if text.count(b":") == kept:
        return
    written = sum(1 for match in _STRING.finditer(text) if match[1])
    if written != kept:
        raise InvalidArgument(f"an object in the request has a key more than once{_repeated_key(text)}")


def count_keys(document: Json) -> int:
    """Keys of all objects in `document`, itself included."""
    count = 0
    left: list[Any] = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            count += len(value)
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return count


def _repeated_key(text: bytes) -> str:
    if len(text) > _EXPLAINED_BYTES:
        return ""
    repeated: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        repeated.extend(name for name in names if names.count(name) > 1)

    try:
        json.loads(text, object_pairs_hook=look)
    except RecursionError:
        return ""
    return f": {repeated[0]!r:.60}" if repeated else ""
