"""Quantities as people write them, to exact integers and back.

Units are in the names: millicores, bytes, milli-GPUs, micro-units of money.
"""

from __future__ import annotations

import re
from decimal import Decimal

from headrace_common.errors import InvalidArgument

_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_LEAST_RATE = 0.001
_BYTES = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i?|k)?")
_MILLIS = re.compile(r"([0-9]+)m|([0-9]+(?:\.[0-9]{1,3})?)")
_MONEY = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
MAX = 2**63 - 1


def parse_millis(text: str, what: str) -> int:
    """ "2", "0.5" or "500m" to thousandths: of a CPU, of a GPU."""
    match = _MILLIS.fullmatch(text)
    if not match:
        raise InvalidArgument(f"{what}: expected a count like 2, 0.5 or 500m; got {text!r}")
    return _bounded(Decimal(match[1]) if match[1] else Decimal(match[2]) * 1000, text, what)


def parse_bytes(text: str, what: str) -> int:
    """ "4Gi", "500M" or "1073741824" to bytes."""
    match = _BYTES.fullmatch(text)
    if not match:
        raise InvalidArgument(f"{what}: expected bytes like 4Gi, 500M or 1073741824; got {text!r}")
    return _bounded(Decimal(match[1]) * _SUFFIXES[match[2] or ""], text, what)


def parse_micros(text: str, what: str) -> int:
    """Money: "1.50" to micro-units."""
    if not _MONEY.fullmatch(text):
        raise InvalidArgument(f"{what}: expected an amount like 1.50, at most 6 decimals; got {text!r}")
    return _bounded(Decimal(text) * 10**6, text, what)


def parse_seconds(text: str, what: str) -> float:
    """ "100ms", "60s", "5m" or "1h" to seconds."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise InvalidArgument(f"{what}: expected a duration like 100ms, 60s, 5m or 1h; got {text!r}")
    return float(Decimal(match[1]) * _SECONDS[match[2]])


def format_bytes(count: int) -> str:
    """Bytes for a table: the largest binary unit that leaves at least 1, one decimal."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if count >= _SUFFIXES[suffix]:
            value = count / _SUFFIXES[suffix]
            return f"{value:.1f}".removesuffix(".0") + suffix
    return str(count)


def format_micros(micros: int) -> str:
    """Money: 1500000 to "1.50", and no digit lost."""
    amount = Decimal(micros) / 10**6
    return f"{amount:.2f}" if amount == amount.quantize(Decimal("0.01")) else f"{amount:.6f}".rstrip("0")


def format_millis(millis: int) -> str:
    """Thousandths back to the shortest exact form: 1500 to "1.5"."""
    return f"{Decimal(millis) / 1000:f}"


def _bounded(value: Decimal, text: str, what: str) -> int:
    if value != value.to_integral_value():
        raise InvalidArgument(f"{what}: {text!r} is not a whole number of its smallest unit")
    if value > MAX:
        raise InvalidArgument(f"{what}: {text!r} is over the largest amount, {MAX}")
    return int(value)


def check_rate(per_s: float, what: str) -> None:
    """Rates are counted in thousandths.

    Raises:
        InvalidArgument: less than one of them, and not 0.
    """
    if not (per_s == 0 or per_s >= _LEAST_RATE):
        raise InvalidArgument(f"{what}: expected 0, or {_LEAST_RATE:g} and more; got {per_s:g}")
