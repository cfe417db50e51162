"""A file in memory that two processes map: made by the router, found by the runner, nameless ever after.

The name lives only until the runner has mapped the file, so whichever of the two dies, the kernel takes the
memory back with the last mapping. A router that is killed before that leaves a name with an empty file; its
lock dies with it, by which the next router here knows that the file is nobody's.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"HEADRACE segment"
PAGE_BYTES = 4096
"""Of the head, which holds MAGIC; the halves follow."""
PREFIX = "headrace-segment-"
MOST_BYTES = 1 << 34
SHARED_FROM_BYTES = 64 << 10
"""A smaller tensor is as fast inside its message: docs/data-path.md has the measurement."""


class SegmentRefused(Exception):
    """There is no such segment, or none can be made; the stream carries tensors as well. For the log."""


class BadRegion(Exception):
    """The peer named bytes that are not of the half it may write. Says which, for the log."""


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes of a segment."""

    offset: int
    size_bytes: int


class Segment:
    """A mapping. It stays for as long as the object or any view of it does.

    Attributes:
        path: where the runner finds it.
        half_bytes: size of each half.
        map: all of it, head included.
    """

    def __init__(self, file: int, path: Path, size: int) -> None:
        self.path = path
        self.half_bytes = (size - PAGE_BYTES) // 2
        self.map = mmap.mmap(file, size)
        self._file = file
        self._named = True

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.unlink()
            os.close(self._file)

    @classmethod
    def make(cls, directory: Path, half_bytes: int) -> Segment:
        """A new one, which holds no memory yet: pages are reserved as they are needed.

        Raises:
            SegmentRefused: the directory is not there, or its file system cannot do it.
        """
        half_bytes = -(-half_bytes // PAGE_BYTES) * PAGE_BYTES
        size = PAGE_BYTES + 2 * half_bytes
        path = directory / f"{PREFIX}{secrets.token_hex(8)}"
        try:
            _sweep(directory)
            # Nameless until it is locked: a sweep of another router must not take it for an orphan.
            file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                os.ftruncate(file, size)
                os.pwrite(file, MAGIC, 0)
                # Python follows the link only where it is given a directory, though an absolute path needs none.
                os.link(f"/proc/self/fd/{file}", path, src_dir_fd=file, follow_symlinks=True)
                return cls(file, path, size)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise SegmentRefused(f"no segment can be made in {directory}: {error.strerror}") from error

    @classmethod
    def find(cls, path: Path) -> Segment:
        """Maps what a router has made, and takes its name away.

        Raises:
            SegmentRefused: it is not there, or not a segment.
        """
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise SegmentRefused(f"the segment {path} cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(file)
            size = status.st_size
            whole = (size - PAGE_BYTES) % (2 * PAGE_BYTES) == 0 and PAGE_BYTES < size <= MOST_BYTES
            if not stat.S_ISREG(status.st_mode) or not whole or os.pread(file, len(MAGIC), 0) != MAGIC:
                raise SegmentRefused(f"{path} is not a segment of a router")
            found = cls(file, path, size)
        except BaseException:
            os.close(file)
            raise
        found.unlink()
        return found

    def unlink(self) -> None:
        """Takes the name away, whoever else has it mapped."""
        if self._named:
            self._named = False
            with suppress(OSError):
                self.path.unlink()

    def bundles(self) -> tuple[int, int]:
        """Start and size of the half that the router writes."""
        return PAGE_BYTES, self.half_bytes

    def results(self) -> tuple[int, int]:
        """Start and size of the half that the runner writes."""
        return PAGE_BYTES + self.half_bytes, self.half_bytes

    def check(self, region: Region, half: tuple[int, int], head_bytes: int = 0) -> None:
        """Raises BadRegion where a region, with `head_bytes` before it, is not inside a half."""
        start, size = half
        if not start + head_bytes <= region.offset <= region.offset + region.size_bytes <= start + size:
            raise BadRegion(f"{region.size_bytes} bytes at {region.offset} are not within the {size} bytes at {start}")

    def reserve(self, offset: int, size: int) -> bool:
        """Takes memory for these bytes now; without it a full file system would kill who writes to them."""
        try:
            os.posix_fallocate(self._file, offset, size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
                return False
            raise
        return True


def _sweep(directory: Path) -> None:
    """Removes what routers left that were killed before their runner came."""
    for path in directory.glob(f"{PREFIX}*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
