"""How long a planning tick takes, by the number of models."""

from benchmarks.planning.tick import measure

__all__ = ["measure"]
