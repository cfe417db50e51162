"""Stateful models: what a deploy says of state, held against the model, hidden from clients and told to routers."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import grpc
import pytest
from onnx import TensorProto, helper

from headrace.v1 import models_pb2
from headrace_autoscaler.control.messages import model_entry
from headrace_autoscaler.control.sequence_rules import sequence_rules
from headrace_autoscaler.domain import Sequences, SequenceSignal, Signature, StateTensor, TensorSpec
from headrace_autoscaler.repository import parse_config, settings_of
from headrace_autoscaler.sequences import MAX_STATE_BYTES, public_signature, sequence_mistakes
from headrace_autoscaler.store.documents import REVISION
from tests.autoscaler_api.test_optimize import ROWS, Optimized, finds, npz

SIGNATURE = Signature(
    inputs=(
        TensorSpec("x", "FP32", (-1, 3)),
        TensorSpec("s", "FP32", (-1, 3)),
        TensorSpec("free", "FP32", (-1, -1)),
        TensorSpec("half", "FP16", (-1, 3)),
        TensorSpec("text", "BYTES", (-1, 3)),
        TensorSpec("wide", "FP32", (-1, 4)),
        TensorSpec("go", "INT32", (-1, 1)),
        TensorSpec("pair", "INT32", (-1, 2)),
        TensorSpec("huge", "FP32", (-1, 1 << 23)),
    ),
    outputs=(
        TensorSpec("y", "FP32", (-1, 3)),
        TensorSpec("s_out", "FP32", (-1, 3)),
        TensorSpec("free_out", "FP32", (-1, -1)),
        TensorSpec("text_out", "BYTES", (-1, 3)),
        TensorSpec("huge_out", "FP32", (-1, 1 << 23)),
    ),
    batchable=True,
)
START = SequenceSignal("go", "start", "INT32", struct.pack("<i", 0), struct.pack("<i", 1))
MOST = f"expected at most {MAX_STATE_BYTES}"


def state(into: str = "s", out: str = "s_out", **more: Any) -> Sequences:
    return Sequences((StateTensor(into, out, **more),))


@pytest.mark.parametrize(
    ("sequences", "mistake"),
    [
        (None, ""),
        (state(), ""),
        (state(datatype="FP32", dims=(3,), initial=bytes(12)), ""),
        (state("z"), "the model has no input 'z'; there are: free, go"),
        (state(out="z"), "the model has no output 'z'; there are: free_out, huge_out, s_out"),
        (state("half"), "state 's_out' -> 'half': the output is FP32, the input FP16; expected the same"),
        (state("wide"), "the output's shape is [1, 3], the input's [1, 4]; expected the same"),
        (state("free", "free_out"), "its input has shape [1, -1]; expected fixed sizes besides the batch (a model"),
        (state("text", "text_out"), "BYTES has no fixed size; expected numbers"),
        (state(datatype="FP16"), "expected FP16, as declared; the model has FP32"),
        (state(dims=(4,)), "expected shape [1, 4], as declared; the model has [1, 3]"),
        (state(dims=(-1,)), "its declaration has shape [1, -1]; expected fixed sizes"),
        (state(dims=(1, 3), dims_hold_batch=True), ""),
        (state(dims=(-1, 3), dims_hold_batch=True), ""),
        (state(dims=(3,), dims_hold_batch=True), "expected shape [3], as declared; the model has [1, 3]"),
        (state(dims=(2, 3), dims_hold_batch=True), "expected shape [2, 3], as declared; the model has [1, 3]"),
        (state(initial=bytes(8), initial_file="f"), "initial state takes 12 bytes, FP32 of shape [1, 3]; 'f' has 8"),
        (state("huge", "huge_out"), f"the state of one sequence takes {1 << 25} bytes; {MOST}"),
        (Sequences((StateTensor("s", "s_out"), StateTensor("s", "y"))), "input 's' is named twice"),
        (Sequences((StateTensor("s", "y"), StateTensor("x", "y"))), "output 'y' is named twice"),
        (replace(state(), signals=(START,)), ""),
        (replace(state(), signals=(replace(START, input="z"),)), "the model has no input 'z'"),
        (replace(state(), signals=(replace(START, datatype="FP32"),)), "'go': expected FP32, as declared"),
        (replace(state(), signals=(replace(START, input="pair"),)), "'pair': expected one element; the model has"),
    ],
    ids=[
        "not stateful", "right", "right, and all declared", "no such input", "no such output", "other datatypes",
        "other shapes", "a free dimension", "texts", "another datatype declared", "another shape declared",
        "a free shape declared", "one row declared", "any rows declared", "rows left out", "two rows declared",
        "an initial state of another size", "too large", "an input twice", "an output twice",
        "a control input", "no such control input", "a control input of another datatype", "a control input of two",
    ],
)  # fmt: skip
def test_what_is_declared_is_held_against_the_model(sequences: Sequences | None, mistake: str) -> None:
    found = sequence_mistakes(sequences, SIGNATURE)
    assert len(found) == bool(mistake)
    assert mistake in "".join(found)


def test_a_model_without_a_batch_keeps_its_whole_shape() -> None:
    alone = replace(SIGNATURE, inputs=(TensorSpec("s", "FP32", (2, 3)),), outputs=(TensorSpec("t", "FP32", (2, 3)),))
    alone = replace(alone, batchable=False)
    assert sequence_mistakes(state("s", "t", dims=(2, 3)), alone) == ()
    [told] = sequence_rules(state("s", "t"), alone).states
    assert (list(told.shape), told.size_bytes, told.initial) == ([2, 3], 24, b"")


def test_clients_do_not_see_what_routers_add_and_take_out() -> None:
    shown = public_signature(SIGNATURE, replace(state(), signals=(START,)))
    assert {"s", "go"}.isdisjoint(tensor.name for tensor in shown.inputs)
    assert "s_out" not in {tensor.name for tensor in shown.outputs}
    assert len(shown.inputs) == len(SIGNATURE.inputs) - 2
    assert public_signature(SIGNATURE, None) is SIGNATURE


def test_config_pbtxt_says_the_same_in_tritons_words() -> None:
    text = b"""
      max_batch_size: 8
      sequence_batching {
        max_sequence_idle_microseconds: 5000000
        oldest { preferred_batch_size: 4 max_queue_delay_microseconds: 100 }
        control_input { name: "go" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } }
        control_input { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
        state { input_name: "s" output_name: "s_out" data_type: TYPE_FP32 dims: 3
                initial_state { data_type: TYPE_FP32 dims: 3 data_file: "begin" name: "begin" } }
      }
    """
    found = settings_of(parse_config(text), "m")
    assert found.sequences == Sequences(
        (StateTensor("s", "s_out", "FP32", (3,), "begin"),), (START, SequenceSignal("id", "id", "UINT64")), 5.0
    )
    assert (found.batching.preferred_batch_sizes, found.batching.max_queue_delay_us) == ((4,), 100)


# --- deploys ---


def counter(free: bool = False, name: str = "counter") -> bytes:
    """y and s_out are x and s together."""
    shape: list[Any] = ["batch", "width" if free else 3]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "s", "y", "s_out")]
    nodes = [helper.make_node("Add", ["x", "s"], ["y"]), helper.make_node("Identity", ["y"], ["s_out"])]
    graph = helper.make_graph(nodes, name, tensors[:2], tensors[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return bytes(model.SerializeToString())


async def test_a_bare_file_becomes_stateful_by_its_deploy(api: Any) -> None:
    model = await api.deploy("m", {"m.onnx": counter()}, states={"s_out": "s"}, sequence_idle={"seconds": 5})
    assert dict(model.spec.states) == {"s_out": "s"}
    [version] = model.versions
    assert [tensor.name for tensor in version.signature.inputs] == ["x"]
    assert [tensor.name for tensor in version.signature.outputs] == ["y"]
    [revision] = model_entry(api.catalogue.model("m"), {}, 1).revisions
    assert [tensor.name for tensor in revision.signature.inputs] == ["x"]
    [told] = revision.sequences.states
    assert (told.input, told.output, told.datatype, list(told.shape), told.size_bytes) == (
        "s", "s_out", "FP32", [1, 3], 12
    )  # fmt: skip
    assert revision.sequences.max_idle_us == 5_000_000
    again = await api.deploy("m", {"m.onnx": counter()}, states={"s_out": "s"}, sequence_idle={"seconds": 5})
    assert [each.revision for each in again.versions] == [1]
    plain = await api.deploy("m", {"m.onnx": counter()})
    assert [tensor.name for tensor in plain.versions[-1].signature.inputs] == ["x", "s"]


CONFIG = b"""
  max_batch_size: 4
  input { name: "x" data_type: TYPE_FP32 dims: 3 }
  output { name: "y" data_type: TYPE_FP32 dims: 3 }
  sequence_batching {
    state { input_name: "s" output_name: "s_out" data_type: TYPE_FP32 dims: 3
            initial_state { data_type: TYPE_FP32 dims: 3 data_file: "begin" name: "begin" } }
  }
"""


async def test_a_sequence_may_be_idle_for_as_long_as_the_format_can_say(api: Any) -> None:
    config = CONFIG.replace(b"{\n", b"{ max_sequence_idle_microseconds: 18446744073709551615\n", 1)
    await api.deploy("m", {"1/model.onnx": counter(), "config.pbtxt": config, "initial_state/begin": bytes(12)})
    [revision] = model_entry(api.catalogue.model("m"), {}, 1).revisions
    assert revision.sequences.max_idle_us == 2**63


async def test_a_repository_without_batches_says_the_state_with_its_rows(api: Any) -> None:
    config = CONFIG.replace(b"max_batch_size: 4", b"max_batch_size: 0").replace(b"dims: 3", b"dims: [1, 3]")
    await api.deploy("m", {"1/model.onnx": counter(), "config.pbtxt": config, "initial_state/begin": bytes(12)})
    [revision] = model_entry(api.catalogue.model("m"), {}, 1).revisions
    assert list(revision.sequences.states[0].shape) == [1, 3]


async def test_a_repository_becomes_stateful_by_its_configuration_and_begins_as_its_file_says(api: Any) -> None:
    begin = struct.pack("<3f", 1, 2, 3)
    files = {"1/model.onnx": counter(), "config.pbtxt": CONFIG, "initial_state/begin": begin}
    await api.deploy("m", files)
    [revision] = model_entry(api.catalogue.model("m"), {}, 1).revisions
    assert revision.sequences.states[0].initial == begin
    assert revision.sequences.max_idle_us == 60_000_000
    kept = api.catalogue.model("m").revisions[0]
    assert REVISION.load(REVISION.dump(kept)) == kept, "it outlives a restart"


@pytest.mark.parametrize("folder", ["1/", ""], ids=["a repository", "one file"])
async def test_a_variant_of_a_stateful_model_begins_as_its_original_does(api: Any, folder: str) -> None:
    begin = struct.pack("<3f", 1, 2, 3)
    await api.deploy("m", {f"{folder}model.onnx": counter(), "config.pbtxt": CONFIG, "initial_state/begin": begin})
    api.optimizer.answers = [finds(counter(name="int8"))]
    api.optimizer.gate.set()
    optimized = Optimized(api)
    await optimized.start(samples=npz(x=ROWS, s=ROWS))
    listed = await optimized.until(models_pb2.JOB_STATE_DONE)
    assert [each.name for each in listed.variants if each.serves] == ["int8"]
    serving = next(each for each in model_entry(api.catalogue.model("m"), {}, 1).revisions if each.current)
    assert serving.sequences.states[0].initial == begin


@pytest.mark.parametrize(
    ("files", "spec", "said"),
    [
        ({"m.onnx": counter()}, {"states": {"s_out": "z"}}, "states: the model has no input 'z'; there are: s, x"),
        (
            {"m.onnx": counter(free=True)},
            {"states": {"s_out": "s"}},
            "its input has shape [1, -1]; expected fixed sizes",
        ),
        (
            {"m.onnx": counter()},
            {"sequence_idle": {"seconds": 1}},
            "sequence_idle: the model is not stateful; expected",
        ),
        (
            {"m.onnx": counter()},
            {"states": {"s_out": "s"}, "response_cache": True},
            "response_cache: the model is stateful, so equal requests have unlike answers",
        ),
        (
            {"1/model.onnx": counter(), "config.pbtxt": CONFIG, "initial_state/begin": bytes(12)},
            {"states": {"s_out": "s"}},
            "states: config.pbtxt has sequence_batching already; expected one of the two",
        ),
        (
            {"1/model.onnx": counter(), "config.pbtxt": CONFIG},
            {},
            "config.pbtxt: state 's' begins as initial_state/begin says, and there is no such file",
        ),
        (
            {"1/model.onnx": counter(), "config.pbtxt": CONFIG, "initial_state/begin": bytes(8)},
            {},
            "states: state 's': its initial state takes 12 bytes, FP32 of shape [1, 3]; 'begin' has 8",
        ),
    ],
    ids=["no such tensor", "free dimension", "idle alone", "cache", "said twice", "no file", "file of another size"],
)
async def test_a_wrong_declaration_fails_the_deploy(
    api: Any, files: dict[str, bytes], spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.deploy("m", files, **spec)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in str(refused.value.details())
