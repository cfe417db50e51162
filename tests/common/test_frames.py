"""Messages over a unix socket arrive whole, in order, and say why when they cannot."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_common.errors import InvalidArgument
from headrace_common.frames import LENGTH_BYTES, MOST_FRAME_BYTES, Buffer, FrameLink

WITHIN_S = 20


class Peer:
    """Keeps what it was sent."""

    def __init__(self, limit: int = MOST_FRAME_BYTES) -> None:
        self.got: list[bytes] = []
        self.came = asyncio.Event()
        self.link = FrameLink(self._receive, limit)

    def _receive(self, message: Buffer) -> None:
        if message == b"refuse me":
            raise InvalidArgument("this message is refused")
        self.got.append(bytes(message))
        self.came.set()

    async def until(self, count: int) -> list[bytes]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.got) < count:
                self.came.clear()
                await self.came.wait()
        return self.got


@asynccontextmanager
async def linked(limit: int = MOST_FRAME_BYTES) -> AsyncIterator[tuple[Peer, Peer]]:
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        there, here = Peer(limit), Peer()
        server = await loop.create_unix_server(lambda: there.link, path)
        await loop.create_unix_connection(lambda: here.link, path)
        try:
            yield here, there
        finally:
            here.link.abort("over")
            there.link.abort("over")
            server.close()
            await server.wait_closed()


@asynccontextmanager
async def raw(limit: int = MOST_FRAME_BYTES) -> AsyncIterator[tuple[socket.socket, Peer]]:
    """A peer whose other side is a bare socket."""
    ours, theirs = socket.socketpair()
    peer = Peer(limit)
    await asyncio.get_running_loop().create_connection(lambda: peer.link, sock=theirs)
    with ours:
        yield ours, peer
    peer.link.abort("over")


sizes = st.integers(0, 40) | st.sampled_from([65531, 65532, 65533, 65536, 200_000])


@given(st.lists(st.lists(sizes, max_size=3), max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_messages_arrive_whole_and_in_order(messages: list[list[int]]) -> None:
    async with linked() as (here, there):
        expected = []
        for number, parts in enumerate(messages):
            content = [bytes([number]) * size for size in parts]
            here.link.send(*content)
            expected.append(b"".join(content))
        assert await there.until(len(expected)) == expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
async def test_it_does_not_matter_how_the_bytes_are_cut(lengths: list[int], step: int) -> None:
    expected = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    stream = b"".join(len(message).to_bytes(LENGTH_BYTES, "little") + message for message in expected)
    async with raw() as (ours, peer):
        for start in range(0, len(stream), step):
            ours.sendall(stream[start : start + step])
            await asyncio.sleep(0)
        assert await peer.until(len(expected)) == expected


async def test_each_side_ends_when_it_has_said_all() -> None:
    async with linked() as (here, there):
        heard = asyncio.Event()
        there.link.peer_finished = heard.set
        here.link.send(b"last")
        here.link.finish()
        async with asyncio.timeout(WITHIN_S):
            await heard.wait()
            there.link.send(b"answer")
            assert await here.until(1) == [b"answer"]
            there.link.close()
            assert (await here.link.ended, await there.link.ended) == ("", "")


async def test_a_link_that_both_sides_have_finished_ends(  # Whoever is first, and if one is gone.
) -> None:
    for first, second in ((0, 1), (1, 0)):
        async with linked() as peers:
            peers[0].link.send(b"there")
            await peers[1].until(1)
            heard = asyncio.Event()
            peers[second].link.peer_finished = heard.set
            peers[first].link.finish()
            async with asyncio.timeout(WITHIN_S):
                await heard.wait()
                peers[second].link.finish()
                peers[second].link.send(b"too late")
                assert (await peers[0].link.ended, await peers[1].link.ended) == ("", "")


async def test_a_message_over_the_limit_ends_the_link_and_says_so() -> None:
    async with linked(limit=8) as (here, there):
        here.link.send(b"12345678")
        here.link.send(b"123456789")
        async with asyncio.timeout(WITHIN_S):
            assert await there.link.ended == "a message of 9 bytes came; at most 8 are taken"
        assert there.got == [b"12345678"]


async def test_a_receiver_that_refuses_ends_the_link_with_its_reason() -> None:
    async with linked() as (here, there):
        here.link.send(b"refuse me")
        async with asyncio.timeout(WITHIN_S):
            assert await there.link.ended == "this message is refused"


@pytest.mark.parametrize("begun", [b"\x05", b"\x05\0\0\0ab", (200_000).to_bytes(4, "little") + bytes(100)])
async def test_an_end_inside_a_message_is_told(begun: bytes) -> None:
    async with raw() as (ours, peer):
        ours.sendall(begun)
        ours.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(WITHIN_S):
            assert await peer.link.ended == "the connection ended inside a message"


async def test_sending_into_a_link_that_has_ended_is_nothing() -> None:
    async with linked() as (here, there):
        there.link.abort("gone")
        async with asyncio.timeout(WITHIN_S):
            await here.link.ended
        here.link.send(b"into the void")
        here.link.finish()
