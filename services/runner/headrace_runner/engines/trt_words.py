"""What TensorRT says of itself, as errors of ours: its calls answer False or None, and the reason goes to its log."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from headrace_common.logs import get_logger
from headrace_runner.engines import trt_library
from headrace_runner.engines.base import EngineError, ExecutionFailed, OutOfMemory

_NO_MEMORY = re.compile(r"out ?of ?memory|cudaErrorMemoryAllocation", re.IGNORECASE)
_KEPT = 4


class Words:
    """The last errors that the library told, for the sentence that refuses."""

    def __init__(self) -> None:
        self._said: deque[str] = deque(maxlen=_KEPT)

    def logger(self, trt: Any) -> Any:
        return trt_library.make_logger(trt, self.hear)

    def hear(self, severity: str, text: str) -> None:
        """From any thread."""
        if severity in trt_library.ERRORS:
            self._said.append(" ".join(text.split()))
            get_logger().warning("tensorrt", said=text)

    def clear(self) -> None:
        self._said.clear()

    def after(self, what: str, otherwise: type[EngineError] = ExecutionFailed) -> EngineError:
        """What happened, with what was said of it: OutOfMemory where it was that, or else `otherwise`."""
        said = "; ".join(dict.fromkeys(self._said))
        self._said.clear()
        kind = OutOfMemory if _NO_MEMORY.search(said) else otherwise
        return kind(f"{what}: {said}" if said else what)
