"""Tensors that are too long for one message: cut for the stream, and put together again. Pure.

Whoever sends names the sizes first (`Tensor.chunked_bytes`); then come the chunks of each tensor in order,
without gaps. Chunks of several bundles may alternate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview

MESSAGE_BYTES = 1 << 20
"""Tensors go in the message itself as long as they hold no more together; a chunk holds no more either."""
MOST_MESSAGE_BYTES = 4 * MESSAGE_BYTES
"""gRPC's own default. Names, shapes and row ends of what goes in one message take less than the difference."""
MOST_BUNDLE_BYTES = 1 << 31
MOST_BUNDLES = 64


class ChunkRefused(Exception):
    """The peer breaks the order of chunks. For the log."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Parts that follow each other in the tensor, `size` bytes together."""

    tensor_index: int
    offset: int
    parts: Sequence[Buffer]
    size: int


def cut(tensor_index: int, parts: Iterable[Buffer], most: int = MESSAGE_BYTES) -> Iterator[Chunk]:
    """Cuts a tensor, given in parts, into chunks of at most `most` bytes, as views: nothing is copied."""
    offset = size = 0
    held: list[Buffer] = []
    for part in parts:
        view = memoryview(part)
        while len(view):
            taken = view[: most - size]
            held.append(taken)
            size += len(taken)
            view = view[len(taken) :]
            if size == most:
                yield Chunk(tensor_index, offset, held, size)
                offset, size, held = offset + size, 0, []
    if held:
        yield Chunk(tensor_index, offset, held, size)


class Assembly:
    """The tensors of one bundle, while their chunks come."""

    def __init__(self, sizes: Mapping[int, int]) -> None:
        self._sizes = {index: size for index, size in sorted(sizes.items()) if size}
        self._left = list(self._sizes)
        self._at = 0
        self.tensors: dict[int, bytearray] = {index: bytearray() for index in sizes}

    @property
    def complete(self) -> bool:
        return not self._left

    def add(self, tensor_index: int, offset: int, data: bytes) -> None:
        """Raises ChunkRefused: it is not what comes next, or goes past the tensor's size."""
        if not self._left or (tensor_index, offset) != (self._left[0], self._at):
            due = f"byte {self._at} of tensor {self._left[0]} was due" if self._left else "nothing was due"
            raise ChunkRefused(f"a chunk came for byte {offset} of tensor {tensor_index}; {due}")
        size = self._sizes[tensor_index]
        if not 0 < len(data) <= size - self._at:
            raise ChunkRefused(f"{len(data)} bytes came for tensor {tensor_index}, of which {size - self._at} are due")
        if not self._at:
            # Zeroed pages that nobody has touched cost nothing: memory is taken as the chunks come.
            self.tensors[tensor_index] = bytearray(size)
        self.tensors[tensor_index][self._at : self._at + len(data)] = data
        self._at += len(data)
        if self._at == size:
            del self._left[0]
            self._at = 0


class Assemblies:
    """All bundles of one stream whose chunks still come, by id."""

    def __init__(self, most_bytes: int = MOST_BUNDLE_BYTES, most_bundles: int = MOST_BUNDLES) -> None:
        self._most_bytes = most_bytes
        self._most_bundles = most_bundles
        self._coming: dict[int, Assembly] = {}

    def __contains__(self, bundle_id: int) -> bool:
        return bundle_id in self._coming

    def begin(self, bundle_id: int, sizes: Mapping[int, int]) -> Assembly:
        """Expects tensors of these sizes, by index.

        Raises:
            ChunkRefused: more bytes, or more bundles at once, than anybody should send.
        """
        total = sum(sizes.values())
        if total > self._most_bytes:
            raise ChunkRefused(f"bundle {bundle_id} announces {total} bytes; at most {self._most_bytes} are taken")
        if len(self._coming) >= self._most_bundles:
            raise ChunkRefused(f"bundle {bundle_id} comes in chunks while {self._most_bundles} others do")
        assembly = Assembly(sizes)
        if not assembly.complete:
            self._coming[bundle_id] = assembly
        return assembly

    def add(self, bundle_id: int, tensor_index: int, offset: int, data: bytes) -> bool:
        """Whether the bundle is complete with it. Raises ChunkRefused."""
        assembly = self._coming.get(bundle_id)
        if assembly is None:
            raise ChunkRefused(f"a chunk came for bundle {bundle_id}, of which none is due")
        assembly.add(tensor_index, offset, data)
        if assembly.complete:
            del self._coming[bundle_id]
        return assembly.complete

    def drop(self, bundle_id: int) -> bool:
        """Forgets a bundle; whether chunks of it were due."""
        return self._coming.pop(bundle_id, None) is not None
