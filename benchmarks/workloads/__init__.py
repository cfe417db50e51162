"""What is asked of every system: one model, rows to send, and ONNX Runtime's own answers to them."""

from __future__ import annotations

from benchmarks.workloads.base import Workload
from benchmarks.workloads.magika import magika
from benchmarks.workloads.synthetic import image, mlp

NAMES = ("mlp", "image", "magika")

__all__ = ["NAMES", "Workload", "load"]


def load(name: str) -> Workload:
    """Makes the model's file where it is not there yet. Raises KeyError for a name that does not exist."""
    return {"mlp": mlp, "image": image, "magika": magika}[name]()
