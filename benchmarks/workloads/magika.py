"""A real model and real files: magika tells what kind of file a file is, here files of this repository."""

from __future__ import annotations

import shutil

import numpy as np

from benchmarks.paths import MODELS, ROOT
from benchmarks.workloads.base import Workload
from headrace.demo.magika_codec import MagikaCodec

_FILES = (
    "README.md",
    "Makefile",
    "pyproject.toml",
    "protos/headrace/v1/models.proto",
    "deploy/grafana/headrace.json",
    "services/router/headrace_router/plane.py",
    "services/router/headrace_router/envoy/router.yaml",
    "LICENSE",
)


def magika() -> Workload:
    """int32 [n, 2048] to scores of 214 kinds: 8 KB a request, about a millisecond of work."""
    codec = MagikaCodec()
    MODELS.mkdir(parents=True, exist_ok=True)
    path = MODELS / "magika.onnx"
    shutil.copyfile(codec.model_path, path)
    rows = [codec.features((ROOT / name).read_bytes()) for name in _FILES]
    usable = np.concatenate([row for row in rows if row is not None])
    return Workload("magika", path, "bytes", "target_label", usable, (214,))
