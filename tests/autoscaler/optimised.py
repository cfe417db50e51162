"""What `headrace optimize` says, made by its own code from numbers that are worked with by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace_runner.optimizer.core.choice import Candidate, Demand, Timing, choose
from headrace_runner.optimizer.results import Making, Result

_ORT, _BOTH, _TRT = ("onnxruntime",), ("onnxruntime", "tensorrt"), ("tensorrt",)
ENGINES = {"original": _ORT, "fp16": _BOTH, "int8": _ORT, "int4": _ORT, "int8-symmetric": _TRT}


def document() -> dict[str, Any]:
    """100 a second one by one and 200 in batches of 8 by the original; int8: twice that; int4: eight times, wrongly."""
    candidates = [
        candidate("original", 1000, 10_000, 40_000),
        candidate("fp16", 1000, 10_000, 40_000),
        candidate("int8", 995, 5_000, 20_000),
        candidate("int4", 900, 1_250, 5_000),
        candidate("int8-symmetric", 998, 5_000, 20_000),
        Candidate("pruned-50", 1, 0, 0, (), "it gave NaN"),
    ]
    demand = Demand(0.98, None, "agreement")
    makings = {each.name: Making("int8", "", ENGINES.get(each.name, _ORT)) for each in candidates}
    samples = {"calibrating": 256, "measuring": 1000, "repeated": 0}
    machine = {"date": "2026-01-01", "cpu": "a processor", "engine": "onnxruntime 1.31.1", "threads": 1}
    result = Result("files/ocr.onnx", "ab" * 32, demand, choose(candidates, demand), makings, samples, machine)
    found: dict[str, Any] = json.loads(json.dumps(result.plain()))
    return found


def candidate(name: str, right: int, single_us: int, eight_us: int) -> Candidate:
    timings = tuple(Timing(rows, us / 1e6, us / 1e6) for rows, us in ((1, single_us), (8, eight_us)))
    return Candidate(name, 1000, right, 1000, timings)


def saved(folder: Path, found: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(document() if found is None else found))
    return folder
