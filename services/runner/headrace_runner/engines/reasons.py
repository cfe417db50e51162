"""What libraries say when they fail, as the reason that people get."""

from __future__ import annotations

import re

_MOST = 500
_ABSOLUTE = re.compile(r"(?<![\w.])/(?:[^\s:'\"/]+/)+([^\s:'\"/]*)")
_NO_MEMORY = (
    "bad_alloc", "bad allocation", "failed to allocate memory", "can't allocate memory", "not enough memory",
    "out of memory",
)  # fmt: skip


def reason_of(error: BaseException, *decorations: re.Pattern[str]) -> str:
    """One line: without a C++ stack that follows it, and with files by their names alone.

    Args:
        decorations: what the library puts around its words; left out.
    """
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    for decoration in decorations:
        text = decoration.sub("", text)
    # Where a runner keeps its files is nobody's business.
    return _ABSOLUTE.sub(r"\1", text)[:_MOST]


def lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _NO_MEMORY)
