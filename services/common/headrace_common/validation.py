"""Checks requests against the rules written in the protos (protovalidate)."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import protovalidate
from google.protobuf.message import Message

from headrace_common.errors import InvalidArgument


def validate(message: Message) -> None:
    """Raises InvalidArgument that names every field that breaks a rule, and the rule."""
    rules = _rules(message.DESCRIPTOR.file.name, message.DESCRIPTOR.full_name)
    if rules is None:
        return
    violations = protovalidate.collect_violations(rules.from_binary(message.SerializeToString()))
    if violations:
        raise InvalidArgument("; ".join(_describe(violation) for violation in violations))


@cache
def _rules(file: str, full_name: str) -> Any:
    """The message's class in the validator's runtime; None for a file without rules."""
    module_name = "headrace_common.rules." + file.removesuffix(".proto").replace("/", ".") + "_pb"
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError:
        return None
    package = file.rpartition("/")[0].replace("/", ".")
    for name in full_name.removeprefix(package + ".").split("."):
        found = getattr(found, name)
    return found


def _describe(violation: Any) -> str:
    path = ".".join(element.field_name for element in violation.proto.field.elements)
    return f"{path or 'request'}: {violation.proto.message}"
