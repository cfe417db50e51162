"""What the runner asks of an engine. One conformance suite holds every engine to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from headrace_runner.core.signature import EngineTensor


class EngineError(Exception):
    """Base of what engines raise. The text is one line, without absolute paths."""


class ModelRefused(EngineError):
    """The model cannot be loaded here, whatever is sent to it."""


class InputRefused(EngineError):
    """This input is at fault, not the engine."""


class OutOfMemory(EngineError):
    """There was no memory for this batch, or for this model."""


class ExecutionFailed(EngineError):
    """The engine failed while it executed."""


class ModelClosed(ExecutionFailed):
    """It was asked after `LoadedModel.close`."""

    def __init__(self) -> None:
        super().__init__("the model has been closed")


class EngineLost(ExecutionFailed):
    """It failed in such a way that nothing more can be executed in this process."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What to load.

    Attributes:
        path: the entry point, absolute, verified.
        name: the entry point as the user named it, for messages.
        options: by the engine's own names.
        threads: CPUs that this instance holds, at least 1.
        slots: bundles that a router may give this instance at once, at least 1.
    """

    path: Path
    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    slots: int = 1


class LoadedModel(Protocol):
    """A model in an engine. Called from one thread at a time."""

    @property
    def inputs(self) -> tuple[EngineTensor, ...]: ...

    @property
    def outputs(self) -> tuple[EngineTensor, ...]: ...

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
        """Executes one batch.

        Args:
            inputs: one array per input, of the datatype `tensors.DTYPES` gives; may be read-only.
                BYTES: object arrays of bytes. BF16: its bits as uint16.
            outputs: those wanted; empty: all. What is not wanted is not computed where the engine
                can help it.

        Returns:
            The wanted outputs by name, in the same forms.

        Raises:
            InputRefused, OutOfMemory, ExecutionFailed.
        """
        ...

    def close(self) -> None:
        """Frees the engine's memory. The model cannot run afterwards."""
        ...


class Pending(Protocol):
    """A batch that a `Pipelined` model has begun."""

    def finish(self) -> dict[str, NDArray[Any]]:
        """Waits for it; called once, from any thread. Returns and raises as `LoadedModel.run`."""
        ...


@runtime_checkable
class Pipelined(Protocol):
    """A LoadedModel that can have several batches in hand, such as one on a GPU, where copies overlap kernels.

    Optional: without it, or with one lane, batches are run one after the other.
    """

    @property
    def lanes(self) -> int:
        """Batches that may have begun and not finished."""
        ...

    def begin(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] = ()) -> Pending:
        """As `LoadedModel.run`, but returns before the batch is done. From one thread at a time, also while others wait
        in `finish`. The inputs may change once this has returned.
        """
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """A LoadedModel that has more to make ready than a few batches of zeros do."""

    def warm_up(self) -> None:
        """Called once, after the load's own first batches, and not where requests wait. Raises as `LoadedModel.run`."""
        ...


@runtime_checkable
class Keeps(Protocol):
    """A LoadedModel that has made what the next process can use."""

    def keep(self) -> None:
        """Puts it away, when the runner leaves. What cannot be kept is no error."""
        ...


@runtime_checkable
class Coarse(Protocol):
    """A LoadedModel that computes FP32 with fewer bits than that."""

    @property
    def tolerance(self) -> tuple[float, float]:
        """Relative and absolute, by which equal FP32 answers may differ."""
        ...


@runtime_checkable
class BatchLimited(Protocol):
    """A LoadedModel that was made for batches up to a size."""

    @property
    def largest_batch(self) -> int | None:
        """Rows; None: any number."""
        ...


@runtime_checkable
class Phased(Protocol):
    """A LoadedModel that tells what its load was made of."""

    @property
    def phases_s(self) -> Mapping[str, float]:
        """Seconds by phase, parts of what `Engine.load` took."""
        ...


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What a loaded model uses of the GPU memory that it may use."""

    used_bytes: int
    total_bytes: int


@runtime_checkable
class OnGpu(Protocol):
    """A LoadedModel that may hold GPU memory and can tell how much."""

    def gpu_memory(self) -> GpuMemory | None:
        """Called from the event loop, also while the model runs, and once a second: it must not block.

        None: it is not on a GPU, or it is not known.
        """
        ...


class Engine(Protocol):
    """One kind of engine."""

    name: str
    platform: str
    """As model metadata shows it to clients."""

    def prepare(self) -> None:
        """What the first load of a process would have to do once, done before there is a model to load."""
        ...

    def external_files(self, source: ModelSource) -> frozenset[str]:
        """Files that the entry point reads besides itself, as it names them: relative to its folder.

        Raises:
            ModelRefused: the file is not of this engine's form.
        """
        ...

    def load(self, source: ModelSource) -> LoadedModel:
        """Raises ModelRefused, or OutOfMemory, with the engine's own reason."""
        ...
