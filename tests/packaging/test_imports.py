"""headrace imports beside the other packages that ship Open Inference stubs, in either order."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

OURS = "from headrace.oip import inference_pb2, inference_pb2_grpc"
THEIRS = {
    "tritonclient": "import tritonclient.grpc, tritonclient.grpc.aio",
    "kserve": "from kserve.protocol.grpc import grpc_predict_v2_pb2, grpc_predict_v2_pb2_grpc",
}
PROBE = """
request = inference_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"x"])
assert inference_pb2.ModelInferRequest.FromString(request.SerializeToString()) == request
"""
CASES = [
    pytest.param(order, id=f"{name}-{'ours-first' if order[0] is OURS else 'theirs-first'}")
    for name, theirs in THEIRS.items()
    for order in itertools.permutations((OURS, theirs))
]


@pytest.mark.parametrize("order", CASES)
def test_imports_in_a_fresh_process(order: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(order) + PROBE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_headrace_is_light() -> None:
    code = "import sys, headrace; print(sorted({'grpc', 'numpy', 'onnxruntime', 'sqlalchemy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_both_wire_formats_agree() -> None:
    """Our stubs and tritonclient's read each other's bytes."""
    code = """
import tritonclient.grpc.service_pb2 as theirs
from headrace.oip import inference_pb2 as ours
a = theirs.ModelInferRequest(model_name="m", model_version="1", id="7")
tensor = a.inputs.add(name="x", datatype="FP32", shape=[1, 2])
tensor.contents.fp32_contents.extend([1.0, 2.0])
tensor.parameters["p"].string_param = "v"
a.outputs.add(name="y").parameters["binary_data"].bool_param = True
a.parameters["timeout"].int64_param = 5
b = ours.ModelInferRequest.FromString(a.SerializeToString())
assert str(b) == str(a), (str(a), str(b))
for name in theirs.DESCRIPTOR.message_types_by_name:
    if "SharedMemory" in name or name.startswith(("TraceSetting", "LogSettings")):
        continue
    mine = ours.DESCRIPTOR.message_types_by_name[name]
    wire = lambda m: [(f.name, f.number, f.type) for f in m.fields]
    assert wire(mine) == wire(theirs.DESCRIPTOR.message_types_by_name[name]), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
