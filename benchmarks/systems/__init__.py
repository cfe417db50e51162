"""The systems under test, by name."""

from __future__ import annotations

from benchmarks.systems.base import Counts, Running, System
from benchmarks.systems.headrace import Headrace, HeadraceRest
from benchmarks.systems.mlserver import MlServer, MlServerRest
from benchmarks.systems.mosec import Mosec
from benchmarks.systems.python_peers import BentoMl, LitServe, RayServe
from benchmarks.systems.triton import Triton

_ALL: tuple[System, ...] = (
    Headrace(),
    Triton(),
    Mosec(),
    MlServer(),
    RayServe(),
    LitServe(),
    BentoMl(),
    HeadraceRest(),
    MlServerRest(),
)
SYSTEMS = {system.name: system for system in _ALL}

__all__ = ["SYSTEMS", "Counts", "Running", "System"]
