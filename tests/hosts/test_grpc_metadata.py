"""Metadata, timeouts and status messages in header form."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common.asgi_grpc.metadata import decode_metadata, encode_message, encode_metadata, parse_timeout
from headrace_common.errors import InvalidArgument


@given(value=st.binary(max_size=100))
def test_binary_values_survive(value: bytes) -> None:
    assert decode_metadata(encode_metadata([("X-Data-Bin", value)])) == (("x-data-bin", value),)


@pytest.mark.parametrize(
    ("header", "values"),
    [(b"AQI=", [b"\1\2"]), (b"AQI", [b"\1\2"]), (b"AQI=, AQI,AQ==", [b"\1\2", b"\1\2", b"\1"]), (b"", [b""])],
    ids=["padded", "not padded", "joined", "empty"],
)
def test_base64_of_both_kinds_joined_or_not_is_read(header: bytes, values: list[bytes]) -> None:
    assert [value for _, value in decode_metadata([(b"x-bin", header)])] == values


def test_what_is_not_base64_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="'x-bin' is not base64"):
        decode_metadata([(b"x-bin", b"%%%")])


def test_headers_of_the_transport_are_not_metadata() -> None:
    headers = [
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"1S"),
        (b"grpc-encoding", b"gzip"),
        (b"grpc-accept-encoding", b"gzip"),
        (b"user-agent", b"test"),
        (b"grpc-trace-bin", b"AQ"),
    ]
    assert decode_metadata(headers) == (("user-agent", "test"), ("grpc-trace-bin", b"\1"))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"1H", 3600), (b"2M", 120), (b"3S", 3), (b"250m", 0.25), (b"99999999u", 99.999999), (b"5n", 5e-9), (b"0S", 0)],
)
def test_timeouts_in_every_unit(value: bytes, seconds: float) -> None:
    assert parse_timeout(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"1s", b"-1S", b"123456789S", b"1.5S", b"\xff"])
def test_malformed_timeouts_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgument, match="grpc-timeout"):
        parse_timeout(value)


@given(message=st.text())
def test_status_messages_survive_and_are_printable(message: str) -> None:
    surrogate_free = message.encode("utf-8", "ignore").decode()
    encoded = encode_message(surrogate_free)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert unquote(encoded.decode()) == surrogate_free
