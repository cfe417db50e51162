"""What was deployed: one revision each time, and what its first load found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace_autoscaler.domain.quantities import Resources
from headrace_autoscaler.domain.sequences import Sequences
from headrace_autoscaler.domain.tensors import Signature, Warmup


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Path inside the artifact, with "/"."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Batching:
    """config.pbtxt's dynamic_batching, where it says something.

    Attributes:
        padding: inputs whose free non-batch dimensions may be padded, and with what; the user's, not config.pbtxt's.
    """

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    priority_levels: int = 0
    default_priority_level: int = 0
    max_queue_size: int = 0
    default_timeout_us: int = 0
    padding: tuple[tuple[str, float], ...] = ()


class RevisionState(StrEnum):
    LOADING = "loading"
    """Its first load is under way; it serves nobody."""
    SERVING = "serving"
    RETIRING = "retiring"
    """Replaced or deleted: answers what it had accepted, then goes."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a first successful load found out. Later loads are checked against it."""

    signature: Signature
    max_batch_size: int
    batching: str
    platform: str
    resident_bytes: int = 0
    profile_us: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """Rows per batch -> microseconds of a revision in one shape; empty: it was tried and could not be measured."""

    resources: Resources
    profile_us: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One deploy of one version of a model.

    Attributes:
        revision: counts within the model, never used twice.
        version: the name that clients use.
        artifact: directory of its files below the artifacts directory.
        files: the files that this version needs, the entry point among them.
        entry_point: path of the file that the engine loads.
        engine: "onnxruntime", "fake", ...
        max_batch_size: asked for by deploy or config.pbtxt; None: decided by the probe.
        slots: bundles in hand per router (instance_group.count); None: the mesh's default.
        model_config: serialised inference.ModelConfig as far as the source gave one.
        loaded: None until the first load has succeeded.
        profiles: by shape that it was loaded with.
        sequences: as declared; None: the model is not stateful.
    """

    model: str
    revision: int
    version: str
    state: RevisionState
    artifact: str
    files: tuple[ModelFile, ...]
    entry_point: str
    engine: str
    engine_options: tuple[tuple[str, str], ...] = ()
    max_batch_size: int | None = None
    slots: int | None = None
    batching: Batching = Batching()
    warmup: tuple[Warmup, ...] = ()
    model_config: bytes = b""
    deployed_at: float = 0.0
    loaded: Loaded | None = None
    profiles: tuple[ShapeProfile, ...] = ()
    sequences: Sequences | None = None
