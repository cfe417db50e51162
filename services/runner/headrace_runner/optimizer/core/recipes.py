"""Which variants to try, for which precisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

PRECISIONS = ("fp32", "fp16", "int8", "int4")
ORIGINAL = "original"


class Method(StrEnum):
    CLEAN = "clean"
    CAST = "cast"
    STATIC = "static"
    DYNAMIC = "dynamic"
    BLOCKS = "blocks"
    PRUNE = "prune"


class Calibration(StrEnum):
    """How the range of an activation follows from the values that it took on the calibration samples."""

    MIN_MAX = "minmax"
    PERCENTILE = "percentile"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make one variant.

    Attributes:
        name: of the variant, and of its file.
        precision: what its weights are held in.
        method: of which library's making it is.
        what: in words, for the report.
        calibration: of static quantisation.
        keeps_edges: the first and the last layer with weights stay in floating point.
        symmetric: activations are signed, with zero at 0, and biases stay in floating point.
        pruned: share of each layer's weights that becomes zero.
    """

    name: str
    precision: str
    method: Method
    what: str
    calibration: Calibration | None = None
    keeps_edges: bool = False
    symmetric: bool = False
    pruned: float = 0.0

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that can run it. TensorRT parses neither dynamic quantisation nor int4 blocks, and wants int8
        activations symmetric.
        """
        portable = self.symmetric or self.method in (Method.CLEAN, Method.CAST, Method.PRUNE)
        return ("onnxruntime", "tensorrt") if portable else ("onnxruntime",)


_KNOWN = (
    Recipe("fp32", "fp32", Method.CLEAN, "cleaned up, constants folded"),
    Recipe("fp16", "fp16", Method.CAST, "computed in fp16, inputs and outputs as before"),
    Recipe("int8-static", "int8", Method.STATIC, "QDQ, ranges by minimum and maximum", Calibration.MIN_MAX),
    Recipe("int8-percentile", "int8", Method.STATIC, "QDQ, ranges by percentile", Calibration.PERCENTILE),
    Recipe(
        "int8-edges",
        "int8",
        Method.STATIC,
        "as int8-percentile, first and last layer in fp32",
        Calibration.PERCENTILE,
        keeps_edges=True,
    ),
    Recipe(
        "int8-symmetric",
        "int8",
        Method.STATIC,
        "as int8-percentile, symmetric activations and float biases, as TensorRT wants them",
        Calibration.PERCENTILE,
        symmetric=True,
    ),
    Recipe("int8-dynamic", "int8", Method.DYNAMIC, "activations quantised as they come"),
    Recipe("int4", "int4", Method.BLOCKS, "weights of MatMul in blocks of 32, computed in fp32"),
)


def plan(precisions: Sequence[str], pruned: Sequence[float]) -> tuple[Recipe, ...]:
    """The recipes for these precisions, and one for each share to prune, in the order of `PRECISIONS`.

    Args:
        precisions: of `PRECISIONS`.
        pruned: each above 0 and below 1.
    """
    wanted = tuple(recipe for recipe in _KNOWN if recipe.precision in precisions)
    return wanted + tuple(_pruned(share) for share in sorted(set(pruned)))


def _pruned(share: float) -> Recipe:
    name, what = f"pruned-{share * 100:g}", f"the smallest {share:.0%} of each layer's weights zero, in fp32"
    return Recipe(name, "fp32", Method.PRUNE, what, pruned=share)
