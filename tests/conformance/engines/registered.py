"""The kits of all engines. New engines are added here."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from headrace_runner.engines.fake import CRASH_STATUS
from tests.conformance.engines import onnx_models
from tests.conformance.engines.kits import CRASH, DATATYPES, ENGINES, HANG, HOG, Kit, Tensors


def fake_identity(inputs: Tensors, outputs: Tensors, /, **changes: Any) -> bytes:
    def specs(tensors: Tensors) -> list[dict[str, Any]]:
        return [
            {"name": name, "datatype": kind, "shape": [dim if isinstance(dim, int) else -1 for dim in shape]}
            for name, kind, shape in tensors
        ]

    return json.dumps({"inputs": specs(inputs), "outputs": specs(outputs)} | changes).encode()


def fake_trouble(**changes: Any) -> bytes:
    return fake_identity([("x", "FP32", ["N", 2])], [("y", "FP32", ["N", 2])], **changes)


ONNXRUNTIME = Kit(
    "onnxruntime",
    "model.onnx",
    onnx_models.identity,
    b"garbage",
    "onnxruntime cannot load model.onnx: ",
    doubled=onnx_models.doubled,
    doubles=DATATYPES - {"BF16", "BOOL", "BYTES"},
    dense=onnx_models.dense,
    sized=onnx_models.sized,
    weights=onnx_models.holding,
    troubles=onnx_models.TROUBLES,
    crash_status=-signal.SIGFPE,
)
FAKE = Kit(
    "fake",
    "model.fake.json",
    fake_identity,
    b"{",
    "fake cannot load model.fake.json: ",
    troubles={
        CRASH: lambda: fake_trouble(crash_on=CRASH),
        HANG: lambda: fake_trouble(hang_on=HANG),
        HOG: lambda: fake_trouble(leak_on=HOG, leak_bytes=8 << 30),
    },
    crash_status=CRASH_STATUS,
)
KITS = [ONNXRUNTIME, FAKE]
if "torch" in ENGINES:
    # Its models are made by torch itself.
    from tests.conformance.engines.torch_kit import TORCH

    KITS.append(TORCH)


def each(kits: list[Kit]) -> pytest.MarkDecorator:
    """Runs a test once for each kit."""
    return pytest.mark.parametrize("kit", kits, ids=[kit.engine for kit in kits])
