"""Messages of gRPC over HTTP/2, whatever the chunks."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common.asgi_grpc.framing import Deframer, frame
from headrace_common.compression import ENCODINGS, deflate, inflate
from headrace_common.errors import InvalidArgument, LimitExceeded, Unimplemented

LIMIT = 1 << 16


def all_of(deframer: Deframer, stream: bytes) -> list[bytes]:
    return [deframer.message(framed) for framed in deframer.feed(stream)]


@given(
    messages=st.lists(st.binary(max_size=300), max_size=8),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=20),
    encoding=st.sampled_from(["", "gzip", "deflate"]),
)
def test_any_cutting_gives_the_messages_back(messages: list[bytes], cuts: list[int], encoding: str) -> None:
    stream = b"".join(frame(message, encoding) for message in messages)
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    deframer = Deframer(encoding, LIMIT)
    seen = [framed for start, end in pairwise(edges) for framed in deframer.feed(stream[start:end])]
    deframer.finish()
    assert [deframer.message(framed) for framed in seen] == messages


@given(stream=st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_never_crashes(stream: bytes) -> None:
    deframer = Deframer("gzip", LIMIT)
    try:
        for framed in deframer.feed(stream):
            deframer.message(framed)
        deframer.finish()
    except (InvalidArgument, LimitExceeded):
        return


def test_a_gigabyte_is_refused_by_its_prefix_alone() -> None:
    deframer = Deframer("", LIMIT)
    with pytest.raises(LimitExceeded, match=f"{1 << 30} bytes"):
        deframer.feed(b"\0" + (1 << 30).to_bytes(4))


@pytest.mark.parametrize("sent", [1, 4, 5, 9], ids=["flag", "half prefix", "prefix", "half message"])
def test_stream_that_ends_inside_a_message_is_refused(sent: int) -> None:
    deframer = Deframer("", LIMIT)
    assert deframer.feed(frame(b"0123456789")[:sent]) == []
    with pytest.raises(InvalidArgument, match="ended inside a message"):
        deframer.finish()


@pytest.mark.parametrize(
    ("encoding", "stream", "match"),
    [
        ("", b"\2\0\0\0\0", "flags 2"),
        ("", b"GET / HTTP/1.1", "flags"),
        ("", b"\1\0\0\0\1x", "names no compression"),
        ("identity", b"\1\0\0\0\1x", "names no compression"),
        ("gzip", b"\1\0\0\0\1x", "not valid gzip"),
    ],
)
def test_what_breaks_the_rules_is_the_clients_fault(encoding: str, stream: bytes, match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        all_of(Deframer(encoding, LIMIT), stream)


def test_uncompressed_message_under_a_compression_is_taken_as_it_is() -> None:
    assert all_of(Deframer("gzip", LIMIT), frame(b"plain")) == [b"plain"]


def test_unknown_compression_is_unimplemented() -> None:
    with pytest.raises(Unimplemented, match="snappy"):
        all_of(Deframer("snappy", LIMIT), b"\1\0\0\0\1x")


@given(data=st.binary(max_size=5000), encoding=st.sampled_from(ENCODINGS))
def test_deflate_and_inflate_are_inverse_and_the_limit_is_exact(data: bytes, encoding: str) -> None:
    packed = deflate(encoding, data)
    assert inflate(encoding, packed, len(data)) == data
    if data:
        with pytest.raises(LimitExceeded):
            inflate(encoding, packed, len(data) - 1)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", zlib.compress(b"hello")[2:-4]),
        ("identity", b"hello"),
        ("", b"hello"),
    ],
    ids=["gzip", "zlib", "raw deflate", "identity", "nothing"],
)
def test_forms_that_clients_send_are_inflated(encoding: str, packed: bytes) -> None:
    assert inflate(encoding, packed, 5) == b"hello"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", b""),
        ("gzip", gzip.compress(b"hello")[:-1]),
        ("gzip", gzip.compress(b"hello") * 2),
        ("gzip", b"\x1f\x8b" + b"\xff" * 20),
        ("deflate", zlib.compress(b"hello")[:-5]),
        ("deflate", b"\xff" * 20),
    ],
    ids=["empty", "cut off", "two members", "corrupt", "zlib cut off", "corrupt deflate"],
)
def test_corrupt_content_is_the_clients_fault(encoding: str, packed: bytes) -> None:
    with pytest.raises(InvalidArgument, match=f"not valid {encoding}"):
        inflate(encoding, packed, LIMIT)


def test_a_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = deflate("gzip", b"\0" * (1 << 28))
    assert len(bomb) < 1 << 21
    with pytest.raises(LimitExceeded, match="1000 bytes"):
        inflate("gzip", bomb, 1000)
