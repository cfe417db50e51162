"""How tensors pass between one router and this runner: inside messages, by shared memory, or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common import chunks
from headrace_common.logs import get_logger
from headrace_common.shared_memory import (
    SHARED_FROM_BYTES,
    BadRegion,
    Region,
    ResultPlacer,
    Segment,
    SegmentRefused,
    read_bundle,
)
from headrace_runner.engines.base import InputRefused

Buffer = bytes | bytearray | memoryview


class Memory:
    """The segment that a router offered."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._results = ResultPlacer(segment)

    def read(self, region: pb.SharedMemoryRegion) -> memoryview:
        """Raises BadRegion."""
        return read_bundle(self._segment, Region(region.offset, region.size_bytes))

    def place(self, content: Buffer) -> Region | None:
        """Copies an output to where the router reads it; None: there is no room."""
        return self._results.place((content,), len(content))

    def take_back(self, region: Region) -> None:
        """Of an answer that is not sent."""
        self._results.take_back(region)


def memory_of(attach: pb.Attach) -> Memory | None:
    """What the router offers; None: nothing, or it cannot be mapped here."""
    if not attach.shared_memory:
        return None
    try:
        return Memory(Segment.find(Path(attach.shared_memory)))
    except (SegmentRefused, OSError) as error:
        get_logger().warning("no_shared_memory", router=attach.router_id, reason=str(error))
        return None


@dataclass(frozen=True, slots=True)
class Contents:
    """Where a bundle's inputs are that are not inside its message."""

    memory: Memory | None = None
    chunked: Mapping[int, Buffer] = field(default_factory=dict)

    def read(self, index: int, tensor: pb.Tensor) -> Buffer:
        """The content of an input: a view, read-only where it is shared.

        Raises:
            InputRefused: the router names what is not there.
        """
        data: Buffer = tensor.data
        if data:
            return data
        form = tensor.WhichOneof("content")
        if form in ("data", None):
            return data
        if form == "chunked_bytes" and index in self.chunked:
            return self.chunked[index]
        if form != "region" or self.memory is None:
            raise InputRefused(f"input {tensor.name!r}: its content came as {form}, which this stream does not carry")
        try:
            return self.memory.read(tensor.region)
        except BadRegion as error:
            raise InputRefused(f"input {tensor.name!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """A result, and those of its outputs that follow it in chunks: index and content."""

    result: pb.BundleResult
    chunked: Sequence[tuple[int, Buffer]] = ()

    def messages(self) -> Iterator[pb.ExecuteResponse]:
        yield pb.ExecuteResponse(result=self.result)
        for index, content in self.chunked:
            for chunk in chunks.cut(index, (content,)):
                data = b"".join(chunk.parts)
                yield pb.ExecuteResponse(
                    chunk=pb.BundleChunk(
                        bundle_id=self.result.bundle_id, tensor_index=index, offset=chunk.offset, data=data
                    )
                )


class AnswerWriter:
    """Puts outputs into an answer, each by the transport that its size and the stream allow."""

    def __init__(self, result: pb.BundleResult, memory: Memory | None) -> None:
        self._result = result
        self._memory = memory
        self._inline = 0
        self._regions: list[Region] = []
        self._chunked: list[tuple[int, Buffer]] = []

    def add(self, tensor: pb.Tensor, content: Buffer) -> None:
        """`tensor`: all but its content."""
        size = len(content)
        region = self._memory.place(content) if self._memory is not None and size >= SHARED_FROM_BYTES else None
        if region is not None:
            self._regions.append(region)
            tensor.region.offset, tensor.region.size_bytes = region.offset, size
        elif self._inline + size > chunks.MESSAGE_BYTES:
            tensor.chunked_bytes = size
            # An engine may answer with its inputs, whose shared bytes are the router's again with the result.
            kept = bytes(content) if self._memory is not None else content
            self._chunked.append((len(self._result.outputs), kept))
        else:
            self._inline += size
            tensor.data = bytes(content)
        self._result.outputs.append(tensor)

    def abandon(self) -> None:
        """There will be no answer."""
        for region in self._regions:
            if self._memory is not None:
                self._memory.take_back(region)

    def answer(self) -> Answer:
        return Answer(self._result, self._chunked)
