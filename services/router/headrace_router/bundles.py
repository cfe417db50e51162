"""Bundles as bytes on the wire, and results as tensors of single requests.

A bundle's tensors are joined with one copy: the protobuf frame around them is written here, because
going through message objects would copy every tensor twice more. The bytes are those of a
`headrace.runner.v1.ExecuteRequest`; a test parses them as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from math import inf

from headrace.runner.v1 import runner_pb2
from headrace_common import chunks
from headrace_common.shared_memory import SHARED_FROM_BYTES, Region
from headrace_router.core.batching import Bundle
from headrace_router.core.padding import cut_back, padded_parts
from headrace_router.domain import Buffer, RevisionEntry, TensorData

# Tag bytes, field number << 3 | wire type, of ExecuteRequest, Bundle, Tensor, SharedMemoryRegion and BundleChunk.
_REQUEST_BUNDLE, _REQUEST_CHUNK = b"\x12", b"\x1a"
_BUNDLE_ID, _BUNDLE_ROWS, _BUNDLE_INPUTS, _BUNDLE_TIME_LEFT, _BUNDLE_ATTEMPT = (
    b"\x08",
    b"\x12",
    b"\x1a",
    b"\x30",
    b"\x38",
)
_TENSOR_DATA, _TENSOR_REGION, _TENSOR_CHUNKED = b"\x22", b"\x2a", b"\x30"
_REGION_OFFSET, _REGION_SIZE = b"\x08", b"\x10"
_CHUNK_BUNDLE, _CHUNK_TENSOR, _CHUNK_OFFSET, _CHUNK_DATA = b"\x08", b"\x10", b"\x18", b"\x22"

_SMALL = 0x80
"""Varints below this are one byte, their value."""

Place = Callable[[Sequence[Buffer], int], Region | None]
"""Copies the parts of a tensor, so many bytes together, to where the runner reads them; None: there is no room."""
Read = Callable[[int, runner_pb2.Tensor], Buffer]
"""Content of the output at an index, where it is not inside the message. Raises MalformedResult."""


class MalformedResult(Exception):
    """The runner's answer does not fit the bundle. The text is for the log."""


@dataclass(frozen=True, slots=True)
class EncodedBundle:
    """What is written to the stream for one bundle.

    Attributes:
        message: a serialised `ExecuteRequest`.
        chunked: inputs that follow it in chunks: their index and parts.
    """

    bundle_id: int
    message: bytes
    chunked: Sequence[tuple[int, Sequence[Buffer]]] = ()

    def messages(self) -> Iterator[bytes]:
        """The message and the chunks, each made when it is asked for."""
        yield self.message
        for index, parts in self.chunked:
            for chunk in chunks.cut(index, parts):
                yield _encode_chunk(self.bundle_id, chunk)


def encode_bundle(
    bundle_id: int, bundle: Bundle, entry: RevisionEntry, now: float, place: Place | None = None
) -> EncodedBundle:
    """`place`: takes large tensors; without it, or room in it, they follow in chunks."""
    items = bundle.items
    frame = _frame(bundle_id, bundle, now)
    pieces: list[Buffer] = [frame]
    chunked: list[tuple[int, Sequence[Buffer]]] = []
    inline = 0
    total = len(frame)
    padding = dict(entry.batching.padding)
    for index, first in enumerate(items[0].request.inputs):
        parts = [item.request.inputs[index].data for item in items]
        shape = (bundle.rows, *first.shape[1:]) if entry.batchable else first.shape
        if padding:
            rest, parts = padded_parts(items, index, padding)
            shape = (bundle.rows, *rest)
        size = sum(map(len, parts))
        head = _tensor_head(first.name, first.datatype, shape)
        region = place(parts, size) if place is not None and size >= SHARED_FROM_BYTES else None
        if region is not None:
            where = _REGION_OFFSET + varint(region.offset) + _REGION_SIZE + varint(size)
            head += _TENSOR_REGION + varint(len(where)) + where
            parts, size = [], 0
        elif inline + size > chunks.MESSAGE_BYTES:
            head += _TENSOR_CHUNKED + varint(size)
            chunked.append((index, parts))
            parts, size = [], 0
        else:
            head += _TENSOR_DATA + varint(size)
        inline += size
        head = _BUNDLE_INPUTS + varint(len(head) + size) + head
        total += len(head) + size
        pieces.append(head)
        pieces += parts
    message = b"".join((_REQUEST_BUNDLE, varint(total), *pieces))
    return EncodedBundle(bundle_id, message, chunked)


def _frame(bundle_id: int, bundle: Bundle, now: float) -> bytes:
    """All fields but the inputs."""
    items = bundle.items
    rows = [item.rows for item in items]
    packed = bytes(rows) if max(rows) < _SMALL else b"".join(map(varint, rows))
    frame = _BUNDLE_ID + varint(bundle_id) + _BUNDLE_ROWS + varint(len(packed)) + packed
    if bundle.deadline != inf:
        frame += _BUNDLE_TIME_LEFT + varint(max(1, int((bundle.deadline - now) * 1e6)))
    if bundle.attempt:
        frame += _BUNDLE_ATTEMPT + varint(bundle.attempt)
    traces = {index: item.request.traceparent for index, item in enumerate(items) if item.request.traceparent}
    if traces or bundle.outputs:
        # Protobuf merges what is written one after the other.
        frame += runner_pb2.Bundle(outputs=bundle.outputs, traceparents=traces).SerializeToString()
    return frame


@lru_cache(maxsize=4096)
def _tensor_head(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    return runner_pb2.Tensor(name=name, datatype=datatype, shape=shape).SerializeToString()


def _encode_chunk(bundle_id: int, chunk: chunks.Chunk) -> bytes:
    head = _CHUNK_BUNDLE + varint(bundle_id) + _CHUNK_TENSOR + varint(chunk.tensor_index)
    head += _CHUNK_OFFSET + varint(chunk.offset) + _CHUNK_DATA + varint(chunk.size)
    return b"".join((_REQUEST_CHUNK, varint(len(head) + chunk.size), head, *chunk.parts))


def varint(value: int) -> bytes:
    """Protobuf's base-128 encoding of a non-negative integer."""
    if value < _SMALL:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = [bytes((value,)) for value in range(_SMALL)]


def split_outputs(
    outputs: Sequence[runner_pb2.Tensor], bundle: Bundle, entry: RevisionEntry, read: Read | None = None
) -> list[list[TensorData]]:
    """Each request's outputs, as views of the batch's buffers: nothing is copied.

    Raises:
        MalformedResult: rows, sizes or names are not those of the bundle.
    """
    items = bundle.items
    # All contents first: a region that is never read is never given back.
    contents = [(tensor, _content(index, tensor, read)) for index, tensor in enumerate(outputs)]
    plain = entry.batchable and not entry.batching.padding
    if plain and len(contents) == len(entry.outputs) == 1 and contents[0][0].name == entry.outputs[0].name:
        # Whoever names outputs can only have named this one.
        return [[output] for output in _split(*contents[0], bundle)]
    if len(contents) > 1:
        place = {spec.name: index for index, spec in enumerate(entry.outputs)}
        contents.sort(key=lambda content: place.get(content[0].name, len(place)))
    answers: list[list[TensorData]] = [[] for _ in items]
    for tensor, data in contents:
        if not entry.batchable:
            answers[0].append(TensorData(tensor.name, tensor.datatype, tuple(tensor.shape), data))
            continue
        for answer, output in zip(answers, _split(tensor, data, bundle), strict=True):
            answer.append(output)
    if entry.batching.padding:
        cut_back(answers, items, entry)
    for index, item in enumerate(items):
        if item.request.outputs:
            answers[index] = _pick(answers[index], item.request.outputs)
        elif len(answers[index]) < len(entry.outputs):
            raise MalformedResult(f"{len(answers[index])} outputs came, the signature has {len(entry.outputs)}")
    return answers


def _split(tensor: runner_pb2.Tensor, data: memoryview, bundle: Bundle) -> list[TensorData]:
    """One output, cut into the requests'. Raises MalformedResult."""
    name, datatype, shape = tensor.name, tensor.datatype, tuple(tensor.shape)
    rows = [item.rows for item in bundle.items]
    ends = _ends(tensor, shape, len(data), bundle.rows, rows)
    if len(rows) == 1:
        return [TensorData(name, datatype, shape, data)]
    shapes = {count: (count, *shape[1:]) for count in set(rows)}
    starts = chain((0,), ends)
    return [
        TensorData(name, datatype, shapes[count], data[start:end])
        for count, start, end in zip(rows, starts, ends, strict=False)
    ]


def _content(index: int, tensor: runner_pb2.Tensor, read: Read | None) -> memoryview:
    data: Buffer = tensor.data
    if not data and (form := tensor.WhichOneof("content")) not in ("data", None):
        if read is None:
            raise MalformedResult(f"output {tensor.name!r} came as {form}, which this stream does not carry")
        data = read(index, tensor)
    return memoryview(data)


def _ends(tensor: runner_pb2.Tensor, shape: tuple[int, ...], size: int, rows: int, of: Sequence[int]) -> Sequence[int]:
    """Where the rows of each request end in the tensor's data. `rows`: of the bundle; `of`: of each request."""
    if not shape or shape[0] != rows:
        raise MalformedResult(f"output {tensor.name!r} has shape {list(shape)}; the bundle has {rows} rows")
    ends_of_requests = accumulate(of)
    if tensor.row_ends:
        row_ends = list(tensor.row_ends)
        if len(row_ends) != rows or row_ends[-1] != size or row_ends != sorted(row_ends):
            raise MalformedResult(f"output {tensor.name!r} has row ends that do not fit {rows} rows, {size} bytes")
        return [row_ends[end - 1] for end in ends_of_requests]
    if len(of) > 1 and tensor.datatype == "BYTES" and 0 not in shape:
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
