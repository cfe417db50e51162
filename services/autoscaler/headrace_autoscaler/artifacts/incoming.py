"""An artifact while it arrives: files written to a temporary directory and checked as they complete.

Synchronous; the store runs it in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headrace_autoscaler.artifacts.paths import check_path
from headrace_autoscaler.domain import ModelFile
from headrace_common.errors import Cancelled, InvalidArgument, LimitExceeded
from headrace_common.quantities import format_bytes

MAX_FILES = 10_000
DISK_RESERVE_BYTES = 64 << 20
"""Left free on the disk: the database and the logs live there too."""


@dataclass(frozen=True, slots=True)
class FileHeader:
    """Announces a file. Size and digest are None where nobody knows them beforehand (fetched files)."""

    path: str
    size_bytes: int | None
    sha256: str | None


class Incoming:
    """One upload. `begin`, `write`... per file, then `finish`; `abandon` in every case at the end."""

    def __init__(self, directory: Path, max_bytes: int, free_bytes: Callable[[Path], int]) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._free_bytes = free_bytes
        self._files: dict[str, ModelFile] = {}
        self._header: FileHeader | None = None
        self._file: IO[bytes] | None = None
        self._digest: Any = None
        self._written = 0
        self._total = 0
        self._stopped = False
        directory.mkdir(parents=True)

    @property
    def directory(self) -> Path:
        return self._directory

    def take(self, part: FileHeader | bytes) -> None:
        """A header begins a file; bytes are the content of the last one begun."""
        if isinstance(part, FileHeader):
            self.begin(part)
        else:
            self.write(part)

    def stop(self) -> None:
        """From another thread: whatever is being written stops at its next chunk."""
        self._stopped = True

    def begin(self, header: FileHeader) -> None:
        """Completes the file before, if any, and opens this one."""
        self._complete()
        check_path(header.path, self._files)
        if len(self._files) >= MAX_FILES:
            raise LimitExceeded(f"an artifact holds at most {MAX_FILES} files")
        self._check_room(header.path, header.size_bytes or 0)
        target = self._directory / header.path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._file = target.open("xb")
        self._header, self._digest, self._written = header, hashlib.sha256(), 0

    def write(self, chunk: bytes) -> None:
        if self._stopped:
            raise Cancelled("the upload was given up")
        header = self._header
        if header is None or self._file is None:
            raise InvalidArgument("a chunk came before any file header; send a header first, then its chunks")
        self._written += len(chunk)
        if header.size_bytes is not None and self._written > header.size_bytes:
            raise InvalidArgument(
                f"file {header.path!r}: more content than the {header.size_bytes} bytes that its header announced"
            )
        self._check_room(header.path, self._written)
        self._digest.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(header.path) from None
            raise

    def finish(self) -> tuple[ModelFile, ...]:
        """Completes the last file; returns all, by path."""
        self._complete()
        if not self._files:
            raise InvalidArgument("the artifact holds no file")
        return tuple(self._files[path] for path in sorted(self._files))

    def abandon(self) -> None:
        """Removes what is still in the temporary directory; nothing after a successful rename."""
        if self._file is not None:
            self._file.close()
            self._file = None
        shutil.rmtree(self._directory, ignore_errors=True)

    def _complete(self) -> None:
        header, file = self._header, self._file
        if header is None or file is None:
            return
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._header = self._file = None
        if header.size_bytes is not None and self._written != header.size_bytes:
            raise InvalidArgument(
                f"file {header.path!r}: its header announced {header.size_bytes} bytes, {self._written} came"
            )
        digest = self._digest.hexdigest()
        if header.sha256 is not None and digest != header.sha256:
            raise InvalidArgument(
                f"file {header.path!r}: its content has sha256 {digest}, its header says {header.sha256}; upload again"
            )
        self._files[header.path] = ModelFile(header.path, digest, self._written)
        self._total += self._written

    def _check_room(self, path: str, file_bytes: int) -> None:
        total = self._total + file_bytes
        if total > self._max_bytes:
            raise LimitExceeded(
                f"file {path!r}: the artifact is at least {format_bytes(total)}, over the limit of "
                f"{format_bytes(self._max_bytes)} (configuration key autoscaler.max_artifact_bytes)"
            )
        to_come = file_bytes - (self._written if self._header is not None else 0)
        if self._free_bytes(self._directory) < max(to_come, 0) + DISK_RESERVE_BYTES:
            raise _no_room(path)


def _no_room(path: str) -> LimitExceeded:
    return LimitExceeded(f"file {path!r}: the disk of the mesh's state directory is full; free some space and retry")
