"""Which way of running a model may be on which kind of node."""

from __future__ import annotations

from headrace_autoscaler.core.allocator.catalog import CapacityClass
from headrace_autoscaler.core.allocator.types import Demand, Kind, Way
from headrace_autoscaler.domain import Resources

_TENSORRT = frozenset({"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"})
_TENSORRT_RTX = frozenset({"sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"})
SUPPORTED = {
    "tensorrt": _TENSORRT,
    "tensorrt_rtx": _TENSORRT_RTX,
    "tensorrt-rtx": _TENSORRT_RTX,
}
"""GPU architectures by engine, as deploys and manifests name it. These engines run on nothing but a GPU; one that is
not named here runs on any node. TensorRT 10.13's support matrix; TensorRT-RTX 1.2's builder: neither has sm_70 (V100).
"""


def refusal(demand: Demand, way: Way, kind: Kind) -> str:
    """Why this way may not run on nodes of this kind; empty: it may."""
    needs, has = way.resources, kind.capacity
    if way.variant is not None and way.variant.outside:
        return f"variant '{way.variant.name}' is not good enough: {way.variant.outside}"
    if kind.capacity_class is CapacityClass.SPOT and not demand.tolerates_spot:
        return "it does not tolerate spot nodes"
    if way.shape and way.shape != kind.shape:
        return f"its profile was measured on {way.shape}"
    engine, architectures = built(demand, way)
    if needs.gpu_millis:
        if way.architecture and way.architecture != kind.architecture:
            return f"its profile was measured on {way.architecture}"
        return _gpu_refusal(engine, architectures, needs, kind)
    if engine in SUPPORTED:
        return f"{engine} runs on GPUs only, and an instance of it holds no share of one"
    if needs.cpu_millicores > has.cpu_millicores or needs.memory_bytes > has.memory_bytes:
        return "a node of this kind is too small for it"
    return ""


def built(demand: Demand, way: Way) -> tuple[str, tuple[str, ...]]:
    """The engine of a way, and the GPUs that it was built for; empty: all that the engine supports."""
    variant = way.variant
    if variant is None:
        return demand.engine, demand.architectures
    if variant.engine:
        return variant.engine, variant.architectures
    return demand.engine, variant.architectures or demand.architectures


def _gpu_refusal(engine: str, architectures: tuple[str, ...], needs: Resources, kind: Kind) -> str:
    if not kind.gpus:
        return "it has no GPU"
    supported = SUPPORTED.get(engine.replace("-", "_"))
    if supported is not None and kind.architecture not in supported:
        return f"{engine} does not support {kind.architecture}"
    if architectures and kind.architecture not in architectures:
        return f"its engine was built for {', '.join(architectures)} and this is {kind.architecture}"
    device_memory = kind.capacity.gpu_memory_bytes // kind.gpus
    if needs.gpu_millis > 1000 or needs.gpu_memory_bytes > device_memory:
        return "one GPU of it is too small for an instance"
    if needs.cpu_millicores > kind.capacity.cpu_millicores or needs.memory_bytes > kind.capacity.memory_bytes:
        return "a node of this kind is too small for it"
    return ""
