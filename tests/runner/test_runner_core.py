"""Rotation, signatures and the walk over an ONNX file."""

from __future__ import annotations

import contextlib
from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headrace_runner.core.onnx_files import Malformed, external_locations
from headrace_runner.core.rotation import Rotation
from headrace_runner.core.signature import EngineTensor, fixed_batch_reason, make_signature, mismatch

ARRIVALS = st.lists(st.tuples(st.sampled_from("abc"), st.integers()), max_size=40)


def drain(rotation: Rotation[str, tuple[str, int]]) -> list[tuple[str, int]]:
    taken = []
    while (item := rotation.take()) is not None:
        taken.append(item)
    return taken


@given(ARRIVALS)
def test_each_routers_bundles_keep_their_order_and_none_is_lost(arrivals: list[tuple[str, int]]) -> None:
    rotation: Rotation[str, tuple[str, int]] = Rotation()
    for arrival in arrivals:
        rotation.add(arrival[0], arrival)
    taken = drain(rotation)
    for key in "abc":
        assert [item for item in taken if item[0] == key] == [item for item in arrivals if item[0] == key]


@given(ARRIVALS)
def test_no_router_runs_twice_while_another_waits(arrivals: list[tuple[str, int]]) -> None:
    rotation: Rotation[str, tuple[str, int]] = Rotation()
    for arrival in arrivals:
        rotation.add(arrival[0], arrival)
    left = Counter(key for key, _ in arrivals)
    served: Counter[str] = Counter()
    for key, _ in drain(rotation):
        served[key] += 1
        left[key] -= 1
        assert all(served[key] - served[other] <= 1 for other in "abc" if left[other])


def test_a_bundle_is_taken_back_by_its_router_only() -> None:
    rotation: Rotation[str, int] = Rotation()
    rotation.add("a", 1)
    rotation.add("b", 1)
    assert rotation.remove("a", lambda item: item == 1) == 1
    assert rotation.remove("a", lambda item: item == 1) is None
    assert (rotation.take(), rotation.take()) == (1, None)


def test_a_router_that_goes_takes_its_bundles_along() -> None:
    rotation: Rotation[str, int] = Rotation()
    for item in (1, 2):
        rotation.add("a", item)
    rotation.add("b", 3)
    assert rotation.drop("a") == (1, 2)
    assert rotation.drop("a") == ()
    assert (rotation.take(), len(rotation)) == (3, 0)


def tensor(name: str, *dims: int | str) -> EngineTensor:
    return EngineTensor(name, "FP32", dims)


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        pytest.param([tensor("x", "N", 3)], [tensor("y", "M", 3)], None, id="symbols of different names"),
        pytest.param([tensor("x", "", 3)], [tensor("y", "")], None, id="symbols without a name"),
        pytest.param(
            [tensor("x", 1, 3)], [tensor("y", "N")], "the first dimension of input 'x' is fixed at 1", id="fixed input"
        ),
        pytest.param(
            [tensor("x", "N")], [tensor("y", 8)], "the first dimension of output 'y' is fixed at 8", id="fixed output"
        ),
        pytest.param([tensor("x", "N"), tensor("k")], [tensor("y", "N")], "input 'k' has no dimensions", id="a scalar"),
        pytest.param([], [tensor("y", "N")], "it has no inputs", id="a constant"),
    ],
)
def test_which_first_dimensions_can_be_a_batch(
    inputs: list[EngineTensor], outputs: list[EngineTensor], reason: str | None
) -> None:
    assert fixed_batch_reason(inputs, outputs) == reason


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        pytest.param(tensor("y", "N", 3), None, id="the same"),
        pytest.param(tensor("y"), None, id="rank left open by the file"),
        pytest.param(tensor("z", "N", 3), "outputs are 'z', expected 'y'", id="another name"),
        pytest.param(tensor("y", "N", 4), "output 'y' is FP32 [-1, 4], expected FP32 [-1, 3]", id="another shape"),
        pytest.param(
            EngineTensor("y", "INT8", ("N", 3)), "output 'y' is INT8 [-1, 3], expected FP32 [-1, 3]", id="another type"
        ),
    ],
)
def test_differences_from_a_known_signature(found: EngineTensor, difference: str | None) -> None:
    known = make_signature([tensor("x", "N")], [tensor("y", "N", 3)], batchable=True)
    assert mismatch(known, make_signature([tensor("x", "N")], [found], batchable=True)) == difference


def external(name: str, location: str) -> TensorProto:
    weight = numpy_helper.from_array(np.ones(3, np.float32), name)
    onnx.external_data_helper.set_external_data(weight, location)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    return weight


def graph(*weights: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    return helper.make_graph(list(nodes), "g", [], [y], list(weights))


def test_external_data_is_found_wherever_a_tensor_can_be() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external("c", "constant.bin"))
    sparse = helper.make_sparse_tensor(external("v", "values.bin"), external("i", "indices.bin"), [3])
    inner = graph(external("b", "branch.bin"))
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=graph())
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    main = graph(external("w", "folder/weights.bin"), nodes=(branch,))
    main.sparse_initializer.append(sparse)
    model = helper.make_model(main, functions=[function])
    assert external_locations(model.SerializeToString()) == {
        "folder/weights.bin",
        "branch.bin",
        "constant.bin",
        "values.bin",
        "indices.bin",
    }


def test_tensors_inside_the_file_are_not_external() -> None:
    weight = numpy_helper.from_array(np.ones(3, np.float32), "w")
    assert external_locations(helper.make_model(graph(weight)).SerializeToString()) == frozenset()


def test_an_external_tensor_without_a_place_is_malformed() -> None:
    weight = TensorProto(name="w", data_location=TensorProto.EXTERNAL)
    with pytest.raises(Malformed, match="none is named"):
        external_locations(helper.make_model(graph(weight)).SerializeToString())


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_or_called_malformed(content: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert b"location" in content or not external_locations(content)


@given(st.data())
def test_a_cut_model_never_hides_where_it_is_cut(data: st.DataObject) -> None:
    whole = helper.make_model(graph(external("w", "weights.bin"))).SerializeToString()
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        found = external_locations(whole[:cut])
    except Malformed:
        return
    assert found <= {"weights.bin"}
