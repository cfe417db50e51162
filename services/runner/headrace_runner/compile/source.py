"""The model that is compiled, as files: what it says of itself, and what identifies it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_runner.core.onnx_files import external_locations, is_inside
from headrace_runner.core.onnx_graph import OnnxGraph, read_graph
from headrace_runner.core.protobuf import Malformed
from headrace_runner.importing.programs import onnx_of


@dataclass(frozen=True, slots=True)
class Source:
    """
    Attributes:
        sha256: of the model's file and of those that it refers to, with their names.
    """

    path: Path
    graph: OnnxGraph
    sha256: str


def read_source(path: Path) -> Source:
    """Reads an .onnx file, or a .pt2 that is made into one.

    Raises:
        InvalidArgument: it is none, or refers to files that are not beside it.
        FailedPrecondition: it cannot be made into ONNX.
    """
    path = onnx_of(path)
    try:
        if path.is_dir():
            raise InvalidArgument(f"{path}: expected an .onnx file; it is a directory")
        content = path.read_bytes()
        if not content:
            raise InvalidArgument(f"{path}: the file is empty")
        graph, digest = read_graph(content), hashlib.sha256(content)
        for location in sorted(external_locations(content)):
            digest.update(f"\0{location}\0{_external(path, location)}".encode())
    except Malformed as error:
        raise InvalidArgument(f"{path} is not an ONNX model that can be compiled: {error}") from None
    except OSError as error:
        raise InvalidArgument(f"{error.filename or path}: cannot be read: {error.strerror}") from None
    return Source(path, graph, digest.hexdigest())


def _external(path: Path, location: str) -> str:
    """The digest of a file that holds some of the model's tensors."""
    if not is_inside(location) or not (path.parent / location).resolve().is_relative_to(path.parent.resolve()):
        raise InvalidArgument(
            f"{path}: its external data {location!r} is outside the model's folder; keep it beside it"
        )
    with (path.parent / location).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
