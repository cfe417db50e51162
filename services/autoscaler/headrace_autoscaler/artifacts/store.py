"""Artifacts on disk: `<directory>/<digest>/<path>`, complete or not there at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import orjson

from headrace_autoscaler.artifacts.fetch import check_source, fetch_files
from headrace_autoscaler.artifacts.incoming import FileHeader, Incoming
from headrace_autoscaler.artifacts.paths import MANIFEST
from headrace_autoscaler.domain import ModelFile
from headrace_common.clock import Clock, SystemClock

_INCOMING = ".incoming"
_TRASH = ".trash"
_ANNOUNCED_S = 60.0
"""An upload is followed by the request that it is for within this, and is kept until then."""
_NAME = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A set of files.

    Attributes:
        name: digest over the paths and digests of its files; also its directory's name.
        files: by path.
    """

    name: str
    files: tuple[ModelFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def digest_of(files: tuple[ModelFile, ...]) -> str:
    """SHA-256 over `path NUL sha256 LF` of each file, by path: equal for equal content under equal names."""
    lines = (f"{file.path}\0{file.sha256}\n" for file in sorted(files, key=lambda file: file.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class ArtifactStore:
    """Takes uploads in and removes what nobody uses. One per state directory; all disk work is in threads.

    Args:
        directory: made if it is not there.
        max_bytes: of one artifact.
        ttl_s: an artifact without a model is kept this long after its last upload.
        clock: wall time, for the ages.
        free_bytes: of the disk that holds a path.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        ttl_s: float = 3600.0,
        clock: Clock | None = None,
        free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
    ) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._free_bytes = free_bytes
        self._pins: Counter[str] = Counter()
        self._announced: dict[str, float] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in (_INCOMING, _TRASH):
            shutil.rmtree(directory / left_over, ignore_errors=True)

    @property
    def directory(self) -> Path:
        return self._directory

    async def receive(self, parts: AsyncIterator[FileHeader | bytes], *, announced: bool = False) -> Artifact:
        """Writes, checks and keeps an upload; the same files again are the same artifact.

        Args:
            announced: a request that is for it follows; until then, or for a minute, nobody removes it.

        Raises:
            InvalidArgument: a path, size or digest is wrong; nothing is kept.
            LimitExceeded: too large, or the disk is full; nothing is kept.
        """
        async with self._incoming() as incoming:
            async for part in parts:
                await _step(incoming, partial(incoming.take, part))
            return await self._keep(incoming, announced)

    async def fetch(self, url: str, schemes: Collection[str]) -> Artifact:
        """Fetches a file or a directory by URL and keeps it.

        Raises:
            InvalidArgument: the scheme is not allowed, or the source cannot be read.
            LimitExceeded: too large, or the disk is full.
        """
        check_source(url, schemes)
        async with self._incoming() as incoming:
            await _step(incoming, partial(fetch_files, url, incoming))
            return await self._keep(incoming)

    async def find(self, name: str) -> Artifact | None:
        """None: never uploaded, or removed since."""
        return await asyncio.to_thread(self._read, name)

    async def read(self, name: str, path: str) -> bytes:
        """The content of one (small) file of an artifact that is there."""
        return await asyncio.to_thread((self._directory / name / path).read_bytes)

    @contextmanager
    def pinned(self, name: str) -> Iterator[None]:
        """Keeps an artifact from being removed for as long as the block runs; it has come to its use."""
        self._announced.pop(name, None)
        self._pins[name] += 1
        try:
            yield
        finally:
            self._pins[name] -= 1
            if not self._pins[name]:
                del self._pins[name]

    async def remove_unused(self, name: str, in_use: Callable[[], Collection[str]]) -> bool:
        """Removes one artifact now unless it is pinned, in use, or was uploaded for what is just about to be asked for;
        says whether it did.

        A name that is none removes nothing: a client may have made it up, and as a path it could lead anywhere.
        """
        if not _NAME.fullmatch(name) or self._pins[name] or self._is_announced(name) or name in in_use():
            return False
        trash = self._temporary(_TRASH)
        trash.parent.mkdir(exist_ok=True)
        # The rename is on the event loop: between the question above and it, nobody can begin to use it.
        try:
            os.rename(self._directory / name, trash)
        except FileNotFoundError:
            return False
        await asyncio.to_thread(shutil.rmtree, trash, ignore_errors=True)
        return True

    async def collect(self, in_use: Callable[[], Collection[str]], now: float) -> tuple[str, ...]:
        """Removes what no revision uses and what was uploaded longer ago than the time to live.

        Args:
            in_use: asked again before each removal, so that a deploy meanwhile counts.
            now: wall time, seconds.

        Returns:
            What was removed.
        """
        names = await asyncio.to_thread(self._names)
        return tuple([name for name in names if self._expired(name, now) and await self.remove_unused(name, in_use)])

    def redact(self, text: str) -> str:
        """Takes the state directory's own paths out of a text that a client will see."""
        for root in {str(self._directory), str(self._directory.resolve())}:
            text = re.sub(re.escape(root) + r"/[0-9a-f]{64}/?", "", text)
            text = text.replace(root + "/", "").replace(str(Path(root).parent) + "/", "")
        return text

    @asynccontextmanager
    async def _incoming(self) -> AsyncIterator[Incoming]:
        incoming = await asyncio.to_thread(Incoming, self._temporary(_INCOMING), self._max_bytes, self._free_bytes)
        try:
            yield incoming
        finally:
            # Shielded: the removal runs to its end even when the uploader has gone.
            await asyncio.shield(asyncio.to_thread(incoming.abandon))

    async def _keep(self, incoming: Incoming, announced: bool = False) -> Artifact:
        files = await _step(incoming, incoming.finish)
        artifact = Artifact(digest_of(files), files)
        with self.pinned(artifact.name):
            await _step(incoming, partial(self._settle, incoming.directory, artifact))
        if announced:
            self._announced[artifact.name] = self._clock.wall()
        return artifact

    def _is_announced(self, name: str) -> bool:
        """Whoever uploads what is there already gets the old copy, which its last user may be about to remove."""
        self._announced = {each: at for each, at in self._announced.items() if self._clock.wall() - at < _ANNOUNCED_S}
        return name in self._announced

    def _settle(self, incoming: Path, artifact: Artifact) -> None:
        final = self._directory / artifact.name
        (incoming / MANIFEST).write_bytes(orjson.dumps([asdict(file) for file in artifact.files]))
        try:
            os.rename(incoming, final)
        except OSError:
            # The same files were there, or came to be while these were written: one copy is enough.
            if not final.is_dir():
                raise
        now = self._clock.wall()
        os.utime(final, (now, now))
        _sync_directory(self._directory)

    def _temporary(self, kind: str) -> Path:
        return self._directory / kind / uuid.uuid4().hex

    def _read(self, name: str) -> Artifact | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            manifest = orjson.loads((self._directory / name / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None
        return Artifact(name, tuple(ModelFile(**file) for file in manifest))

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name in os.listdir(self._directory) if _NAME.fullmatch(name)))

    def _expired(self, name: str, now: float) -> bool:
        try:
            return (self._directory / name).stat().st_mtime + self._ttl_s < now
        except FileNotFoundError:
            return False


async def _step(incoming: Incoming, work: Callable[[], T]) -> T:
    """Runs one step of an upload in a thread. A cancelled caller waits until the thread has let go of
    the files, which the `stop` makes soon."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        incoming.stop()
        await asyncio.wait({task})
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
