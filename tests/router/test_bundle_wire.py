"""Bundles are written by hand; here protobuf reads them. Results are cut into requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.runner.v1 import runner_pb2
from headrace_common.chunks import MESSAGE_BYTES, MOST_MESSAGE_BYTES, Assembly
from headrace_common.shared_memory import SHARED_FROM_BYTES, Region
from headrace_router.bundles import MalformedResult, encode_bundle, split_outputs
from headrace_router.core.batching import Bundle
from headrace_router.core.waiting import Waiting
from headrace_router.domain import Buffer, RevisionEntry, TensorSpec
from headrace_router.transport import Transport, Transports

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


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9)), min_size=1, max_size=8))
def test_what_is_too_long_for_a_message_follows_in_chunks(make_waiting: Make, parts: list[tuple[int, int]]) -> None:
    items = [make_waiting(rows=rows, data=bytes([number]) * (number << 17)) for rows, number in parts]
    whole = b"".join(item.request.inputs[0].data for item in items)
    encoded = encode_bundle(300, bundle_of(items), items[0].request.revision, 0.0)
    first, *rest = [runner_pb2.ExecuteRequest.FromString(message) for message in encoded.messages()]
    assert list(first.bundle.rows) == [rows for rows, _ in parts]
    (given_input,) = first.bundle.inputs
    if len(whole) <= MESSAGE_BYTES:
        assert not rest
        assert given_input.data == whole
        return
    assert given_input.chunked_bytes == len(whole)
    assembly = Assembly({0: given_input.chunked_bytes})
    for message in rest:
        assert message.chunk.bundle_id == 300
        assert message.ByteSize() < MOST_MESSAGE_BYTES
        assembly.add(message.chunk.tensor_index, message.chunk.offset, message.chunk.data)
    assert assembly.complete
    assert assembly.tensors[0] == whole


def test_a_large_tensor_is_named_where_it_was_placed(make_waiting: Make, entry: RevisionEntry) -> None:
    placed: list[bytes] = []

    def place(parts: Sequence[Buffer], size: int) -> Region | None:
        placed.append(b"".join(parts))
        return Region(4096, size) if size < 200_000 else None

    large, small, too_large = (make_waiting(data=bytes(size)) for size in (SHARED_FROM_BYTES, 8, 200_000))
    forms = []
    for item in (large, small, too_large):
        message = encode_bundle(1, bundle_of([item]), entry, 0.0, place).message
        (tensor,) = runner_pb2.ExecuteRequest.FromString(message).bundle.inputs
        forms.append((tensor.WhichOneof("content"), tensor.region.offset, tensor.region.size_bytes))
    assert forms == [("region", 4096, SHARED_FROM_BYTES), ("data", 0, 0), ("data", 0, 0)]
    assert [len(content) for content in placed] == [SHARED_FROM_BYTES, 200_000]


@pytest.mark.parametrize(
    ("offset", "size", "says"),
    [(0, 24, "not within"), (4096, 24, "not within"), (1 << 40, 24, "not within"), (8192 + 64, 20, "do not divide")],
    ids=["the head", "the bundles' half", "far away", "too short"],
)
def test_a_result_in_the_wrong_place_is_refused(
    make_waiting: Make, entry: RevisionEntry, offset: int, size: int, says: str
) -> None:
    transport = Transport(Transports(half_bytes=4096), "unix:/a/socket")
    transport.granted(mapped=True)
    output = tensor(data=b"")
    output.region.offset, output.region.size_bytes = offset, size
    received = transport.receive(runner_pb2.BundleResult(bundle_id=1, outputs=[output]))
    assert received is not None
    bundle = bundle_of([make_waiting(rows=1), make_waiting(rows=2)])
    with pytest.raises(MalformedResult, match=says):
        split_outputs(received.result.outputs, bundle, entry, received.read)


def test_a_region_without_a_segment_is_refused(make_waiting: Make, entry: RevisionEntry) -> None:
    output = tensor(data=b"")
    output.region.size_bytes = 24
    received = Transport(Transports(), "unix:/a/socket").receive(runner_pb2.BundleResult(outputs=[output]))
    assert received is not None
    with pytest.raises(MalformedResult, match="which this stream does not have"):
        split_outputs(received.result.outputs, bundle_of([make_waiting(rows=3)]), entry, received.read)


def test_a_runner_on_another_machine_is_offered_no_segment() -> None:
    assert Transport(Transports(half_bytes=4096), "dns:elsewhere:1").path == ""


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
