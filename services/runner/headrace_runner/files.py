"""Model files are what the autoscaler says they are, or nothing is loaded."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_runner.core.onnx_files import is_inside
from headrace_runner.domain import ModelFile


def verify(directory: Path, files: Sequence[ModelFile]) -> None:
    """Checks place, size and digest of every file.

    Raises:
        InvalidArgument: names the file, what was expected and what is there.
    """
    root = directory.resolve()
    if not directory.is_absolute() or not root.is_dir():
        raise InvalidArgument("directory: expected the absolute path of an existing directory with the model's files")
    for file in files:
        _verify_file(root, file)


def locate(directory: Path, path: str) -> Path:
    """A file of the model. Raises InvalidArgument where the path leads out of the directory, by links too."""
    if not is_inside(path):
        raise InvalidArgument(f"model file {path!r}: expected a path inside the model's directory, without '..'")
    found = directory / path
    if not found.resolve().is_relative_to(directory.resolve()):
        raise InvalidArgument(f"model file {path!r}: it is a link that leads out of the model's directory")
    return found


def check_external(entry_point: str, locations: Iterable[str], files: Sequence[ModelFile]) -> None:
    """Checks that the files which the entry point reads besides itself are among those verified.

    Args:
        entry_point: path of the model inside its directory.
        locations: as the model names them, relative to its own folder.
        files: what was verified.
    """
    known = {file.path for file in files}
    folder = posixpath.dirname(entry_point)
    for location in sorted(locations):
        path = posixpath.join(folder, location)
        if not is_inside(location):
            raise InvalidArgument(
                f"{entry_point}: its external data {location!r} is outside the model's folder; keep it beside the model"
            )
        if posixpath.normpath(path) not in known:
            raise InvalidArgument(f"{entry_point}: its external data {location!r} is missing; upload it with the model")


def _verify_file(root: Path, file: ModelFile) -> None:
    path = locate(root, file.path)
    try:
        with path.open("rb") as content:
            size = path.stat().st_size
            if size != file.size_bytes:
                raise InvalidArgument(f"model file {file.path!r}: expected {file.size_bytes} bytes, found {size}")
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InvalidArgument(f"model file {file.path!r} cannot be read: {error.strerror}") from None
    if digest != file.sha256:
        raise InvalidArgument(f"model file {file.path!r}: expected sha256 {file.sha256}, found {digest}")
