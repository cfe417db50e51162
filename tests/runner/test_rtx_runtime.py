"""What TensorRT-RTX compiles on the device, and where it is kept for the next process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from headrace_runner.engines.rtx_runtime import RtxRuntime


class Cache:
    """An IRuntimeCache: takes back what it gave, unless it is of another environment."""

    def __init__(self) -> None:
        self.content = b""

    def serialize(self) -> bytes:
        return self.content

    def deserialize(self, content: bytes) -> bool:
        if not content.startswith(b"kernels"):
            return False
        self.content = content
        return True


class RtxEngine:
    def __init__(self) -> None:
        self.cache = Cache()
        self.config = SimpleNamespace(create_runtime_cache=lambda: self.cache, set_runtime_cache=self._use)
        self.used: list[Cache] = []

    def _use(self, cache: Cache) -> bool:
        self.used.append(cache)
        return True

    def create_runtime_config(self) -> Any:
        return self.config

    def create_execution_context(self, runtime_config: Any) -> Any:
        assert runtime_config is self.config
        assert self.used
        self.cache.content = self.cache.content or b"kernels of 1 row"
        return "context"


RTX = SimpleNamespace(
    DynamicShapesKernelSpecializationStrategy=SimpleNamespace(LAZY="lazy"),
    CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole"),
)


def test_what_was_compiled_on_the_device_is_kept_for_the_next_process(tmp_path: Path) -> None:
    kept = tmp_path / "jit" / "key"
    first = RtxRuntime(RTX, RtxEngine(), kept)
    assert first.make_context() == "context"
    first.keep()
    assert kept.read_bytes() == b"kernels of 1 row"
    stamp = kept.stat().st_ino
    first.keep()
    assert kept.stat().st_ino == stamp, "nothing new is not written again"

    engine = RtxEngine()
    RtxRuntime(RTX, engine, kept)
    assert engine.cache.content == b"kernels of 1 row"


def test_what_was_compiled_elsewhere_or_is_damaged_is_compiled_again(tmp_path: Path) -> None:
    kept = tmp_path / "key"
    kept.write_bytes(b"damaged")
    runtime = RtxRuntime(RTX, RtxEngine(), kept)
    runtime.make_context()
    runtime.keep()
    assert kept.read_bytes() == b"kernels of 1 row"


def test_a_cache_that_cannot_be_written_keeps_no_model_from_running(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    runtime = RtxRuntime(RTX, RtxEngine(), tmp_path / "file" / "key")
    assert runtime.make_context() == "context"
    runtime.keep()
