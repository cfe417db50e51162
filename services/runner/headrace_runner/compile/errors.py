"""What TensorRT refuses. The text is its own, a line for each thing it said."""

from __future__ import annotations


class ParseFailed(Exception):
    """The model has something that TensorRT does not know, whatever the target."""


class BuildFailed(Exception):
    """The model is not built for this target."""
