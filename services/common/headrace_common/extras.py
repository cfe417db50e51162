"""Packages that are needed only for what a configuration asks for."""

from __future__ import annotations

from importlib.util import find_spec

from headrace_common.config import MeshConfig
from headrace_common.errors import FailedPrecondition


def check_extras(mesh: MeshConfig) -> None:
    """Raises FailedPrecondition where the configuration needs a package that is not installed."""
    if mesh.router.cache_url and find_spec("redis") is None:
        raise FailedPrecondition(
            "router.cache_url names a Redis, and the package for it is not installed; pip install 'headrace[redis]', "
            "or leave cache_url empty to keep answers in memory"
        )
