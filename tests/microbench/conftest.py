"""The steps of the hot route that wait for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.micro.steps import STEPS


@pytest.fixture(params=list(STEPS))
def step(request: pytest.FixtureRequest) -> tuple[str, Callable[[], Any]]:
    """A budget's name, and the function that it is for."""
    return request.param, STEPS[request.param]()
