"""How a stateful model keeps state from one request to the next."""

from __future__ import annotations

from dataclasses import dataclass

SEQUENCE_IDLE_S = 60.0
"""Triton's default is a second, because there a sequence keeps others from a slot; here it costs its bytes."""


@dataclass(frozen=True, slots=True)
class StateTensor:
    """What a model gives by one output for the next request of the sequence, which gets it by one input.

    Attributes:
        datatype, dims: as declared; "", None: as the model has them.
        dims_hold_batch: as those of all tensors in a config.pbtxt with a max_batch_size of 0.
        initial_file: whose content is `initial`; "": a sequence begins with zeros.
    """

    input: str
    output: str
    datatype: str = ""
    dims: tuple[int, ...] | None = None
    initial_file: str = ""
    initial: bytes = b""
    dims_hold_batch: bool = False


@dataclass(frozen=True, slots=True)
class SequenceSignal:
    """An input that says where in its sequence a request is.

    Attributes:
        kind: "start", "end", "ready" or "id".
        off, on: its element in raw form; empty for an id.
    """

    input: str
    kind: str
    datatype: str
    off: bytes = b""
    on: bytes = b""


@dataclass(frozen=True, slots=True)
class Sequences:
    """How a stateful model keeps state. Routers add these tensors and take them out; clients never see them.

    Attributes:
        max_idle_s: a sequence without a request for so long is over.
    """

    states: tuple[StateTensor, ...]
    signals: tuple[SequenceSignal, ...] = ()
    max_idle_s: float = SEQUENCE_IDLE_S
