"""Declared padding: unlike shapes share a bundle, and every answer is as if the request had gone alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.control.v1 import control_pb2
from headrace.runner.v1 import runner_pb2
from headrace_router.bundles import encode_bundle, split_outputs
from headrace_router.core.batching import Bundle, group_of
from headrace_router.core.padding import DTYPES, padded_parts
from headrace_router.core.waiting import Waiting
from headrace_router.domain import Batching, RevisionEntry, TensorData, TensorSpec
from tests.router.conftest import ENTRY

Make = Callable[..., Waiting]
FREE = (-1, -1, -1)


@pytest.fixture(scope="module")
def engine() -> ort.InferenceSession:
    """x [n, h, w] with a mask that is 0 where x is nothing: the sum of what counts, and x doubled."""
    kinds = onnx.TensorProto
    value, helper = onnx.helper.make_tensor_value_info, onnx.helper
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axes"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "x"], ["doubled"]),
    ]
    shape = ["n", "h", "w"]
    graph = helper.make_graph(
        nodes,
        "masked",
        [value("x", kinds.FLOAT, shape), value("mask", kinds.FLOAT, shape)],
        [value("total", kinds.FLOAT, ["n"]), value("doubled", kinds.FLOAT, shape)],
        [helper.make_tensor("axes", kinds.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def declared(entry: RevisionEntry) -> RevisionEntry:
    """What the engine is, with x padded by a value that the mask hides."""
    return replace(
        entry,
        inputs=(TensorSpec("x", "FP32", FREE), TensorSpec("mask", "FP32", FREE)),
        outputs=(TensorSpec("total", "FP32", (-1,)), TensorSpec("doubled", "FP32", FREE)),
        batching=Batching(padding=(("mask", 0.0), ("x", 7.0))),
    )


@pytest.fixture
def padded(entry: RevisionEntry) -> RevisionEntry:
    return declared(entry)


def request_of(make_waiting: Make, entry: RevisionEntry, x: np.ndarray) -> Waiting:
    item = make_waiting(rows=x.shape[0], entry=entry)
    ones = np.ones_like(x)
    item.request.inputs[:] = [
        TensorData(name, "FP32", x.shape, array.tobytes()) for name, array in (("x", x), ("mask", ones))
    ]
    item.group = group_of(item.request, dict(entry.batching.padding))
    return item


def execute(engine: ort.InferenceSession, items: list[Waiting], entry: RevisionEntry) -> list[list[TensorData]]:
    """As router and runner together."""
    bundle = Bundle(items, sum(item.rows for item in items), (), float("inf"))
    message = runner_pb2.ExecuteRequest.FromString(encode_bundle(1, bundle, entry, 0.0).message).bundle
    inputs = {each.name: np.frombuffer(each.data, "<f4").reshape(tuple(each.shape)) for each in message.inputs}
    names = ["total", "doubled"]
    outputs = [
        runner_pb2.Tensor(name=name, datatype="FP32", shape=array.shape, data=array.tobytes())
        for name, array in zip(names, engine.run(names, inputs), strict=True)
    ]
    return split_outputs(outputs, bundle, entry)


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_padded_bundles_answer_as_each_request_alone(
    engine: ort.InferenceSession, make_waiting: Make, shapes: list[tuple[int, ...]], seed: int
) -> None:
    padded = declared(ENTRY)
    random = np.random.default_rng(seed)
    items = [request_of(make_waiting, padded, random.normal(size=shape).astype("<f4")) for shape in shapes]
    together = execute(engine, items, padded)
    for item, answer in zip(items, together, strict=True):
        [alone] = execute(engine, [item], replace(padded, batching=Batching()))
        for ours, reference in zip(answer, alone, strict=True):
            assert (ours.name, ours.shape) == (reference.name, reference.shape)
            got, expected = (np.frombuffer(each.data, "<f4") for each in (ours, reference))
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_padding_is_less_than_what_is_real_along_each_dimension(make_waiting: Make, padded: RevisionEntry) -> None:
    items = {width: request_of(make_waiting, padded, np.zeros((1, 4, width), "<f4")) for width in (1, 2, 3, 4, 5, 8, 9)}
    groups = {width: item.group for width, item in items.items()}
    assert groups[3] == groups[4]
    assert groups[5] == groups[8]
    assert len(set(groups.values())) == 5
    exact = request_of(make_waiting, replace(padded, batching=Batching()), np.zeros((1, 4, 3), "<f4"))
    assert exact.group != groups[3]


def test_what_has_the_largest_shape_is_not_copied(make_waiting: Make, padded: RevisionEntry) -> None:
    items = [request_of(make_waiting, padded, np.zeros((1, *shape), "<f4")) for shape in ((2, 3), (2, 4))]
    rest, parts = padded_parts(items, 0, dict(padded.batching.padding))
    assert rest == (2, 4)
    assert parts[1] is items[1].request.inputs[0].data
    assert np.frombuffer(parts[0], "<f4").reshape(2, 4)[:, 3].tolist() == [7.0, 7.0]


@pytest.mark.parametrize("datatype", sorted(DTYPES))
def test_every_datatype_can_be_padded(make_waiting: Make, padded: RevisionEntry, datatype: str) -> None:
    entry = replace(padded, batching=Batching(padding=(("x", 1.0),)))
    kind = np.dtype(DTYPES[datatype])
    items = [make_waiting(entry=entry) for _ in range(2)]
    for item, width in zip(items, (1, 2), strict=True):
        item.request.inputs[:] = [TensorData("x", datatype, (1, width), np.zeros(width, kind).tobytes())]
    _, parts = padded_parts(items, 0, dict(entry.batching.padding))
    one = 0x3F80 if datatype == "BF16" else 1
    assert np.frombuffer(parts[0], kind).tolist() == [0, one]


async def test_unlike_shapes_share_a_bundle_where_the_model_says_so(
    start_bench: Callable[..., Awaitable[Any]],
) -> None:
    bench = await start_bench(model={"batching": control_pb2.BatchingPolicy(pad={"x": -1.0})})
    entry = control_pb2.ModelEntry()
    entry.CopyFrom(bench.control.full.models[0])
    signature = entry.revisions[0].signature
    signature.inputs[0].shape[1] = signature.outputs[0].shape[1] = -1
    bench.control.send(models=[entry])
    runner = await bench.add_runner("r1")

    async def infer(width: int) -> None:
        request = bench.request()
        request.inputs[0].shape = (1, width)
        request.inputs[0].data = np.full(width, width, "<f4").tobytes()
        [answer] = (await bench.plane.infer(request)).outputs
        assert answer.shape == (1, width)
        assert np.frombuffer(answer.data, "<f4").tolist() == [width] * width

    await asyncio.gather(*(infer(3 + n % 2) for n in range(8)))
    [bundle] = runner.bundles
    assert list(bundle.inputs[0].shape) == [8, 4]
    assert sorted(np.frombuffer(bundle.inputs[0].data, "<f4").reshape(8, 4)[:, 3].tolist()) == [-1.0] * 4 + [4.0] * 4
