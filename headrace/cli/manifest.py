"""Reads the files of `headrace apply`: YAML documents that are `headrace.v1.Manifest` messages.

Two liberties that YAML invites: a number where the API has text (`cpu: 2`) is taken as that text,
and durations may be written as on the command line (`slo: 100ms`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor

from headrace.client.artifact import is_url
from headrace.errors import InvalidArgument
from headrace.v1 import mesh_pb2
from headrace_common.quantities import parse_seconds

_DURATION = "google.protobuf.Duration"
_KINDS = ("model", "tenant")
_EXPECTED = {
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number that fits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number that fits",
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_ENUM: "one of the names in the API",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    Attributes:
        where: file, number from 1, and whom it is about: "mesh.yaml, document 2 (model 'ocr')".
        manifest: what it says.
    """

    where: str
    manifest: mesh_pb2.Manifest


def read_manifests(path: Path) -> list[Document]:
    """All documents of a file, in order; paths in `source` become absolute, taken from the file's directory.

    Raises:
        InvalidArgument: names file, document and what is wrong with it.
    """
    try:
        with path.open() as file:  # A file, and not its text: YAML's errors then name it.
            documents = list(yaml.safe_load_all(file))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidArgument(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    found = [
        _read_document(document, f"{path}, document {number}{_whom(document)}")
        for number, document in enumerate(documents, start=1)
        if document is not None
    ]
    for manifest in (document.manifest for document in found):
        source = manifest.model.source
        if source and not is_url(source):
            manifest.model.source = str(path.parent / source)
    if not found:
        raise InvalidArgument(f"{path}: holds no document; expected `model:` or `tenant:`")
    return found


def _read_document(document: Any, where: str) -> Document:
    return Document(where, parse_manifest(document, where))


def _whom(document: Any) -> str:
    """ " (model 'ocr')", as far as the document says."""
    for kind in _KINDS:
        content = document.get(kind) if isinstance(document, dict) else None
        if isinstance(content, dict) and content.get("name"):
            return f" ({kind} {str(content['name'])!r})"
    return ""


def parse_manifest(document: Any, what: str) -> mesh_pb2.Manifest:
    """One document.

    Args:
        document: as YAML gave it.
        what: file and place, for errors.
    """
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what}: expected `model:` or `tenant:`; got {type(document).__name__}")
    try:
        if len(document) > 1 and set(document) <= set(_KINDS):
            raise InvalidArgument("expected exactly one of `model:` and `tenant:`")
        prepared = _prepare(document, mesh_pb2.Manifest.DESCRIPTOR, "")
        manifest = json_format.ParseDict(prepared, mesh_pb2.Manifest())
    except (json_format.ParseError, InvalidArgument) as error:
        raise InvalidArgument(f"{what}: {' '.join(str(error).split())}") from None
    kind = manifest.WhichOneof("resource")
    if kind is None:
        raise InvalidArgument(f"{what}: expected exactly one of `model:` and `tenant:`")
    if not getattr(manifest, kind).name:
        raise InvalidArgument(f"{what}: {kind}.name is missing")
    return manifest


def _prepare(value: Any, message: Any, path: str) -> Any:
    """The document with numbers and durations in the form that protobuf's JSON has.

    Args:
        value: what stands for the message.
        message: its descriptor.
        path: where it is, for errors: "model.resources".
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{path}: expected fields, {', '.join(message.fields_by_name)}; got {value!r}")
    prepared: dict[str, Any] = {}
    for key, item in value.items():
        field = message.fields_by_name.get(str(key)) or message.fields_by_camelcase_name.get(str(key))
        where = f"{path}.{key}" if path else str(key)
        if field is None:
            raise InvalidArgument(f"{where}: there is no such field; expected {', '.join(message.fields_by_name)}")
        prepared[field.name] = _prepare_field(item, field, where)
    return prepared


def _prepare_field(value: Any, field: Any, path: str) -> Any:
    if value is None:
        return None
    if field.message_type is None:
        prepared = _as_text(value, field)
        _check_alone(prepared, field, path)
        return prepared
    if field.message_type.full_name == _DURATION:
        return f"{parse_seconds(str(value), path):.9f}s"
    if field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        if not isinstance(value, dict):
            raise InvalidArgument(f"{path}: expected KEY: VALUE pairs; got {value!r}")
        return {str(key): _as_text(item, entry) for key, item in value.items()}
    return _prepare(value, field.message_type, path)


def _as_text(value: Any, field: Any) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number and field.type == FieldDescriptor.TYPE_STRING else value


def _check_alone(value: Any, field: Any, path: str) -> None:
    """Finds what protobuf would refuse, so that the error names the place and the value in our own words."""
    message = message_factory.GetMessageClass(field.containing_type)()
    try:
        json_format.ParseDict({field.name: value}, message)
    except json_format.ParseError:
        kind = "a list" if field.is_repeated else _EXPECTED.get(field.cpp_type, "another value")
        raise InvalidArgument(f"{path}: expected {kind}; got {value!r}") from None
