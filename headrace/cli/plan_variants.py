"""What the mesh has measured of a model's variants, as a part of the question that `headrace plan` asks the advisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.v1 import models_pb2

_ORIGINAL = "original"
_TIMED_ON = "onnxruntime"
"""The optimiser times with one thread of this."""


def measured(listed: models_pb2.ListVariantsResponse, memory: str) -> dict[str, Any]:
    """The original and its variants as ways; nothing where no job has measured any.

    Args:
        memory: of an instance of the model; empty: the default.
    """
    original = next((each for each in listed.variants if each.name == _ORIGINAL and each.timings), None)
    if original is None:
        return {}
    floor = listed.job.optimization.floor
    others = [_variant(each, memory, floor) for each in listed.variants if each.name != _ORIGINAL]
    return {"original": [_way(original, memory)], "variants": others}


def _way(variant: models_pb2.Variant, memory: str) -> dict[str, Any]:
    latency_us = {str(each.rows): each.latency.ToNanoseconds() / 1e3 for each in variant.timings}
    return {"name": variant.name, "cpu": "1", "latency_us": latency_us} | ({"memory": memory} if memory else {})


def _variant(variant: models_pb2.Variant, memory: str, floor: float) -> dict[str, Any]:
    found = _way(variant, memory)
    if variant.samples:
        found["quality"] = {
            "kind": variant.quality,
            "share": variant.share,
            "lower": variant.lower,
            "floor": floor,
        }
    if variant.verdict == "disqualified":
        found["outside"] = variant.reason
    here = _TIMED_ON in variant.engines
    found["engine"] = _TIMED_ON if here else ", ".join(variant.engines)
    if not here or not found["latency_us"]:
        del found["latency_us"]
    return found
