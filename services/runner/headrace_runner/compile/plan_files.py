"""Plans on disk, each with its manifest: where the user wants them, and in the cache."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from headrace_common.errors import InvalidArgument
from headrace_runner.cache_directory import MOST_BYTES, keep_within, touch
from headrace_runner.compile.atomic import write_atomically
from headrace_runner.core.plan_manifest import Manifest, PlanRequest, read_manifest


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan and what is known of it.

    Attributes:
        kept: a file that holds it already; None: there is none.
    """

    manifest: Manifest
    content: bytes | memoryview
    kept: Path | None = None


def write_plan(plan: Plan, directory: Path) -> Path:
    """Writes a plan and then its manifest, each whole or not at all. Raises OSError.

    A manifest names its plan's digest, so that whoever comes in between finds a plan without a manifest, or another
    one than the manifest's, and refuses it.
    """
    path = directory / plan.manifest.request.file_name
    _write(plan, path)
    return path


def read_plan(path: Path) -> Plan:
    """A plan with its manifest.

    Raises:
        InvalidArgument: one of them is missing or damaged, or they do not belong together.
    """
    manifest = _manifest_of(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path.name}: cannot be read ({error.strerror})") from None
    if (digest := hashlib.sha256(content).hexdigest()) != manifest.plan_sha256:
        raise InvalidArgument(
            f"{path.name}: its manifest is for sha256 {manifest.plan_sha256}, and the file has {digest}; compile it "
            "again"
        )
    return Plan(manifest, content, path)


def plans_beside(path: Path) -> dict[Path, Manifest]:
    """A plan and the others of its model in its folder, each with its manifest.

    Raises:
        InvalidArgument: a manifest is missing or damaged.
    """
    found = {plan: _manifest_of(plan) for plan in sorted({path, *path.parent.glob("*.plan")})}
    model = found[path].request.model
    return {plan: manifest for plan, manifest in found.items() if manifest.request.model == model}


def _manifest_of(path: Path) -> Manifest:
    beside = manifest_path(path)
    try:
        return read_manifest(beside.read_bytes(), beside.name)
    except OSError as error:
        raise InvalidArgument(
            f"{path.name}: {beside.name} cannot be read ({error.strerror}); a plan is kept with its manifest, "
            f"{beside.name}"
        ) from None


def manifest_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


class PlanCache:
    """Plans by the key of their request, below one directory. It may be removed at any time, and several processes may
    use it at once.

    Args:
        most_bytes: of all plans together; those used longest ago go first.
    """

    def __init__(self, directory: Path, most_bytes: int = MOST_BYTES) -> None:
        self.directory = directory
        self._most_bytes = most_bytes

    def find(self, request: PlanRequest) -> Plan | None:
        """The plan of an equal request, whatever the model was called then; None also where it is damaged."""
        try:
            plan = read_plan(self._path(request))
        except InvalidArgument:
            return None
        if plan.manifest.request.key != request.key:
            return None
        touch(self._path(request).parent)
        return replace(plan, manifest=replace(plan.manifest, request=request))

    def store(self, plan: Plan) -> Plan:
        """Raises OSError."""
        path = self._path(plan.manifest.request)
        try:
            _write(plan, path)
        except FileNotFoundError:
            # Its directory was there from before, and was just then let go of by another process.
            _write(plan, path)
        touch(path.parent)
        keep_within(self.directory, "??/*", self._most_bytes)
        return replace(plan, kept=path)

    def timing_path(self, name: str) -> Path:
        """Where TensorRT's timing cache of this name is kept."""
        return self.directory / "timing" / name

    def _path(self, request: PlanRequest) -> Path:
        return self.directory / request.key[:2] / request.key / "plan"


def _write(plan: Plan, path: Path) -> None:
    if plan.kept is None or not _link(plan.kept, path):
        write_atomically(path, plan.content)
    write_atomically(manifest_path(path), plan.manifest.to_json().encode())


def _link(source: Path, path: Path) -> bool:
    """Gives a file a second name, in place of what had it; False where the file system cannot."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.hardlink_to(source)
        temporary.replace(path)
    except OSError:
        return False
    finally:
        # Also where both were one file before: then rename(2) leaves both names.
        temporary.unlink(missing_ok=True)
    return True
