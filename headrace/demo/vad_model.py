"""silero-vad's own ONNX file, made to fit a server of many streams.

The package's wrapper keeps two things between the chunks of one stream: the recurrent state, whose batch dimension is
the second one, and the last 64 samples of the chunk before. Here both become state tensors with the batch in front: a
Transpose around the one, a Concat and a Slice for the other. The weights and all that computes with them are the
package's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from headrace.demo.vad_stream import CHUNK, CONTEXT, SAMPLE_RATE

_OPSET = 16


def package_file() -> Path:
    """The package's model. Raises RuntimeError where silero-vad is not installed."""
    found = importlib.util.find_spec("silero_vad")
    if found is None or found.origin is None:
        raise RuntimeError(
            "silero-vad is not installed; expected `pip install --no-deps silero-vad`, for its model file"
        )
    return Path(found.origin).parent / "data" / "silero_vad.onnx"


def write_model(path: Path) -> None:
    """Writes the model for 16 kHz: audio [batch, 512] to output [batch, 1], and the states of `STATES`."""
    model = onnx.load(package_file())
    graph = model.graph
    [probability, recurrent] = [output.name for output in graph.output]
    rate = helper.make_tensor("sr", TensorProto.INT64, (), [SAMPLE_RATE])
    before = [
        helper.make_node("Concat", ["context", "audio"], ["input"], axis=1),
        helper.make_node("Transpose", ["state"], ["state_in"], perm=[1, 0, 2]),
    ]
    for node in graph.node:
        node.input[:] = ["state_in" if name == "state" else name for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, "state", "state_in")
    after = [
        helper.make_node("Transpose", [recurrent], ["state_out"], perm=[1, 0, 2]),
        helper.make_node("Slice", ["audio", "from", "to", "axis"], ["context_out"]),
    ]
    constants = [
        helper.make_tensor("from", TensorProto.INT64, (1,), [CHUNK - CONTEXT]),
        helper.make_tensor("to", TensorProto.INT64, (1,), [CHUNK]),
        helper.make_tensor("axis", TensorProto.INT64, (1,), [1]),
    ]
    context: list[int | str] = ["batch", CONTEXT]
    state: list[int | str] = ["batch", 2, 128]
    wrapped = helper.make_graph(
        [*before, *graph.node, *after],
        "silero-vad",
        [_floats("audio", ["batch", CHUNK]), _floats("context", context), _floats("state", state)],
        [_floats(probability, ["batch", 1]), _floats("context_out", context), _floats("state_out", state)],
        [*graph.initializer, rate, *constants],
    )
    onnx.save(helper.make_model(wrapped, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8), path)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """In a branch, which sees the names of what is around it."""
    if any(old in node.output for node in graph.node) or any(old == made.name for made in graph.initializer):
        return
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, old, new)


def _floats(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
