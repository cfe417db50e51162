"""How tensors pass to one runner and back: inside messages, by shared memory, or in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headrace.runner.v1 import runner_pb2
from headrace_common.chunks import Assemblies
from headrace_common.logs import get_logger
from headrace_common.shared_memory import (
    BadRegion,
    Placer,
    Region,
    Segment,
    SegmentRefused,
    read_result,
)
from headrace_router.bundles import EncodedBundle, MalformedResult, encode_bundle
from headrace_router.core.batching import Bundle
from headrace_router.domain import Buffer, RevisionEntry

_FORMS = {"region": "shared", "chunked_bytes": "chunked"}


def _no_counts() -> dict[str, int]:
    return {"inline": 0, "shared": 0, "chunked": 0}


@dataclass(slots=True)
class Transports:
    """What all of a router's connections share.

    Attributes:
        directory: where segments are made; a file system in memory that the runners see too.
        half_bytes: of a segment, for each way; 0: no shared memory.
        bundles, results: how many passed by each transport.
    """

    directory: Path = Path("/dev/shm")  # noqa: S108 - the names in it are random, locked and gone at once
    half_bytes: int = 0
    bundles: dict[str, int] = field(default_factory=_no_counts)
    results: dict[str, int] = field(default_factory=_no_counts)
    refused: bool = False

    def segment_for(self, target: str) -> Segment | None:
        """A segment for a runner on this machine; None: the stream carries everything."""
        if not self.half_bytes or not target.startswith("unix:"):
            return None
        try:
            return Segment.make(self.directory, self.half_bytes)
        except SegmentRefused as error:
            if not self.refused:
                get_logger().warning("no_shared_memory", reason=str(error))
            self.refused = True
            return None


class Transport:
    """One stream's. Gone with it, and its segment too, but for what is still being read."""

    def __init__(self, transports: Transports, target: str) -> None:
        self._transports = transports
        self._segment = transports.segment_for(target)
        self._placer: Placer | None = None
        self._regions: dict[int, list[Region]] = {}
        self._assemblies = Assemblies()
        self._coming: dict[int, tuple[runner_pb2.BundleResult, Mapping[int, bytearray]]] = {}

    @property
    def path(self) -> str:
        """Of the segment that the runner is offered; "": none."""
        return str(self._segment.path) if self._segment is not None else ""

    @property
    def regions(self) -> int:
        """Bundles' regions in use."""
        return self._placer.taken if self._placer is not None else 0

    def answered(self) -> None:
        """The runner has read Attach: it has the segment, or never will."""
        if self._segment is not None:
            self._segment.unlink()

    def granted(self, mapped: bool) -> None:
        """`mapped`: whether the runner has the segment."""
        if mapped and self._segment is not None:
            self._placer = Placer(self._segment, self._segment.bundles())
        else:
            self._segment = None

    def close(self) -> None:
        """The stream is over: nobody reads or writes the segment any more."""
        self._segment = self._placer = None
        self._regions.clear()
        self._coming.clear()

    def encode(self, bundle_id: int, bundle: Bundle, entry: RevisionEntry, now: float) -> EncodedBundle:
        """Takes regions for the bundle, as far as there is room, until `done`."""
        encoded, by = self._encode(bundle_id, bundle, entry, now)
        self._transports.bundles["chunked" if encoded.chunked else by] += 1
        return encoded

    def _encode(self, bundle_id: int, bundle: Bundle, entry: RevisionEntry, now: float) -> tuple[EncodedBundle, str]:
        placer = self._placer
        if placer is None:
            return encode_bundle(bundle_id, bundle, entry, now), "inline"
        regions: list[Region] = []

        def place(parts: Sequence[Buffer], size: int) -> Region | None:
            region = placer.place(parts, size)
            if region is not None:
                regions.append(region)
            return region

        try:
            encoded = encode_bundle(bundle_id, bundle, entry, now, place)
        except BaseException:
            _give_back(placer, regions)
            raise
        if not regions:
            return encoded, "inline"
        self._regions[bundle_id] = regions
        return encoded, "shared"

    def done(self, bundle_id: int) -> None:
        """The runner has answered it, and reads its inputs no more."""
        regions = self._regions.pop(bundle_id, None)
        if regions is not None and self._placer is not None:
            _give_back(self._placer, regions)

    def receive(self, result: runner_pb2.BundleResult) -> Received | None:
        """A result; None: its chunks follow. Raises ChunkRefused."""
        forms = [tensor.WhichOneof("content") for tensor in result.outputs]
        by = next((_FORMS[form] for form in ("chunked_bytes", "region") if form in forms), "inline")
        self._transports.results[by] += 1
        if by != "chunked":
            return Received(result, self._segment)
        sizes = {
            index: result.outputs[index].chunked_bytes for index, form in enumerate(forms) if form == "chunked_bytes"
        }
        assembly = self._assemblies.begin(result.bundle_id, sizes)
        if assembly.complete:
            return Received(result, self._segment, assembly.tensors)
        self._coming[result.bundle_id] = result, assembly.tensors
        return None

    def receive_chunk(self, chunk: runner_pb2.BundleChunk) -> Received | None:
        """The result that is complete with it. Raises ChunkRefused."""
        if not self._assemblies.add(chunk.bundle_id, chunk.tensor_index, chunk.offset, chunk.data):
            return None
        result, tensors = self._coming.pop(chunk.bundle_id)
        return Received(result, self._segment, tensors)


@dataclass(frozen=True, slots=True)
class Received:
    """A result of which everything has come."""

    result: runner_pb2.BundleResult
    segment: Segment | None = None
    chunked: Mapping[int, Buffer] = field(default_factory=dict)

    def read(self, index: int, tensor: runner_pb2.Tensor) -> Buffer:
        """The content of an output that is not inside its message: a view.

        Raises:
            MalformedResult: the runner names what is not there.
        """
        if index in self.chunked:
            return self.chunked[index]
        if self.segment is None:
            raise MalformedResult(f"output {tensor.name!r} came by shared memory, which this stream does not have")
        try:
            return read_result(self.segment, Region(tensor.region.offset, tensor.region.size_bytes))
        except BadRegion as error:
            raise MalformedResult(f"output {tensor.name!r}: {error}") from error


def _give_back(placer: Placer, regions: Sequence[Region]) -> None:
    for region in regions:
        placer.give_back(region)
