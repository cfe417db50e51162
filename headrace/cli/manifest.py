"""Reads the files of `headrace apply`: YAML documents that are `headrace.v1.Manifest` messages.

Two liberties that YAML invites: a number where the API has text (`cpu: 2`) is taken as that text,
and durations may be written as on the command line (`slo: 100ms`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from headrace.client.artifact import is_url
from headrace.errors import InvalidArgument
from headrace.v1 import mesh_pb2
from headrace_common.quantities import parse_seconds

_DURATION = "google.protobuf.Duration"


def read_manifests(path: Path) -> list[mesh_pb2.Manifest]:
    """All documents of a file, in order; paths in `source` become absolute, taken from the file's directory.

    Raises:
        InvalidArgument: names file, document and what is wrong with it.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidArgument(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    manifests = [
        parse_manifest(document, f"{path}, document {number}")
        for number, document in enumerate(documents, start=1)
        if document is not None
    ]
    for manifest in manifests:
        source = manifest.model.source
        if source and not is_url(source):
            manifest.model.source = str(path.parent / source)
    if not manifests:
        raise InvalidArgument(f"{path}: holds no document; expected `model:` or `tenant:`")
    return manifests


def parse_manifest(document: Any, what: str) -> mesh_pb2.Manifest:
    """One document.

    Args:
        document: as YAML gave it.
        what: file and place, for errors.
    """
    if not isinstance(document, dict):
        raise InvalidArgument(f"{what}: expected `model:` or `tenant:`; got {type(document).__name__}")
    try:
        prepared = _prepare(document, mesh_pb2.Manifest.DESCRIPTOR)
        manifest = json_format.ParseDict(prepared, mesh_pb2.Manifest())
    except (json_format.ParseError, InvalidArgument) as error:
        raise InvalidArgument(f"{what}: {' '.join(str(error).split())}") from None
    kind = manifest.WhichOneof("resource")
    if kind is None:
        raise InvalidArgument(f"{what}: expected exactly one of `model:` and `tenant:`")
    if not getattr(manifest, kind).name:
        raise InvalidArgument(f"{what}: {kind}.name is missing")
    return manifest


def _prepare(value: Any, message: Any) -> Any:
    """The document with numbers and durations in the form that protobuf's JSON has; `message` is its descriptor."""
    if not isinstance(value, dict):
        return value
    return {key: _prepare_field(item, message.fields_by_name.get(str(key))) for key, item in value.items()}


def _prepare_field(value: Any, field: Any) -> Any:
    if field is None:
        return value
    if field.message_type is not None and field.message_type.full_name == _DURATION:
        return f"{parse_seconds(value, field.name):.9f}s" if isinstance(value, str) else value
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {key: _prepare_field(item, entry) for key, item in value.items()} if isinstance(value, dict) else value
    if field.message_type is not None:
        return _prepare(value, field.message_type)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if is_number and field.type == FieldDescriptor.TYPE_STRING else value
