"""Files of jobs: samples as they were uploaded, and variants as artifacts that can be deployed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path, PurePosixPath

from headrace_autoscaler.artifacts import Artifact, ArtifactStore, FileHeader
from headrace_autoscaler.core.jobs import Job
from headrace_autoscaler.deploy_source import read_settings
from headrace_autoscaler.domain import ModelFile
from headrace_autoscaler.repository import CONFIG_PATH, Settings, candidates, for_any_engine
from headrace_autoscaler.repository.sequence_batching import INITIAL_DIRECTORY
from headrace_common.errors import FailedPrecondition, InvalidArgument, LimitExceeded
from headrace_common.quantities import format_bytes

_CHUNK_BYTES = 1 << 20
_SAMPLES = ".npz"


class JobFiles:
    """
    Args:
        directory: for what a running job writes; emptied.
        max_samples_bytes: of one job.
    """

    def __init__(self, artifacts: ArtifactStore, directory: Path, max_samples_bytes: int) -> None:
        self._artifacts = artifacts
        self._directory = directory
        self._max_samples_bytes = max_samples_bytes
        shutil.rmtree(directory, ignore_errors=True)

    async def samples(self, name: str) -> Path:
        """The one file of an artifact with samples.

        Raises:
            InvalidArgument: it is not there, or is something else.
            LimitExceeded: it is too large.
        """
        artifact = await self._artifacts.find(name)
        if artifact is None:
            raise InvalidArgument(f"samples: artifact {name[:80]!r} is not there; upload the samples again")
        if not _is_samples(artifact):
            paths = ", ".join(file.path for file in artifact.files[:5])
            raise InvalidArgument(f"samples: expected an artifact with one {_SAMPLES} file; got one with {paths}")
        if artifact.size_bytes > self._max_samples_bytes:
            raise LimitExceeded(
                f"samples: {format_bytes(artifact.size_bytes)}, over the limit of "
                f"{format_bytes(self._max_samples_bytes)} (configuration key autoscaler.max_samples_bytes); bring fewer"
            )
        return self._artifacts.directory / name / artifact.files[0].path

    def pinned(self, samples: str) -> AbstractContextManager[None]:
        """Keeps them for as long as the block runs."""
        return self._artifacts.pinned(samples)

    async def holds_samples(self, name: str) -> bool:
        """Whether there is an artifact of that name which is of use for nothing else."""
        artifact = await self._artifacts.find(name)
        return artifact is not None and _is_samples(artifact)

    def redact(self, text: str) -> str:
        """Takes the state directory's own paths out of a text that a client will see."""
        return self._artifacts.redact(text)

    def source(self, job: Job) -> Path:
        return self._artifacts.directory / job.artifact / job.entry_point

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """An empty folder, on the disk of the artifacts, for as long as the block runs."""
        self._directory.mkdir(parents=True, exist_ok=True)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._directory))
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def keep(self, job: Job, file: Path) -> Artifact:
        """The job's original with this file in place of its model file, as an artifact.

        Of a repository's other versions, those that serve are in it: a deploy brings all versions, so without them
        they would be gone. Those that do not serve would only take space in every variant.

        Raises:
            LimitExceeded: the disk is full.
            FailedPrecondition: the original is gone.
        """
        original = await self._artifacts.find(job.artifact)
        if original is None:
            raise FailedPrecondition("the files of the original are gone; deploy it again")
        settings = await read_settings(original, job.model, self._artifacts)
        kept = _kept(original.files, settings, job.entry_point, file.suffix)
        return await self._artifacts.receive(_parts(self._artifacts.directory / job.artifact, kept, job, file))


def _is_samples(artifact: Artifact) -> bool:
    return len(artifact.files) == 1 and artifact.files[0].path.endswith(_SAMPLES)


def _kept(files: Sequence[ModelFile], settings: Settings, entry_point: str, suffix: str) -> dict[str, str]:
    """What of the original is in its variant: the path there, and here.

    Args:
        suffix: of the variant's file. Where it is not the original's, the variant's config.pbtxt names no model file.
    """
    # What lies beside the original's model file is its weights, which a variant holds itself.
    kept = {each.path: each.path for each in files if each.path.startswith(f"{INITIAL_DIRECTORY}/")}
    served = candidates(files, settings.version_policy, settings.default_filename)
    for other in (each for each in served if each.entry_point != entry_point):
        kept |= {each.path: each.path for each in other.files}
        if not entry_point.endswith(suffix):
            del kept[other.entry_point]
            kept[_by_default(other.entry_point)] = other.entry_point
    return kept | {each.path: each.path for each in files if each.path == CONFIG_PATH}


def _by_default(entry_point: str, suffix: str = "") -> str:
    """Where a version's model file is looked for that nothing names."""
    version, slash, name = entry_point.partition("/")
    return f"{version}/model{suffix or PurePosixPath(name).suffix}" if slash else f"model{suffix}"


async def _parts(directory: Path, kept: Mapping[str, str], job: Job, file: Path) -> AsyncIterator[FileHeader | bytes]:
    # Its own name where that can be kept: config.pbtxt may name it.
    same_kind = job.entry_point.endswith(file.suffix)
    target = job.entry_point if same_kind else _by_default(job.entry_point, file.suffix)
    for path, local in [*((path, directory / here) for path, here in kept.items()), (target, file)]:
        if path == CONFIG_PATH and not same_kind:
            yield FileHeader(path, None, None)
            yield for_any_engine(await asyncio.to_thread(local.read_bytes))
            continue
        async for part in _file(path, local):
            yield part


async def _file(path: str, local: Path) -> AsyncIterator[FileHeader | bytes]:
    yield FileHeader(path, None, None)
    with local.open("rb") as content:
        while chunk := await asyncio.to_thread(content.read, _CHUNK_BYTES):
            yield chunk
