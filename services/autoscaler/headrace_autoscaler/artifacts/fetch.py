"""Fetches model files by URL, for the schemes that the configuration allows. Synchronous."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from headrace_autoscaler.artifacts.incoming import FileHeader, Incoming
from headrace_common.errors import FailedPrecondition, HeadraceError, InvalidArgument

_CHUNK_BYTES = 1 << 20


def check_source(url: str, schemes: Collection[str]) -> None:
    """Refuses a URL that this mesh may not fetch.

    Raises:
        InvalidArgument: says what to do: which configuration key, or how to upload.
    """
    parts = urlsplit(url)
    if "://" not in url or not parts.scheme:
        raise InvalidArgument(
            "source: expected a URL; a path is uploaded by the command line, and the deploy then names the artifact"
        )
    if parts.scheme not in schemes:
        allowed = ", ".join(sorted(schemes)) or "none"
        raise InvalidArgument(
            f"source: the mesh may not fetch {parts.scheme}:// URLs (allowed: {allowed}); allow the scheme in the "
            "configuration key autoscaler.source_schemes, or download the files and deploy their path"
        )
    if "::" in url:
        # fsspec would read it as a chain of sources, and the last one need not be of an allowed scheme.
        raise InvalidArgument("source: a URL must not hold '::'")
    if parts.username or parts.password:
        raise InvalidArgument("source: a URL must not hold credentials; set them in the autoscaler's environment")


def without_secrets(url: str) -> str:
    """The URL as it may be stored and shown: a query can hold a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def fetch_files(url: str, incoming: Incoming) -> None:
    """Writes the file, or every file below the directory, that a checked URL names."""
    try:
        _copy(url, incoming)
    except HeadraceError:
        raise
    except ImportError as error:
        raise FailedPrecondition(
            f"source: fetching {urlsplit(url).scheme}:// needs the package {error.name} where the mesh runs: "
            f"{' '.join(str(error).split())}"
        ) from error
    except Exception as error:  # Every backend of fsspec has exceptions of its own.
        reason = " ".join(str(error).split())
        if query := urlsplit(url).query:
            reason = reason.replace(query, "...")
        raise InvalidArgument(
            f"source {without_secrets(url)}: cannot be read: {type(error).__name__}: {reason}"
        ) from error


def _copy(url: str, incoming: Incoming) -> None:
    import fsspec  # Takes a while to import, and most meshes fetch nothing.

    filesystem, root = fsspec.core.url_to_fs(url)
    # A web server has no directories: what looks like one is a page of links.
    if urlsplit(url).scheme != "https" and filesystem.isdir(root):
        prefix = root.rstrip("/") + "/"
        for path in sorted(filesystem.find(root)):
            _copy_file(filesystem, path, path.removeprefix(prefix), incoming)
        return
    name = urlsplit(url).path.rpartition("/")[2]
    _copy_file(filesystem, root, name, incoming)


def _copy_file(filesystem: Any, path: str, name: str, incoming: Incoming) -> None:
    incoming.begin(FileHeader(name, None, None))
    with filesystem.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            incoming.write(chunk)
