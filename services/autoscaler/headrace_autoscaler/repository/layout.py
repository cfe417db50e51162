"""Which versions an artifact holds. Pure.

An artifact is either one model file, with what belongs to it (ONNX external data) beside it, or Triton's
layout: an optional config.pbtxt and directories named by version, each with a model file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace_autoscaler.domain import ModelFile
from headrace_common.errors import InvalidArgument
from headrace_common.model_files import PICKLED, PICKLED_REASON

CONFIG_PATH = "config.pbtxt"
ENGINES = {".onnx": "onnxruntime", ".pt2": "torch", ".plan": "tensorrt", ".fake.json": "fake"}
"""Engine by the end of the model file's name. Which TensorRT a plan is for is in its manifest (`plans`)."""

PLAN = ".plan"
"""There may be several of one model, each for a kind of GPU: the runner picks the one for its own."""

OFFERED = tuple(suffix for suffix, engine in ENGINES.items() if engine != "fake")
"""Those that a refusal names: nobody who looks for a way out wants the fake engine."""
_DEFAULT_NAMES = tuple("model" + suffix for suffix in ENGINES)
_OFFERED_NAMES = tuple("model" + suffix for suffix in OFFERED)
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of a repository's versions serve: the newest `latest`, or all (None), or just `specific`."""

    latest: int | None = 1
    specific: tuple[int, ...] = ()


NEWEST = VersionPolicy()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version that an artifact offers.

    Attributes:
        version: the directory's name; None for a single file, which becomes the model's next version.
        files: those that this version needs.
        entry_point: the one that the engine loads.
        engine: by the entry point's name.
    """

    version: str | None
    files: tuple[ModelFile, ...]
    entry_point: str
    engine: str


@dataclass(slots=True)
class _Tree:
    root: list[ModelFile] = field(default_factory=list)
    versions: dict[int, list[ModelFile]] = field(default_factory=dict)


def candidates(
    files: Sequence[ModelFile], policy: VersionPolicy = NEWEST, default_filename: str = ""
) -> tuple[Candidate, ...]:
    """The versions to deploy, oldest first.

    Args:
        files: of the artifact.
        policy: config.pbtxt's version_policy.
        default_filename: config.pbtxt's default_model_filename; empty: "model" with an ending of `ENGINES`.

    Raises:
        InvalidArgument: no model file, more than one, or a version that the policy names is missing.
    """
    tree = _sort(files)
    if tree.versions:
        chosen = _choose(sorted(tree.versions), policy)
        return tuple(_versioned(version, tree.versions[version], default_filename) for version in chosen)
    return (_single(files, tree, default_filename),)


def _sort(files: Sequence[ModelFile]) -> _Tree:
    tree = _Tree()
    for file in files:
        first, slash, _ = file.path.partition("/")
        if not slash:
            tree.root.append(file)
        elif _VERSION.fullmatch(first):
            tree.versions.setdefault(int(first), []).append(file)
    return tree


def _choose(versions: list[int], policy: VersionPolicy) -> list[int]:
    if policy.specific:
        missing = [str(version) for version in policy.specific if version not in versions]
        if missing:
            raise InvalidArgument(
                f"{CONFIG_PATH}: version_policy.specific names version {', '.join(missing)}; the repository has "
                f"{', '.join(map(str, versions))}"
            )
        return sorted(set(policy.specific))
    return versions if policy.latest is None else versions[-policy.latest :]


def _versioned(version: int, files: list[ModelFile], default_filename: str) -> Candidate:
    paths = {file.path for file in files}
    names = (default_filename,) if default_filename else _DEFAULT_NAMES
    offered = (default_filename,) if default_filename else _OFFERED_NAMES
    # Triton also takes a directory of that name, with the model under the same name inside.
    wanted = [path for name in names for path in (f"{version}/{name}", f"{version}/{name}/{name}")]
    found = [path for path in wanted if path in paths]
    if not found and not default_filename:
        # As `headrace compile` names them: one for each kind of GPU.
        found = sorted(path for path in paths if path.endswith(PLAN) and path.count("/") == 1)
    if not found and (reason := _pickled(files)):
        raise InvalidArgument(reason)
    if not found:
        expected = " or ".join(f"{version}/{name}" for name in offered)
        raise InvalidArgument(f"version {version}: expected {expected}; has {', '.join(sorted(paths)[:8])}")
    return Candidate(str(version), tuple(files), found[0], _engine(found[0]))


def _single(files: Sequence[ModelFile], tree: _Tree, default_filename: str) -> Candidate:
    entries = [file.path for file in tree.root if file.path.endswith(tuple(ENGINES))]
    if default_filename:
        entries = [path for path in entries if path == default_filename]
    if len(entries) > 1 and not all(path.endswith(PLAN) for path in entries):
        raise InvalidArgument(f"expected one model file, got {', '.join(sorted(entries))}; deploy them one by one")
    if not entries:
        raise InvalidArgument(_nothing(files))
    needed = tuple(file for file in files if file.path != CONFIG_PATH)
    entry = min(entries)
    return Candidate(None, needed, entry, _engine(entry))


def _nothing(files: Sequence[ModelFile]) -> str:
    nested = [file.path for file in files if re.fullmatch(r"[^/]+/([0-9]+/model\..+|config\.pbtxt)", file.path)]
    if nested:
        directory = nested[0].partition("/")[0]
        return f"found {nested[0]!r}: this is a repository of models; deploy the model's own directory, {directory!r}"
    if reason := _pickled(files):
        return reason
    shown = ", ".join(sorted(file.path for file in files)[:8])
    kinds = f"{', '.join(OFFERED[:-1])} or {OFFERED[-1]}"
    return f"found no model: expected an {kinds} file, or VERSION/model.onnx in Triton's layout; got {shown}"


def _pickled(files: Sequence[ModelFile]) -> str:
    """Why a file that its owner takes for the model is none; "": there is no such file."""
    return next((f"{file.path}: {PICKLED_REASON}" for file in files if file.path.endswith(PICKLED)), "")


def _engine(path: str) -> str:
    for suffix, engine in ENGINES.items():
        if path.endswith(suffix):
            return engine
    raise InvalidArgument(f"model file {path!r}: expected a name that ends in {' or '.join(OFFERED)}")
