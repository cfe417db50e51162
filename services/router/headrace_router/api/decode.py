"""The request message of a method out of path, query and body. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from headrace_common.errors import InvalidArgument
from headrace_router.api.json_body import check_fields, parse_json
from headrace_router.api.rules import FieldPath, Found, Rule, field_named

_MAX_PARAMETERS = 256
# Messages that JSON writes as one string, number or boolean, so that a query can hold them.
_WRITTEN_AS_TEXT = {
    f"google.protobuf.{name}"
    for name in (
        *("Timestamp", "Duration", "FieldMask", "StringValue", "BytesValue", "BoolValue"),
        *("Int32Value", "Int64Value", "UInt32Value", "UInt64Value", "FloatValue", "DoubleValue"),
    )
}
_BOOLEANS = {"true": True, "false": False}


def decode_request(found: Found, query: bytes, body: bytes) -> Message:
    """The request that a call means.

    Args:
        found: by verb and path.
        query: what follows the "?", as it came.

    Raises:
        InvalidArgument: names what is wrong: a key, a parameter, a value, a contradiction.
    """
    rule = found.rule
    message = rule.request()
    if rule.body:
        document = parse_json(body)
        _merge(message, document if rule.body == "*" else {rule.body: document})
    elif body:
        raise InvalidArgument(f"{rule.verb} of this path takes no body; got {len(body)} bytes")
    for path, text in found.values.items():
        _set_from_path(message, path, text)
    _merge(message, _parameters(rule, query, found.values))
    return message


def _descriptor_of(message: Message | type[Message]) -> Descriptor:
    descriptor: Any = message.DESCRIPTOR  # Typed as either of two classes, one of them private.
    found: Descriptor = descriptor
    return found


def _merge(message: Message, document: Any) -> None:
    check_fields(document, _descriptor_of(message))
    try:
        json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        raise InvalidArgument(f"the request: {str(error).splitlines()[0]:.300}") from None


def _set_from_path(message: Message, path: FieldPath, text: str) -> None:
    said = type(message)()
    _merge(said, _nested(path, text))
    ours, theirs = said, message
    for name in path[:-1]:
        ours, theirs = getattr(ours, name), getattr(theirs, name)
    wanted, given = getattr(ours, path[-1]), getattr(theirs, path[-1])
    default = ours.DESCRIPTOR.fields_by_name[path[-1]].default_value
    if given not in (default, wanted):
        raise InvalidArgument(f"{'.'.join(path)} is {wanted!r:.150} in the path and {given!r:.150} in the body")
    message.MergeFrom(said)


def _parameters(rule: Rule, query: bytes, in_path: Mapping[FieldPath, str]) -> dict[str, Any]:
    """The query as a JSON document."""
    document: dict[str, Any] = {}
    for key, text in _pairs(query):
        path, field = _field(rule, key)
        if path in in_path:
            raise InvalidArgument(f"query parameter {key!r:.100}: this is what the path says")
        if rule.body in ("*", path[0]):
            raise InvalidArgument(f"query parameter {key!r:.100}: this belongs into the body")
        _put(document, path, _value(field, text), field, key)
    return document


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS, separator="&"
        )
    except UnicodeDecodeError:
        raise InvalidArgument("the query is not UTF-8") from None
    except ValueError:
        raise InvalidArgument(f"the query has more than {_MAX_PARAMETERS} parameters") from None


def _field(rule: Rule, key: str) -> tuple[FieldPath, FieldDescriptor]:
    path: list[str] = []
    inner: Descriptor | None = _descriptor_of(rule.request)
    field: FieldDescriptor | None = None
    for name in key.split("."):
        field = None if inner is None else field_named(inner, name)
        if field is None:
            raise InvalidArgument(f"there is no query parameter {key!r:.100} here; there are: {_parameters_of(rule)}")
        path.append(field.name)
        inner = None if field.is_repeated or _is_text(field.message_type) else field.message_type
    if field is None or not (field.message_type is None or _is_text(field.message_type)):
        raise InvalidArgument(f"query parameter {key!r:.100} is an object; name one of its fields")
    return tuple(path), field


def _is_text(message: Descriptor | None) -> bool:
    return message is not None and message.full_name in _WRITTEN_AS_TEXT


def _parameters_of(rule: Rule) -> str:
    """For people: the fields that are neither in the path nor in the body."""
    names = [field.name for field in _descriptor_of(rule.request).fields if rule.body not in ("*", field.name)]
    return ", ".join(name for name in names if (name,) not in rule.segments) or "none"


def _value(field: FieldDescriptor, text: str) -> Any:
    kind = field.message_type.full_name if field.message_type is not None else ""
    if field.type == FieldDescriptor.TYPE_BOOL or kind == "google.protobuf.BoolValue":
        return _BOOLEANS.get(text, text)
    return text


def _put(document: dict[str, Any], path: FieldPath, value: Any, field: FieldDescriptor, key: str) -> None:
    for name in path[:-1]:
        document = document.setdefault(name, {})
    if field.is_repeated:
        document.setdefault(path[-1], []).append(value)
    elif path[-1] in document:
        raise InvalidArgument(f"query parameter {key!r:.100} is there more than once")
    else:
        document[path[-1]] = value


def _nested(path: FieldPath, value: str) -> dict[str, Any]:
    document: Any = value
    for name in reversed(path):
        document = {name: document}
    built: dict[str, Any] = document
    return built
