"""Seconds to protobuf's durations and timestamps and back."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_NANOS = 1_000_000_000


def duration(seconds: float) -> Duration:
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return Duration(seconds=whole, nanos=nanos)


def timestamp(seconds: float) -> Timestamp:
    """Of wall time since the epoch; to the microsecond, which is what a float of it holds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return Timestamp(seconds=whole, nanos=micros * 1000)


def seconds(value: Duration | Timestamp) -> float:
    # One division of integers: the float nearest to the true value, so that a shown time reads back equal.
    return (value.seconds * _NANOS + value.nanos) / _NANOS
