"""A mesh whose engine takes 5 ms per batch of 8, so that neither router nor generator is the limit."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import headrace
from benchmarks.mesh import Mesh, running_mesh
from benchmarks.systems.headrace import TENANT, limited
from headrace.oip import inference_pb2 as oip

MODEL = "slow"
LATENCY_MS = 5.0
BATCH = 8
_WIDTH = 64


@contextmanager
def slow_engine(
    standby: int = 0, models: Sequence[str] = (MODEL,), **deploy: Any
) -> Iterator[tuple[Mesh, headrace.Client]]:
    """Models that echo x, FP32 [n, 64]; every tenant may call them.

    Args:
        standby: runners that stand by.
        models: their names.
        deploy: of the deploy, over one instance that always runs.
    """
    tensor = {"datatype": "FP32", "shape": [-1, _WIDTH]}
    spec = {"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}], "latency_ms": LATENCY_MS}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_mesh(standby, {"runner": {"allow_fake_engine": True}}) as mesh,
        headrace.Client(mesh.url) as client,
    ):
        path = Path(folder) / "slow.fake.json"
        path.write_text(json.dumps(spec))
        client.set_tenant(limited(TENANT))
        for name in models:
            client.deploy(
                path,
                name=name,
                tenant=TENANT,
                engine="fake",
                max_batch_size=BATCH,
                shared_with=["*"],
                **{"min_instances": 1, "max_instances": 1, **deploy},
            )
        yield mesh, client


def body(model: str = MODEL) -> bytes:
    """One framed request of one row."""
    request = oip.ModelInferRequest(model_name=model, raw_input_contents=[b"\0" * 4 * _WIDTH])
    request.inputs.add(name="x", datatype="FP32", shape=(1, _WIDTH))
    message = request.SerializeToString()
    return b"\0" + struct.pack(">I", len(message)) + message
