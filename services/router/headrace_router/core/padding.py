"""Declared padding: requests of unlike shapes share a bundle.

An input that the model declares is filled up, at the end of each dimension, to the largest in the bundle. So
that little is executed for nothing, only sizes between the same powers of two share a bundle: along each
dimension less than half of what is executed is padding. A free dimension of an output is cut back to the
request's own size where a padded input has a free dimension at the same place and the result has its padded
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from headrace_router.core.waiting import Waiting
from headrace_router.domain import Buffer, InferenceRequest, RevisionEntry, TensorData

Shape = tuple[int, ...]
Group = tuple[tuple[str, str, Shape], ...]
Pads = Sequence[tuple[int, int, int]]

DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<u2",
}  # fmt: skip
"""Numpy's types; BF16 is carried as its bits."""


def padded_group(request: InferenceRequest, padding: Mapping[str, float]) -> Group:
    """Requests of equal groups may share a bundle once they are padded."""
    return tuple(
        (tensor.name, tensor.datatype, _bucket(tensor.shape[1:]) if tensor.name in padding else tensor.shape[1:])
        for tensor in request.inputs
    )


def padded_parts(items: Sequence[Waiting], index: int, padding: Mapping[str, float]) -> tuple[Shape, list[Buffer]]:
    """One input of a bundle, filled up where that is declared.

    Args:
        index: which of the requests' inputs.
        padding: values of the inputs that may be filled up.

    Returns:
        The non-batch shape of all, and each request's data in it. What has the shape already is not copied.
    """
    tensors = [item.request.inputs[index] for item in items]
    rest = tensors[0].shape[1:]
    value = padding.get(tensors[0].name)
    if value is None:
        return rest, [tensor.data for tensor in tensors]
    rest = _largest(tensors)
    return rest, [tensor.data if tensor.shape[1:] == rest else _filled(tensor, rest, value) for tensor in tensors]


def cut_back(answers: Sequence[list[TensorData]], items: Sequence[Waiting], entry: RevisionEntry) -> None:
    """Takes the padding out of each request's outputs, in place."""
    outputs = {spec.name: spec.shape for spec in entry.outputs}
    inputs = list(_padded_inputs(items, entry))
    for row, answer in enumerate(answers):
        for place, tensor in enumerate(answer):
            declared = outputs.get(tensor.name, ())
            own = list(tensor.shape)
            for at in range(1, min(len(declared), len(own))):
                if declared[at] == -1:
                    own[at] = _own_size(inputs, at, own[at], row)
            if tuple(own) != tensor.shape:
                answer[place] = _trimmed(tensor, tuple(own))


def _padded_inputs(items: Sequence[Waiting], entry: RevisionEntry) -> Iterator[tuple[Shape, Shape, list[Shape]]]:
    """Of each declared input: its shape in the signature, the padded one, and each request's own."""
    declared = {spec.name: spec.shape for spec in entry.inputs}
    padding = dict(entry.batching.padding)
    for index, first in enumerate(items[0].request.inputs):
        if first.name in padding:
            tensors = [item.request.inputs[index] for item in items]
            yield declared[first.name], (0, *_largest(tensors)), [tensor.shape for tensor in tensors]


def _own_size(inputs: Sequence[tuple[Shape, Shape, list[Shape]]], at: int, size: int, row: int) -> int:
    for declared, padded, own in inputs:
        if at < len(padded) and declared[at] == -1 and padded[at] == size:
            return own[row][at]
    return size


def _bucket(shape: Shape) -> Shape:
    return tuple(1 << (size - 1).bit_length() if size > 1 else size for size in shape)


def _largest(tensors: Sequence[TensorData]) -> Shape:
    return tuple(map(max, zip(*(tensor.shape[1:] for tensor in tensors), strict=True)))


def _filled(tensor: TensorData, rest: Shape, value: float) -> Buffer:
    kind = np.dtype(DTYPES[tensor.datatype])
    fill = np.float32(value).view(np.uint32) >> 16 if tensor.datatype == "BF16" else np.array(value).astype(kind)
    filled = np.full((tensor.shape[0], *rest), fill, kind)
    given = np.frombuffer(tensor.data, kind).reshape(tensor.shape)
    filled[tuple(map(slice, tensor.shape))] = given
    return filled.reshape(-1).view(np.uint8).data


def _trimmed(tensor: TensorData, shape: Shape) -> TensorData:
    whole = np.frombuffer(tensor.data, DTYPES[tensor.datatype]).reshape(tensor.shape)
    cut = np.ascontiguousarray(whole[tuple(map(slice, shape))])
    return TensorData(tensor.name, tensor.datatype, shape, cut.reshape(-1).view(np.uint8).data)
