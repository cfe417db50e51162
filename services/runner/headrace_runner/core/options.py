"""Engine options that nobody knows, said so that a slip of the pen is seen. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def unknown_option(engine: str, option: str, known: Iterable[str]) -> str:
    """The sentence that refuses an option, with the nearest name where one is near."""
    names = sorted(known)
    return f"engine option {option!r} is not known to {engine}{nearest(option, names)}; it knows: {', '.join(names)}"


def nearest(given: str, names: Iterable[str]) -> str:
    """ "; did you mean 'x'?" without its question mark where something is near, else nothing."""
    found = get_close_matches(given, list(names), n=1)
    return f", did you mean {found[0]!r}" if found else ""
