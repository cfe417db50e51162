"""ONNX Runtime as every system here opens it: headrace's own settings for an instance of one CPU.

This file is imported in the peers' environments, by path.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import onnxruntime

MAX_BATCH = 64


@dataclass(frozen=True)
class Job:
    """What a peer's server is to serve; it comes as JSON in an environment variable."""

    name: str
    model_path: str
    input: str
    output: str
    dtype: str
    input_shape: list[int]
    port: int


def job() -> Job:
    """The job of this process."""
    return Job(**json.loads(os.environ["BENCH_JOB"]))


def open_session(path: str) -> Any:
    """One thread, sequential, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
