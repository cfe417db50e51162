"""TensorRT-RTX compiles a part of a plan for the GPU that is there, when it is loaded; this is kept between processes.

API clauses: IRuntimeConfig and IRuntimeCache of TensorRT-RTX,
https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-runtime-cache.html.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from headrace_common.logs import get_logger
from headrace_runner.cache_directory import MOST_BYTES, keep_within, touch
from headrace_runner.compile.atomic import write_atomically


class RtxRuntime:
    """Makes the contexts of one engine, all with one run-time cache.

    Args:
        trt: the library.
        engine: an ICudaEngine.
        kept: file of the cache; read now if it is there. None: nothing is kept.
    """

    def __init__(self, trt: Any, engine: Any, kept: Path | None) -> None:
        self._engine, self._kept = engine, kept
        self._config = engine.create_runtime_config()
        self._cache = self._config.create_runtime_cache()
        self._digest = self._read()
        self._config.set_runtime_cache(self._cache)
        # A batch of a new size runs on a fallback kernel while one for it is compiled in the background: no request
        # waits for the compiler (DynamicShapesKernelSpecializationStrategy).
        self._config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.LAZY
        # Its own graphs: only the library knows when the kernels for a shape are the final ones ("Working with RTX CUDA
        # Graphs"), and a capture of ours would keep the fallback for good.
        self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def make_context(self) -> Any:
        """An IExecutionContext, or None. Compiles what the cache does not hold."""
        return self._engine.create_execution_context(runtime_config=self._config)

    def keep(self) -> None:
        """Writes what has been compiled, if there is something new. A place that cannot be written costs only time."""
        if self._kept is None:
            return
        serialized = self._cache.serialize()
        if serialized is None:
            get_logger().warning("runtime_cache_not_kept", reason="TensorRT-RTX does not serialize it")
            return
        content = bytes(serialized)
        digest = hashlib.sha256(content).digest()
        if digest == self._digest:
            return
        try:
            write_atomically(self._kept, content)
            keep_within(self._kept.parent, "*", MOST_BYTES)
        except OSError as error:
            get_logger().warning("runtime_cache_not_kept", file=error.filename, reason=error.strerror)
        self._digest = digest

    def _read(self) -> bytes:
        """The digest of what was kept; empty: nothing, or nothing of use."""
        if self._kept is None:
            return b""
        try:
            content = self._kept.read_bytes()
        except OSError:
            return b""
        # "validated against the current environment before its contents are loaded, and rejected on any mismatch".
        if not self._cache.deserialize(content):
            return b""
        touch(self._kept)
        return hashlib.sha256(content).digest()
