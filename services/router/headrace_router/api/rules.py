"""Which method a verb and a path mean, by the google.api.http annotations. Pure.

The annotations' language: https://github.com/googleapis/googleapis/blob/master/google/api/http.proto. Of it this takes
templates of literals and `{field}` or `{field.field}`, each one segment, `body` and `additional_bindings`; what a
method asks for beyond that is an error at start-up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headrace_common.errors import NotFound

FieldPath = tuple[str, ...]
_VERBS = ("get", "put", "post", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to call one method.

    Attributes:
        segments: of the path: literals, and fields that take what is in their place.
        body: "*": the body is the request; a field: it is that field; "": there is none.
        path: the method's gRPC path.
        streams: the method answers with a stream.
    """

    verb: str
    segments: tuple[str | FieldPath, ...]
    body: str
    path: str
    request: type[Message]
    response: type[Message]
    streams: bool

    def match(self, segments: list[str]) -> dict[FieldPath, str] | None:
        """The values of the fields in the path; None: the path is another."""
        if len(segments) != len(self.segments):
            return None
        values: dict[FieldPath, str] = {}
        for wanted, segment in zip(self.segments, segments, strict=True):
            if isinstance(wanted, tuple) and segment:
                values[wanted] = segment
            elif wanted != segment:
                return None
        return values


@dataclass(frozen=True, slots=True)
class Found:
    rule: Rule
    values: Mapping[FieldPath, str]


class WrongVerb(Exception):
    """The path exists and takes other verbs.

    Attributes:
        allowed: those, as the Allow header lists them.
    """

    def __init__(self, allowed: str) -> None:
        super().__init__(allowed)
        self.allowed = allowed


class Rules:
    """All rules of some services."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        """Raises ValueError for an annotation that is beyond what this module knows."""
        rules = [rule for service in services for method in service.methods for rule in _rules_of(method)]
        # A literal goes before a field in its place.
        self._rules = sorted(rules, key=lambda rule: [isinstance(segment, tuple) for segment in rule.segments])

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules)

    def find(self, verb: str, path: str) -> Found:
        """What a request asks for.

        Args:
            verb: in upper case.
            path: as it came, with its percent-escapes, without the query.

        Raises:
            NotFound: there is no such path.
            WrongVerb: there is, with another verb.
        """
        segments = [unquote(segment) for segment in path.split("/")[1:]]
        matches = [(rule, values) for rule in self._rules if (values := rule.match(segments)) is not None]
        for rule, values in matches:
            if rule.verb == verb:
                return Found(rule, values)
        if matches:
            raise WrongVerb(", ".join(sorted({rule.verb for rule, _ in matches})))
        raise NotFound(f"there is no path {path!r:.200}")


def field_named(message: Descriptor, name: str) -> FieldDescriptor | None:
    """The field that JSON calls `name`: by its proto name or in lowerCamelCase."""
    field: FieldDescriptor | None = message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)
    return field


def _rules_of(method: MethodDescriptor) -> Iterator[Rule]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    http = options.Extensions[annotations_pb2.http]
    for binding in (http, *http.additional_bindings):
        yield _rule(method, binding)


def _rule(method: MethodDescriptor, http: Any) -> Rule:
    verb = http.WhichOneof("pattern")
    if verb not in _VERBS or http.response_body or method.client_streaming:
        raise ValueError(
            f"{method.full_name}: its google.api.http needs one of {', '.join(_VERBS)}, no response_body, one request"
        )
    if http.body not in ("", "*") and http.body not in method.input_type.fields_by_name:
        raise ValueError(f"{method.full_name}: the body {http.body!r} is no field of {method.input_type.full_name}")
    return Rule(
        verb=verb.upper(),
        segments=tuple(_segment(method, part) for part in getattr(http, verb).split("/")[1:]),
        body=http.body,
        path=f"/{method.containing_service.full_name}/{method.name}",
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        streams=method.server_streaming,
    )


def _segment(method: MethodDescriptor, part: str) -> str | FieldPath:
    if not part.startswith("{"):
        if set(part) & set("*{}:"):
            raise ValueError(f"{method.full_name}: {part!r} in a path is not understood")
        return part
    names = tuple(part.removeprefix("{").removesuffix("}").split("."))
    message: Descriptor | None = method.input_type
    for index, name in enumerate(names):
        field = None if message is None else message.fields_by_name.get(name)
        if field is None or field.is_repeated or (index == len(names) - 1 and field.message_type is not None):
            raise ValueError(
                f"{method.full_name}: {part!r} in a path is no single value of {method.input_type.full_name}"
            )
        message = field.message_type
    return names
