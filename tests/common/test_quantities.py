from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_common import quantities as q
from headrace_common.errors import InvalidArgument


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        pytest.param(q.parse_millis, "2", 2000, id="whole CPUs"),
        pytest.param(q.parse_millis, "0.5", 500, id="half a CPU"),
        pytest.param(q.parse_millis, "250m", 250, id="millicores"),
        pytest.param(q.parse_bytes, "4Gi", 4 << 30, id="binary suffix"),
        pytest.param(q.parse_bytes, "500M", 500_000_000, id="decimal suffix"),
        pytest.param(q.parse_bytes, "1.5Ki", 1536, id="fraction that comes out whole"),
        pytest.param(q.parse_bytes, "7", 7, id="plain bytes"),
        pytest.param(q.parse_micros, "1.50", 1_500_000, id="money"),
        pytest.param(q.parse_micros, "0.000001", 1, id="smallest money"),
        pytest.param(q.parse_seconds, "100ms", 0.1, id="milliseconds"),
        pytest.param(q.parse_seconds, "1h", 3600.0, id="an hour"),
    ],
)
def test_reads_what_people_write(parse: Callable[[str, str], Any], text: str, expected: float) -> None:
    assert parse(text, "key") == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        pytest.param(q.parse_millis, "two", id="words"),
        pytest.param(q.parse_millis, "-1", id="negative"),
        pytest.param(q.parse_millis, "1.2345", id="finer than a thousandth"),
        pytest.param(q.parse_bytes, "1.3", id="part of a byte"),
        pytest.param(q.parse_bytes, "1Q", id="unknown suffix"),
        pytest.param(q.parse_bytes, "9999999999Ti", id="over 64 bits"),
        pytest.param(q.parse_micros, "1.0000001", id="finer than a micro-unit"),
        pytest.param(q.parse_micros, "1e3", id="exponent"),
        pytest.param(q.parse_seconds, "5", id="no unit"),
    ],
)
def test_refuses_with_the_key_and_the_value(parse: Callable[[str, str], Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match="budget") as refusal:
        parse(text, "budget")
    assert text in refusal.value.message


@given(st.integers(0, 10**12))
def test_millis_survive_a_round_trip(millis: int) -> None:
    assert q.parse_millis(q.format_millis(millis), "key") == millis
