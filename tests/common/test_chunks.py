"""Long tensors in pieces: cut, sent in turns, put together, and every way to get the order wrong."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common.chunks import Assemblies, Assembly, ChunkRefused, cut
from headrace_common.outbox import Outbox


@given(st.lists(st.lists(st.binary(max_size=40), max_size=6), max_size=4), st.integers(1, 17))
def test_what_is_cut_is_put_together_again(tensors: list[list[bytes]], most: int) -> None:
    assembly = Assembly({index: sum(map(len, parts)) for index, parts in enumerate(tensors)})
    for index, parts in enumerate(tensors):
        for chunk in cut(index, parts, most):
            assert not assembly.complete
            assert 0 < chunk.size <= most
            assembly.add(chunk.tensor_index, chunk.offset, b"".join(chunk.parts))
    assert assembly.complete
    assert [bytes(assembly.tensors[index]) for index in range(len(tensors))] == [b"".join(parts) for parts in tensors]


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        ((1, 0, 4, b"xxxx"), "byte 0 of tensor 0 was due"),
        ((1, 2, 0, b"xxxx"), "byte 0 of tensor 0 was due"),
        ((1, 1, 0, b"xxxx"), "byte 0 of tensor 0 was due"),
        ((1, 0, 0, b"x" * 11), "of which 10 are due"),
        ((1, 0, 0, b""), "0 bytes came"),
        ((2, 0, 0, b"xxxx"), "bundle 2, of which none is due"),
    ],
    ids=["a gap", "another tensor", "out of order", "too many", "nothing", "an unknown bundle"],
)
def test_a_chunk_out_of_order_is_refused(chunk: tuple[int, int, int, bytes], says: str) -> None:
    assemblies = Assemblies()
    assemblies.begin(1, {0: 10, 1: 10})
    with pytest.raises(ChunkRefused, match=says):
        assemblies.add(*chunk)


def test_a_chunk_twice_is_refused() -> None:
    assemblies = Assemblies()
    assemblies.begin(1, {0: 10})
    assert not assemblies.add(1, 0, 0, b"x" * 5)
    with pytest.raises(ChunkRefused, match="byte 5 of tensor 0 was due"):
        assemblies.add(1, 0, 0, b"x" * 5)


def test_only_so_much_is_taken_in() -> None:
    assemblies = Assemblies(most_bytes=100, most_bundles=2)
    with pytest.raises(ChunkRefused, match="announces 101 bytes; at most 100"):
        assemblies.begin(1, {0: 50, 2: 51})
    assemblies.begin(1, {0: 100})
    assemblies.begin(2, {0: 100})
    with pytest.raises(ChunkRefused, match="while 2 others do"):
        assemblies.begin(3, {0: 1})
    assert assemblies.drop(1)
    assert not assemblies.drop(1)
    assemblies.begin(3, {0: 1})
    assert assemblies.add(3, 0, 0, b"x")
    assert 3 not in assemblies


async def drain(outbox: Outbox[str]) -> list[str]:
    outbox.close()
    written: list[str] = []
    while (message := await outbox.next()) is not None:
        written.append(message)
    return written


async def test_long_bundles_and_messages_take_turns() -> None:
    outbox: Outbox[str] = Outbox()
    outbox.put_long(1, iter(("a0", "a1", "a2")))
    outbox.put_long(2, iter(("b0", "b1")))
    for message in ("m0", "m1", "m2"):
        outbox.put(message)
    written = await drain(outbox)
    assert [message for message in written if message[0] == "m"] == ["m0", "m1", "m2"]
    assert [message for message in written if message[0] != "m"] == ["a0", "b0", "a1", "b1", "a2"]
    assert written.index("m2") <= 5


async def test_a_bundle_given_up_sends_no_more_chunks() -> None:
    outbox: Outbox[str] = Outbox()
    outbox.put_long(1, iter(("a0", "a1", "a2")))
    assert await outbox.next() == "a0"
    outbox.withdraw(1, "cancel 1")
    assert await drain(outbox) == ["cancel 1"]


async def test_a_bundle_given_up_early_is_announced_first() -> None:
    """The other side would not answer for a bundle that it never heard of."""
    outbox: Outbox[str] = Outbox()
    outbox.put_long(1, iter(("a0", "a1")))
    outbox.withdraw(1, "cancel 1")
    outbox.withdraw(7, "cancel 7")
    assert [message for message in await drain(outbox) if message != "cancel 7"] == ["a0", "cancel 1"]


async def test_an_empty_outbox_waits_and_an_ended_one_does_not() -> None:
    outbox: Outbox[str] = Outbox()
    waiting = asyncio.ensure_future(outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    outbox.put("m")
    assert await waiting == "m"
    outbox.put("never sent")
    outbox.end()
    assert await outbox.next() is None
