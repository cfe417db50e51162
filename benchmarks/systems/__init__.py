"""The systems under test, by name."""

from __future__ import annotations

from benchmarks.systems.base import Counts, Running, System
from benchmarks.systems.headrace import Headrace, HeadraceRest
from benchmarks.systems.mosec import Mosec
from benchmarks.systems.triton import Triton

SYSTEMS: dict[str, System] = {system.name: system for system in (Headrace(), Triton(), Mosec(), HeadraceRest())}

__all__ = ["SYSTEMS", "Counts", "Running", "System"]
