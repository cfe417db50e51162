"""GPUs that a plan is built for, by CUDA compute capability: 8.6 is `sm_86`."""

from __future__ import annotations

import re

from headrace_common.errors import InvalidArgument

_NAME = re.compile(r"sm_([1-9][0-9]{1,2})")


def parse_targets(text: str) -> tuple[int, ...]:
    """ "sm_75,sm_86" to (75, 86), in the order given, each once.

    Raises:
        InvalidArgument
    """
    targets: dict[int, None] = {}
    for word in text.split(","):
        match = _NAME.fullmatch(word.strip())
        if not match:
            raise InvalidArgument(f"--target: expected compute capabilities such as sm_75,sm_86; got {word.strip()!r}")
        targets[int(match[1])] = None
    return tuple(targets)
