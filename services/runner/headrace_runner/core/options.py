"""What engines' options have in common: numbers of threads, and how an unknown one is refused. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from headrace_common.errors import InvalidArgument

MAX_THREADS = 256
MOST_TOLD = 80
"""Characters of what came, in a refusal."""


def unknown_option(engine: str, option: str, known: Iterable[str]) -> str:
    """The sentence that refuses an option, with the nearest name where one is near."""
    names = sorted(known)
    knows = f": {', '.join(names)}" if names else " none"
    return f"engine option {option!r} is not known to {engine}{nearest(option, names)}; it knows{knows}"


def thread_count(name: str, value: str) -> int:
    """Raises InvalidArgument where the option of that name is no number of threads."""
    if not value.isascii() or not value.isdigit() or len(value) > 4 or not 1 <= int(value) <= MAX_THREADS:
        raise InvalidArgument(f"engine option {name}: expected 1 to {MAX_THREADS}; got {value[:MOST_TOLD]!r}")
    return int(value)


def nearest(given: str, names: Iterable[str]) -> str:
    """ "; did you mean 'x'?" without its question mark where something is near, else nothing."""
    found = get_close_matches(given, list(names), n=1)
    return f", did you mean {found[0]!r}" if found else ""
