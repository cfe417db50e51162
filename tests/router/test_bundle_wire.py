"""Bundles are written by hand; here protobuf reads them. Results are cut into requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runner.v1 import runner_pb2
from headrace_router.bundles import MalformedResult, encode_bundle, split_outputs
from headrace_router.core.batching import Bundle
from headrace_router.core.waiting import Waiting
from headrace_router.domain import RevisionEntry, TensorSpec

Make = Callable[..., Waiting]


def bundle_of(items: list[Waiting], **changes: Any) -> Bundle:
    return replace(Bundle(items, sum(item.rows for item in items), (), float("inf")), **changes)


@given(st.lists(st.tuples(st.integers(1, 4), st.binary(max_size=300), st.booleans()), min_size=1, max_size=20))
def test_protobuf_reads_what_we_write(make_waiting: Make, parts: list[tuple[int, bytes, bool]]) -> None:
    items = [
        make_waiting(rows=rows, data=memoryview(data) if as_view else data, traceparent="00-x" if as_view else "")
        for rows, data, as_view in parts
    ]
    entry = items[0].request.revision
    payload = encode_bundle(300, bundle_of(items, outputs=("y",), deadline=1.5, attempt=2), entry, 1.0).message
    message = runner_pb2.ExecuteRequest.FromString(payload)
    bundle = message.bundle
    assert message.WhichOneof("message") == "bundle"
    assert (bundle.bundle_id, bundle.attempt, bundle.time_left_us) == (300, 2, 500_000)
    assert list(bundle.rows) == [rows for rows, _, _ in parts]
    assert list(bundle.outputs) == ["y"]
    (tensor,) = bundle.inputs
    assert (tensor.name, tensor.datatype) == ("x", "FP32")
    assert list(tensor.shape) == [sum(bundle.rows), 2]
    assert tensor.data == b"".join(data for _, data, _ in parts)
    assert set(bundle.traceparents) == {index for index, part in enumerate(parts) if part[2]}


def test_a_model_that_is_not_batchable_keeps_its_shape(make_waiting: Make, entry: RevisionEntry) -> None:
    item = make_waiting()
    item.request.inputs[0].shape = (3, 5)
    message = runner_pb2.ExecuteRequest.FromString(
        encode_bundle(1, bundle_of([item]), replace(entry, batchable=False), 0.0).message
    )
    assert list(message.bundle.inputs[0].shape) == [3, 5]
    assert message.bundle.time_left_us == 0


def tensor(name: str = "y", datatype: str = "FP32", rows: int = 3, **changes: Any) -> runner_pb2.Tensor:
    fields: dict[str, Any] = {"shape": [rows, 2], "data": bytes(range(8 * rows)), **changes}
    return runner_pb2.Tensor(name=name, datatype=datatype, **fields)


def test_outputs_are_cut_by_rows(make_waiting: Make, entry: RevisionEntry) -> None:
    bundle = bundle_of([make_waiting(rows=1), make_waiting(rows=2)])
    (first,), (second,) = split_outputs([tensor()], bundle, entry)
    assert (first.shape, bytes(first.data)) == ((1, 2), bytes(range(8)))
    assert (second.shape, bytes(second.data)) == ((2, 2), bytes(range(8, 24)))


def test_bytes_are_cut_where_their_rows_end(make_waiting: Make, entry: RevisionEntry) -> None:
    bundle = bundle_of([make_waiting(rows=2), make_waiting(rows=1)])
    output = tensor(datatype="BYTES", shape=[3, 1], data=b"aabbbbc", row_ends=[2, 6, 7])
    answers = split_outputs([output], bundle, entry)
    assert [bytes(answer[0].data) for answer in answers] == [b"aabbbb", b"c"]


def test_a_request_gets_the_outputs_it_wanted_in_its_order(make_waiting: Make, entry: RevisionEntry) -> None:
    two = replace(entry, outputs=(*entry.outputs, TensorSpec("z", "FP32", (-1, 2))))
    bundle = bundle_of([make_waiting(outputs=("z", "y")), make_waiting(outputs=("z",)), make_waiting()])
    answers = split_outputs([tensor("z"), tensor("y")], bundle, two)
    assert [[output.name for output in answer] for answer in answers] == [["z", "y"], ["z"], ["y", "z"]]


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([], "0 outputs came"),
        ([tensor(rows=4)], "the bundle has 3 rows"),
        ([tensor(data=b"12345")], "5 bytes, which 3 rows do not divide"),
        ([tensor(datatype="BYTES", row_ends=[1, 2])], "row ends that do not fit"),
        ([tensor(datatype="BYTES", row_ends=[5, 2, 24])], "row ends that do not fit"),
        ([tensor(datatype="BYTES")], "does not say where rows end"),
        ([tensor(name="other")], "'z' was wanted"),
    ],
    ids=["nothing", "rows", "size", "too few ends", "ends out of order", "no ends", "name"],
)
def test_a_result_that_does_not_fit_is_refused(
    make_waiting: Make, entry: RevisionEntry, outputs: list[runner_pb2.Tensor], says: str
) -> None:
    wanted = ("z",) if "'z'" in says else ()
    bundle = bundle_of([make_waiting(rows=1, outputs=wanted), make_waiting(rows=2, outputs=wanted)])
    with pytest.raises(MalformedResult, match=says):
        split_outputs(outputs, bundle, entry)
