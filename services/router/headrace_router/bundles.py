"""Bundles as bytes on the wire, and results as tensors of single requests.

A bundle's tensors are joined with one copy: the protobuf frame around them is written here, because
going through message objects would copy every tensor twice more. The bytes are those of a
`headrace.runner.v1.ExecuteRequest`; a test parses them as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf

from headrace.runner.v1 import runner_pb2
from headrace_router.core.batching import Bundle
from headrace_router.core.padding import cut_back, padded_parts
from headrace_router.domain import RevisionEntry, TensorData

# Tag bytes: field number << 3 | 2 (length-delimited), of ExecuteRequest.bundle, Bundle.inputs, Tensor.data.
_REQUEST_BUNDLE = b"\x12"
_BUNDLE_INPUTS = b"\x1a"
_TENSOR_DATA = b"\x22"


class MalformedResult(Exception):
    """The runner's answer does not fit the bundle. The text is for the log."""


def encode_bundle(bundle_id: int, bundle: Bundle, entry: RevisionEntry, now: float) -> bytes:
    """A serialised `ExecuteRequest`."""
    items = bundle.items
    time_left_us = 0 if bundle.deadline == inf else max(1, int((bundle.deadline - now) * 1e6))
    frame = runner_pb2.Bundle(
        bundle_id=bundle_id,
        rows=[item.rows for item in items],
        outputs=bundle.outputs,
        time_left_us=time_left_us,
        attempt=bundle.attempt,
    )
    for index, item in enumerate(items):
        if item.request.traceparent:
            frame.traceparents[index] = item.request.traceparent
    pieces: list[bytes | memoryview] = [frame.SerializeToString()]
    for index, first in enumerate(items[0].request.inputs):
        parts = [item.request.inputs[index].data for item in items]
        shape = (bundle.rows, *first.shape[1:]) if entry.batchable else first.shape
        if entry.batching.padding:
            rest, parts = padded_parts(items, index, entry)
            shape = (bundle.rows, *rest)
        header = runner_pb2.Tensor(name=first.name, datatype=first.datatype, shape=shape).SerializeToString()
        size = sum(map(len, parts))
        header += _TENSOR_DATA + varint(size)
        pieces.append(_BUNDLE_INPUTS + varint(len(header) + size) + header)
        pieces += parts
    return b"".join((_REQUEST_BUNDLE, varint(sum(map(len, pieces))), *pieces))


def varint(value: int) -> bytes:
    """Protobuf's base-128 encoding of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def split_outputs(outputs: Sequence[runner_pb2.Tensor], bundle: Bundle, entry: RevisionEntry) -> list[list[TensorData]]:
    """Each request's outputs, as views of the batch's buffers: nothing is copied.

    Raises:
        MalformedResult: rows, sizes or names are not those of the bundle.
    """
    items = bundle.items
    if len(outputs) > 1:
        place = {spec.name: index for index, spec in enumerate(entry.outputs)}
        outputs = sorted(outputs, key=lambda tensor: place.get(tensor.name, len(place)))
    answers: list[list[TensorData]] = [[] for _ in items]
    for tensor in outputs:
        name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
        data = memoryview(tensor.data)
        if not entry.batchable:
            answers[0].append(TensorData(name, datatype, shape, data))
            continue
        ends = _ends(tensor, shape, len(data), bundle)
        rest = shape[1:]
        start = 0
        for answer, item, end in zip(answers, items, ends, strict=True):
            answer.append(TensorData(name, datatype, (item.rows, *rest), data[start:end]))
            start = end
    if entry.batching.padding:
        cut_back(answers, items, entry)
    for index, item in enumerate(items):
        if item.request.outputs:
            answers[index] = _pick(answers[index], item.request.outputs)
        elif len(answers[index]) < len(entry.outputs):
            raise MalformedResult(f"{len(answers[index])} outputs came, the signature has {len(entry.outputs)}")
    return answers


def _ends(tensor: runner_pb2.Tensor, shape: tuple[int, ...], size: int, bundle: Bundle) -> list[int]:
    """Where each request's rows end in the tensor's data."""
    rows = bundle.rows
    if not shape or shape[0] != rows:
        raise MalformedResult(f"output {tensor.name!r} has shape {list(shape)}; the bundle has {rows} rows")
    ends_of_requests = accumulate(item.rows for item in bundle.items)
    if tensor.row_ends:
        row_ends = list(tensor.row_ends)
        if len(row_ends) != rows or row_ends[-1] != size or row_ends != sorted(row_ends):
            raise MalformedResult(f"output {tensor.name!r} has row ends that do not fit {rows} rows, {size} bytes")
        return [row_ends[end - 1] for end in ends_of_requests]
    if len(bundle.items) > 1 and tensor.datatype == "BYTES" and 0 not in shape:
        raise MalformedResult(f"output {tensor.name!r} is BYTES for several requests and does not say where rows end")
    if size % rows:
        raise MalformedResult(f"output {tensor.name!r} has {size} bytes, which {rows} rows do not divide")
    step = size // rows
    return [end * step for end in ends_of_requests]


def _pick(tensors: list[TensorData], wanted: tuple[str, ...]) -> list[TensorData]:
    by_name = {tensor.name: tensor for tensor in tensors}
    try:
        return [by_name[name] for name in wanted]
    except KeyError as missing:
        raise MalformedResult(f"output {missing} was wanted and did not come") from None
