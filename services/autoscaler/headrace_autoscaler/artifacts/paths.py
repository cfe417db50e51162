"""Which paths may be inside an artifact. Pure."""

from __future__ import annotations

from collections.abc import Collection

from headrace_common.errors import InvalidArgument

MANIFEST = ".headrace-manifest.json"
"""What the store itself writes into an artifact's directory; not a name for a user's file."""

_MAX_BYTES = 512
_MAX_SEGMENT_BYTES = 200


def check_path(path: str, taken: Collection[str]) -> None:
    """Refuses what could leave the artifact's directory or collide inside it.

    Args:
        path: as the uploader wrote it.
        taken: paths that the artifact already has.

    Raises:
        InvalidArgument: names the path and what is wrong with it.
    """
    wrong = _wrong(path) or _collision(path, taken)
    if wrong:
        raise InvalidArgument(
            f"file {path[:80]!r}: {wrong}; expected a path inside the artifact such as 'model.onnx' or '1/model.onnx'"
        )


def _wrong(path: str) -> str:
    segments = path.split("/")
    rules = (
        (not path, "the path is empty"),
        ("\\" in path, "the path holds a backslash"),
        (path.startswith("/") or path[1:2] == ":", "the path is absolute"),
        (any(not character.isprintable() for character in path), "the path holds unprintable characters"),
        (any(segment in ("", ".", "..") for segment in segments), "the path holds an empty, '.' or '..' segment"),
        (any(segment == MANIFEST for segment in segments), "the name is reserved"),
        (len(path.encode()) > _MAX_BYTES, f"the path is longer than {_MAX_BYTES} bytes"),
        (
            any(len(segment.encode()) > _MAX_SEGMENT_BYTES for segment in segments),
            f"a name in the path is longer than {_MAX_SEGMENT_BYTES} bytes",
        ),
    )
    return next((reason for broken, reason in rules if broken), "")


def _collision(path: str, taken: Collection[str]) -> str:
    if path in taken:
        return "the file was sent before"
    parents = {path[:index] for index, character in enumerate(path) if character == "/"}
    if parents & set(taken) or any(other.startswith(path + "/") for other in taken):
        return "the path is both a file and a directory"
    return ""
