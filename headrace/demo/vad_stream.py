"""How silero-vad wants its audio, and what it keeps from one chunk to the next."""

from __future__ import annotations

SAMPLE_RATE = 16_000
CHUNK = 512
"""Samples of one request: 32 ms."""
CONTEXT = 64
"""Samples of the chunk before that are put in front of one."""
STATES = {"context_out": "context", "state_out": "state"}
"""Output to input, as `headrace deploy --state` takes them."""
