"""What the runner's parts pass to each other. No protobuf, no grpc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from headrace_runner.core.signature import Signature
from headrace_runner.engines.base import LoadedModel


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Path relative to the directory; digest in lower-case hex."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RawTensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """`batch_size` rows, or 0 where the model is not batchable."""

    name: str
    batch_size: int
    inputs: tuple[RawTensor, ...]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to load and how.

    Attributes:
        expected: signature known from an earlier load; the probe is skipped if the file agrees.
        requests_wait: nobody else can answer them; nothing is tried that an earlier load has shown.
        slots: bundles that a router may give it at once.
        max_batch_size: asked for; 0: `default_max_batch_size` for a batchable model.
    """

    directory: Path
    files: tuple[ModelFile, ...]
    entry_point: str
    engine: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    expected: Signature | None = None
    max_batch_size: int = 0
    default_max_batch_size: int = 64
    warmup: tuple[WarmupSample, ...] = ()
    requests_wait: bool = False
    slots: int = 1

    @property
    def urgent(self) -> bool:
        return self.requests_wait and self.expected is not None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to execute.

    Attributes:
        batching: why the maximum batch is what it is.
        phases_s: seconds by phase: "verify", "session", "probe", "warm"; "session" without what the engine tells apart.
        profile_us: warm-up times, batch size -> microseconds.
    """

    model: LoadedModel
    signature: Signature
    max_batch_size: int
    batching: str
    platform: str
    phases_s: Mapping[str, float]
    profile_us: Mapping[int, int]

    @property
    def load_s(self) -> float:
        """Everything before the warm-up."""
        return sum(seconds for phase, seconds in self.phases_s.items() if phase != "warm")

    @property
    def warm_s(self) -> float:
        return self.phases_s.get("warm", 0.0)
