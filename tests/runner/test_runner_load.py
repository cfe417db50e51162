"""What a load accepts, what it refuses and what it finds out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.runner.v1 import runner_pb2 as pb
from headrace_common.clock import SystemClock
from headrace_common.errors import InvalidArgument
from headrace_runner.core.signature import Signature, TensorSpec
from headrace_runner.domain import Loaded, LoadPlan, ModelFile, RawTensor, WarmupSample
from headrace_runner.engines.registry import import_engines
from headrace_runner.loading import load
from tests.runner.harness import (
    RunnerProcess,
    attach,
    bundle,
    fake_model,
    granted,
    load_request,
    model_files,
)

Refused = Callable[[Any], Any]
FLOAT = TensorProto.FLOAT
ENGINES = import_engines(allow_fake=True)


def plan(directory: Path, entry_point: str, *others: str, **changes: Any) -> LoadPlan:
    files = tuple(
        ModelFile(path, hashlib.sha256((directory / path).read_bytes()).hexdigest(), (directory / path).stat().st_size)
        for path in (entry_point, *others)
    )
    engine = "fake" if entry_point.endswith(".fake.json") else "onnxruntime"
    return replace(LoadPlan(directory, files, entry_point, engine), **changes)


def loaded(made: LoadPlan) -> Loaded:
    return load(made, ENGINES, SystemClock())


def save(
    directory: Path,
    node: onnx.NodeProto | list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: list[TensorProto] | None = None,
) -> str:
    def values(tensors: dict[str, tuple[int, list[Any]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]

    nodes = node if isinstance(node, list) else [node]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    return "model.onnx"


def unary(directory: Path, op: str, shape: list[Any], out: list[Any], **attributes: Any) -> str:
    node = helper.make_node(op, ["x"], ["y"], **attributes)
    return save(directory, node, {"x": (FLOAT, shape)}, {"y": (FLOAT, out)})


def with_external_weights(directory: Path, location: str, file: str | None = None) -> str:
    """y = x + w, where w [3] is in another file."""
    weight = numpy_helper.from_array(np.arange(3, dtype=np.float32), "w")
    (directory / (file or location)).write_bytes(weight.raw_data)
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return save(directory, node, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}, [weight])


BATCHABLE = [
    pytest.param("Relu", ["N", 3], ["M", 3], {}, id="dimensions of different names"),
    pytest.param("Softmax", ["N", "T"], ["N", "T"], {"axis": 1}, id="other dimensions of any size"),
    pytest.param("Log", [None, 3], [None, 3], {}, id="dimensions without names"),
]
COUPLED = [
    pytest.param("Softmax", ["N", 3], ["N", 3], {"axis": 0}, "together differs", id="softmax over the batch"),
    pytest.param("CumSum", ["N", 3], ["N", 3], {}, "together differs", id="a running sum over the batch"),
    pytest.param("Transpose", ["N", "M"], ["M", "N"], {}, "does not have a row for each", id="a transposed batch"),
]


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        pytest.param(["N", 1 << 62], "input 'x' is declared larger than any memory", id="beyond any address"),
        pytest.param([1 << 62], "input 'x' is declared larger than any memory", id="not batchable"),
        pytest.param(["N", 1 << 31, 1 << 31], "input 'x' is declared larger than any memory", id="in two dimensions"),
        pytest.param(["N", 1 << 39], "do not fit its memory: deploy it with more", id="beyond this machine"),
        pytest.param(["N", *[1] * 40], "input 'x' has 41 dimensions; at most 32", id="many dimensions"),
    ],
)
def test_a_tensor_that_no_memory_holds_is_refused(models: Path, shape: list[Any], reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        loaded(plan(models, unary(models, "Identity", shape, shape)))


@pytest.mark.parametrize(("op", "shape", "out", "attributes"), BATCHABLE)
def test_independent_rows_make_a_batch(
    models: Path, op: str, shape: list[Any], out: list[Any], attributes: dict[str, Any]
) -> None:
    found = loaded(plan(models, unary(models, op, shape, out, **attributes)))
    assert found.signature.batchable
    assert found.max_batch_size == 64
    assert found.batching.startswith("batchable: ")
    assert found.signature.inputs[0].shape == (-1, shape[1] if shape[1] == 3 else -1)
    assert sorted(found.profile_us) == [1, 64]


@pytest.mark.parametrize(("op", "shape", "out", "attributes", "reason"), COUPLED)
def test_coupled_rows_do_not(
    models: Path, op: str, shape: list[Any], out: list[Any], attributes: dict[str, Any], reason: str
) -> None:
    inputs, weights = ["x"], []
    if op == "CumSum":
        inputs, weights = ["x", "axis"], [numpy_helper.from_array(np.array(0), "axis")]
    node = helper.make_node(op, inputs, ["y"], **attributes)
    entry = save(models, node, {"x": (FLOAT, shape)}, {"y": (FLOAT, out)}, weights)
    found = loaded(plan(models, entry))
    assert not found.signature.batchable
    assert found.max_batch_size == 1
    assert found.batching.startswith("not batchable: ")
    assert reason in found.batching
    with pytest.raises(InvalidArgument, match=r"max_batch_size 8 is impossible: not batchable"):
        loaded(plan(models, entry, max_batch_size=8))


def test_a_fixed_first_dimension_is_named(models: Path) -> None:
    found = loaded(plan(models, unary(models, "Relu", [1, 3], [1, 3])))
    assert found.batching == "not batchable: the first dimension of input 'x' is fixed at 1"
    assert found.signature.inputs[0].shape == (1, 3)
    assert (found.max_batch_size, sorted(found.profile_us)) == (1, [1])


@pytest.mark.parametrize("vocabulary", [300, 2, 1])
def test_indices_stay_inside_a_small_vocabulary(models: Path, vocabulary: int) -> None:
    """Integers of the probe are small, and smaller still where the engine refuses them."""
    table = numpy_helper.from_array(np.random.default_rng(0).random((vocabulary, 4), np.float32), "table")
    node = helper.make_node("Gather", ["table", "ids"], ["y"])
    entry = save(models, node, {"ids": (TensorProto.INT64, ["N", "T"])}, {"y": (FLOAT, ["N", "T", 4])}, [table])
    found = loaded(plan(models, entry))
    assert found.signature.batchable
    assert ("tried with zeros" in found.batching) == (vocabulary == 1)


def test_a_model_that_always_fails_loads_and_says_why_it_has_no_batches(models: Path) -> None:
    fake_model(models, behaviour="fail")
    found = loaded(plan(models, "echo.fake.json"))
    assert found.batching == (
        "not batchable: the engine fails on a batch of two rows: the fake engine was told to fail"
    )
    assert found.profile_us == {}


def test_an_output_whose_rank_the_file_leaves_open_is_learnt_from_a_run(models: Path) -> None:
    entry = save(models, helper.make_node("Relu", ["x"], ["y"]), {"x": (FLOAT, ["N", 3])}, {})
    model = onnx.load(models / entry)
    model.graph.output.append(helper.make_tensor_value_info("y", FLOAT, None))
    # The shape inference of the engine would complete it; a reshape by data defeats that.
    model.graph.node[0].output[0] = "r"
    model.graph.node.append(helper.make_node("Reshape", ["r", "s"], ["y"]))
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.INT64, ["K"]))
    onnx.save(model, models / entry)
    sample = WarmupSample(
        "flat",
        0,
        (
            RawTensor("x", "FP32", (1, 3), b"\0" * 12),
            RawTensor("s", "INT64", (1,), np.array([3]).tobytes()),
        ),
    )
    found = loaded(plan(models, entry, warmup=(sample,)))
    assert "output 'y' has no dimensions" in found.batching
    known = loaded(plan(models, entry, expected=found.signature))
    assert known.signature == found.signature


class TestKnownSignature:
    SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 3)),), batchable=True)

    def test_skips_the_probe(self, models: Path) -> None:
        """The rows are coupled, which only a probe can find out."""
        entry = unary(models, "Softmax", ["N", 3], ["N", 3], axis=0)
        found = loaded(plan(models, entry, expected=self.SIGNATURE))
        assert found.signature == self.SIGNATURE
        assert found.batching == "batchable: known from the first load"

    def test_not_batchable_stays_so(self, models: Path) -> None:
        entry = unary(models, "Relu", ["N", 3], ["N", 3])
        known = replace(self.SIGNATURE, batchable=False)
        found = loaded(plan(models, entry, expected=known))
        assert (found.max_batch_size, found.signature) == (1, known)

    @pytest.mark.parametrize(
        ("shape", "reason"),
        [
            pytest.param(["N", 4], r"input 'x' is FP32 \[-1, 4\], expected FP32 \[-1, 3\]", id="another shape"),
            pytest.param([1, 3], r"input 'x' is FP32 \[1, 3\], expected FP32 \[-1, 3\]", id="a fixed batch"),
        ],
    )
    def test_must_be_the_files(self, models: Path, shape: list[Any], reason: str) -> None:
        entry = unary(models, "Relu", shape, shape)
        with pytest.raises(InvalidArgument, match=reason):
            loaded(plan(models, entry, expected=self.SIGNATURE))


class TestWhereRequestsWait:
    KNOWN = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),), batchable=True)

    def test_nothing_is_tried_that_is_known(self, models: Path) -> None:
        fake_model(models)
        assert 1 in loaded(plan(models, "echo.fake.json", expected=self.KNOWN)).profile_us
        found = loaded(plan(models, "echo.fake.json", expected=self.KNOWN, requests_wait=True))
        assert (found.signature, found.max_batch_size, found.profile_us) == (self.KNOWN, 64, {})

    def test_the_first_load_leaves_nothing_out(self, models: Path) -> None:
        fake_model(models)
        found = loaded(plan(models, "echo.fake.json", requests_wait=True))
        assert (found.signature, 1 in found.profile_us) == (self.KNOWN, True)

    def test_the_models_own_samples_are_run(self, models: Path) -> None:
        fake_model(models, fail_on=1.0)
        sample = WarmupSample("ones", 1, (RawTensor("x", "FP32", (1, 2), np.ones(2, np.float32).tobytes()),))
        with pytest.raises(InvalidArgument, match="warm-up sample 'ones' failed"):
            loaded(plan(models, "echo.fake.json", expected=self.KNOWN, requests_wait=True, warmup=(sample,)))

    def test_files_are_verified_all_the_same(self, models: Path) -> None:
        fake_model(models)
        known = plan(models, "echo.fake.json", expected=self.KNOWN, requests_wait=True)
        with pytest.raises(InvalidArgument, match="expected sha256 0000"):
            loaded(replace(known, files=(replace(known.files[0], sha256="0" * 64),)))


class TestFiles:
    def test_external_data_among_the_files_is_loaded(self, models: Path) -> None:
        found = loaded(plan(models, with_external_weights(models, "weights.bin"), "weights.bin"))
        x = np.ones((2, 3), np.float32)
        assert found.model.run({"x": x})["y"].tolist() == [[1, 2, 3], [1, 2, 3]]

    @pytest.mark.parametrize(
        ("location", "file", "reason"),
        [
            pytest.param("weights.bin", None, "'weights.bin' is missing", id="not among the files"),
            pytest.param("../weights.bin", None, "outside the model's folder", id="above the directory"),
            pytest.param("/etc/hostname", "x.bin", "outside the model's folder", id="an absolute path"),
            pytest.param("*/_ORT_MEM_ADDR_/*", "x.bin", "tensors in memory", id="an address in memory"),
        ],
    )
    def test_other_external_data_is_refused(self, models: Path, location: str, file: str | None, reason: str) -> None:
        entry = with_external_weights(models, location, file)
        with pytest.raises(InvalidArgument, match=reason):
            loaded(plan(models, entry))

    def test_external_data_is_seen_however_its_place_is_written(self, models: Path) -> None:
        """Protobuf reads 32 bits of data_location: 1 + 2**32 is EXTERNAL too, in five bytes instead of one."""
        entry = with_external_weights(models, "w.bin")
        model = onnx.load(str(models / entry), load_external_data=False)
        weight = model.graph.initializer.pop().SerializeToString()
        assert weight.count(b"\x70\x01") == 1
        weight = weight.replace(b"\x70\x01", b"\x70\x81\x80\x80\x80\x10")
        # A graph that is there twice is merged.
        added = bytes([0x2A, len(weight)]) + weight
        (models / entry).write_bytes(model.SerializeToString() + bytes([0x3A, len(added)]) + added)
        with pytest.raises(InvalidArgument, match=r"'w\.bin' is missing"):
            loaded(plan(models, entry))

    @pytest.mark.parametrize("inside", [False, True])
    def test_what_a_provider_compiled_is_refused(self, models: Path, inside: bool) -> None:
        attributes = {"embed_mode": 0, "ep_cache_context": "/etc/hostname", "main_context": 1}
        node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", **attributes)
        if inside:
            graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", FLOAT, [1])])
            node = helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
        entry = save(models, node, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])})
        with pytest.raises(InvalidArgument, match=r"\(EPContext\), which may name files outside the model"):
            loaded(plan(models, entry))

    def test_a_model_that_only_mentions_such_an_operator_is_loaded(self, models: Path) -> None:
        node = helper.make_node("Relu", ["x"], ["y"], name="EPContext")
        assert loaded(plan(models, save(models, node, {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])})))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            pytest.param({"sha256": "0" * 64}, "expected sha256 0000", id="another digest"),
            pytest.param({"size_bytes": 1}, "expected 1 bytes, found", id="another size"),
            pytest.param({"path": "../echo.fake.json"}, "without '..'", id="a path that climbs"),
            pytest.param({"path": "/echo.fake.json"}, "inside the model's directory", id="an absolute path"),
            pytest.param({"path": "none.json"}, "cannot be read: No such file", id="no such file"),
            pytest.param({"path": "link"}, "a link that leads out", id="a link that leads out"),
        ],
    )
    def test_what_is_not_as_announced_is_refused(self, models: Path, change: dict[str, Any], reason: str) -> None:
        fake_model(models)
        (models / "link").symlink_to(models.parent / "context.json")
        good = plan(models, "echo.fake.json")
        with pytest.raises(InvalidArgument, match=reason):
            loaded(replace(good, files=(*good.files, replace(good.files[0], **change))))

    def test_the_entry_point_must_be_among_them(self, models: Path) -> None:
        fake_model(models)
        with pytest.raises(InvalidArgument, match="'other' is not among the model's files"):
            loaded(replace(plan(models, "echo.fake.json"), entry_point="other"))

    def test_a_directory_must_be_there(self, models: Path) -> None:
        fake_model(models)
        with pytest.raises(InvalidArgument, match="existing directory"):
            loaded(replace(plan(models, "echo.fake.json"), directory=models / "none"))


class TestWarmupSamples:
    def test_run_as_given(self, models: Path) -> None:
        fake_model(models)
        sample = WarmupSample("ones", 1, (RawTensor("x", "FP32", (1, 2), np.ones(2, np.float32).tobytes()),))
        assert loaded(plan(models, "echo.fake.json", warmup=(sample,))).max_batch_size == 64

    @pytest.mark.parametrize("batch", ["N", 3], ids=["batchable", "not batchable"])
    def test_need_not_name_the_state_of_a_stateful_model(self, models: Path, batch: Any) -> None:
        rows = (FLOAT, [batch, 2])
        entry = save(models, helper.make_node("Add", ["x", "s"], ["y"]), {"x": rows, "s": rows}, {"y": rows})
        sample = WarmupSample("rows", 3, (RawTensor("x", "FP32", (3, 2), bytes(24)),))
        assert loaded(plan(models, entry, warmup=(sample,))).signature.batchable is (batch == "N")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            pytest.param(np.full(2, 13, np.float32).tobytes(), "told to fail", id="the engine fails on it"),
            pytest.param(b"\0", "takes 8 bytes; 1 bytes came", id="it is cut"),
        ],
    )
    def test_that_fail_fail_the_load(self, models: Path, data: bytes, reason: str) -> None:
        fake_model(models, fail_on=13)
        sample = WarmupSample("bad", 1, (RawTensor("x", "FP32", (1, 2), data),))
        with pytest.raises(InvalidArgument, match=f"warm-up sample 'bad' failed: .*{reason}"):
            loaded(plan(models, "echo.fake.json", warmup=(sample,)))


async def gone(runner: RunnerProcess, request: pb.LoadRequest, refused: Refused) -> tuple[grpc.aio.AioRpcError, str]:
    """A load that fails: its error, and the reason of the last status. The process must end with 0."""
    router = await attach(runner)
    async with asyncio.TaskGroup() as tasks:
        end = tasks.create_task(runner.reach(pb.RUNNER_STATE_GONE))
        # The watch must be open before the runner can go.
        await runner.status()
        error = await refused(runner.stub.Load(request))
    last = end.result()
    assert (await router.receive()).draining.reason == last.reason
    await router.half_close()
    assert await runner.exit_code() == 0
    return error, last.reason


async def test_a_corrupt_model_ends_the_runner_with_the_engines_reason(
    runner: RunnerProcess, models: Path, refused: Refused
) -> None:
    (models / "model.onnx").write_bytes(b"not a model at all")
    error, reason = await gone(runner, load_request(models, "model.onnx"), refused)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (
        error.details()
        == "onnxruntime cannot load model.onnx: Load model from model.onnx failed:Protobuf parsing failed."
    )
    assert reason == f"load failed: {error.details()}"
    assert [line["reason"] for line in runner.logged() if line["event"] == "load_failed"] == [error.details()]


async def test_a_file_that_was_tampered_with_is_not_loaded(
    runner: RunnerProcess, models: Path, refused: Refused
) -> None:
    fake_model(models)
    request = load_request(models)
    path = models / "echo.fake.json"
    path.write_bytes(path.read_bytes().replace(b'"x"', b'"z"'))
    error, _ = await gone(runner, request, refused)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "model file 'echo.fake.json': expected sha256" in error.details()
    assert str(models) not in error.details()


async def test_a_model_with_external_data_serves(runner: RunnerProcess, models: Path) -> None:
    entry = with_external_weights(models, "weights.bin")
    request = load_request(models, entry, files=model_files(models, entry, "weights.bin"))
    response = await runner.stub.Load(request)
    assert response.signature.batchable
    assert response.platform == "onnxruntime_onnx"
    router = await granted(runner)
    x = pb.Tensor(name="x", datatype="FP32", shape=[2, 3], data=np.ones((2, 3), np.float32).tobytes())
    await router.send(bundle(1, rows=(1, 1), inputs=[x]))
    output = (await router.result()).outputs[0]
    assert np.frombuffer(output.data, np.float32).tolist() == [1, 2, 3, 1, 2, 3]
