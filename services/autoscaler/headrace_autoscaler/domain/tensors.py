"""What goes into a model and comes out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape holds the batch dimension where there is one; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool


@dataclass(frozen=True, slots=True)
class WarmupTensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Warmup:
    """A batch to warm up with, beside the default one."""

    name: str
    batch_size: int
    inputs: tuple[WarmupTensor, ...]
