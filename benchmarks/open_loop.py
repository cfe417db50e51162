"""Runs the generator in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.generator.schedule import Outcome, Plan
from benchmarks.paths import ROOT

_MARGIN_S = 60.0


def offer(
    url: str, body: bytes, headers: Mapping[str, str], http2: bool, plan: Plan, limit_s: float | None = None
) -> Outcome:
    """Offers load at a fixed rate. Raises CalledProcessError where the generator fails."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        content, order = Path(folder) / "body", Path(folder) / "order.json"
        content.write_bytes(body)
        order.write_text(
            json.dumps(
                {
                    "url": url,
                    "body": str(content),
                    "headers": dict(headers),
                    "http2": http2,
                    "rate": plan.rate,
                    "warm_up_s": plan.warm_up_s,
                    "seconds": plan.seconds,
                    "limit_s": limit_s,
                }
            )
        )
        printed = subprocess.run(
            [sys.executable, "-m", "benchmarks.generator", str(order)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=plan.warm_up_s + plan.seconds + _MARGIN_S,
        ).stdout
    return Outcome(**json.loads(printed))
