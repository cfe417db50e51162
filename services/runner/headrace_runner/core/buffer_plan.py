"""Where a plan's inputs and outputs lie in one block of memory, made once for the largest shapes.

The same offsets hold for the block on the GPU and for the pinned one on the host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace_runner.core.plan_manifest import Manifest, PlanTensor

ALIGNMENT = 256
"""Of a tensor's address, at least (IExecutionContext::setTensorAddress)."""
ITEM_BYTES = {"FP32": 4, "FP16": 2, "BF16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT32": 4, "INT64": 8}


@dataclass(frozen=True, slots=True)
class Place:
    """Of one tensor in the block, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class BufferPlan:
    """
    Attributes:
        places: by tensor, inputs and outputs.
        total_bytes: of the block.
    """

    places: Mapping[str, Place]
    total_bytes: int


def plan_buffers(manifest: Manifest, output_bytes: Mapping[str, int]) -> BufferPlan:
    """One place for each tensor, none over another.

    Args:
        output_bytes: the most that each output can take, as the engine tells it.
    """
    sizes = {each.name: bytes_of(each, manifest.request.profile[each.name].largest) for each in manifest.inputs}
    places, end = {}, 0
    for name, size in (sizes | dict(output_bytes)).items():
        places[name] = Place(end, size)
        # A tensor without elements has an address of its own too.
        end += max(1, math.ceil(size / ALIGNMENT)) * ALIGNMENT
    return BufferPlan(places, end)


def bytes_of(tensor: PlanTensor, shape: Sequence[int]) -> int:
    """What a tensor of this shape takes."""
    return math.prod(shape) * ITEM_BYTES[tensor.datatype]


def input_refusal(manifest: Manifest, shapes: Mapping[str, Sequence[int]]) -> str:
    """Why these shapes cannot be executed; "" if they can."""
    for tensor in manifest.inputs:
        if tensor.name not in shapes:
            return f"input {tensor.name!r} is missing"
        if reason := manifest.request.profile[tensor.name].refusal(shapes[tensor.name]):
            return f"input {tensor.name!r}: {reason}"
    return ""
