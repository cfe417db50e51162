"""Measurements that are not a load on a list of systems; each gives one `records.Special` per round."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.plan import Settings
from benchmarks.records import Special
from benchmarks.special.bare import bare
from benchmarks.special.goodput import goodput
from benchmarks.special.memory import memory
from benchmarks.special.tenants import tenants

MEASUREMENTS: dict[str, Callable[[Settings, int], Special]] = {
    "bare": bare,
    "goodput": goodput,
    "tenants": tenants,
    "memory": memory,
}

__all__ = ["MEASUREMENTS"]
