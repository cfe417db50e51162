"""Mistakes that are found before the mesh is asked: exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headrace.errors import FailedPrecondition, InvalidArgument


class UsageProblem(Exception):
    """What was typed cannot work, or this machine is not set up for it. One line that says what to do."""


@contextmanager
def found_here() -> Iterator[None]:
    """Within this, what is wrong is the user's input or machine, and not something that the mesh refused."""
    try:
        yield
    except (InvalidArgument, FailedPrecondition) as error:
        raise UsageProblem(error.message) from None
