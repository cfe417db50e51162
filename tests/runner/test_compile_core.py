"""What the compiler decides without TensorRT: targets, profiles, keys, manifests, and who may run a plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headrace_common.errors import InvalidArgument
from headrace_common.gpu_facts import Gpu, target_name
from headrace_runner.core.cache_bounds import Entry, evicted
from headrace_runner.core.gpu_targets import parse_targets
from headrace_runner.core.onnx_graph import read_graph
from headrace_runner.core.plan_fitness import MachineFacts, check_fits, choose_plan, refusal
from headrace_runner.core.plan_manifest import EngineBuild, Manifest, PlanRequest, PlanTensor, read_manifest
from headrace_runner.core.protobuf import Malformed
from headrace_runner.core.runtime_cache import runtime_cache_name
from headrace_runner.core.shape_ranges import ShapeRange, make_profile, parse_batch, parse_shape
from headrace_runner.core.signature import EngineTensor

ROWS = EngineTensor("rows", "FP32", ("n", 4))
IMAGE = EngineTensor("image", "FP32", ("n", 3, "height", "width"))
FIXED = EngineTensor("fixed", "INT64", (2, 3))
SCALAR = EngineTensor("scalar", "FP32", ())

BUILD = EngineBuild("tensorrt-rtx", "1.7.1.116", 12, "linux-x86_64")
REQUEST = PlanRequest("ocr", "ab" * 32, BUILD, 86, "fp32", {"x": ShapeRange((1, 4), (8, 4), (64, 4))})
MANIFEST = Manifest(
    REQUEST,
    (PlanTensor("x", "FP32", (-1, 4)),),
    (PlanTensor("y", "FP32", (-1, 4)),),
    plan_sha256="cd" * 32,
    plan_bytes=1234,
    build_s=0.5,
)
A10 = MachineFacts({"tensorrt-rtx": "1.7.1.116"}, Gpu("NVIDIA A10", 86), "570.86.15", "linux-x86_64")


def test_targets_are_compute_capabilities_in_the_order_given_and_each_once() -> None:
    assert parse_targets("sm_86, sm_75,sm_120,sm_86") == (86, 75, 120)
    assert [target_name(each) for each in (75, 120)] == ["sm_75", "sm_120"]


@pytest.mark.parametrize("text", ["", "86", "sm_", "sm_8", "sm_86,", "sm_86;sm_75", "sm_08", "SM_86", "rtx4090"])
def test_what_is_no_target_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--target: expected compute capabilities such as sm_75,sm_86"):
        parse_targets(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("8", (8, 8, 8)), ("1:64", (1, 64, 64)), ("1:16:64", (1, 16, 64)), ("4:4:4", (4, 4, 4))]
)
def test_a_full_batch_is_the_optimum_where_none_is_named(text: str, expected: tuple[int, int, int]) -> None:
    assert parse_batch(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0:8", "8:1", "1:80:64", "1:2:3:4", "-1:8", "1:", "a:b", "1:99999999999"])
def test_a_batch_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--batch: expected rows"):
        parse_batch(text)


def test_a_profile_takes_the_batch_where_the_first_dimension_varies_and_leaves_the_rest() -> None:
    profile = make_profile([ROWS, FIXED, SCALAR], (1, 16, 64), {})

    assert profile["rows"] == ShapeRange((1, 4), (16, 4), (64, 4))
    assert profile["rows"].shape == (-1, 4)
    assert str(profile["rows"]) == "1x4:16x4:64x4"
    assert profile["fixed"] == ShapeRange((2, 3), (2, 3), (2, 3))
    assert (str(profile["fixed"]), profile["fixed"].shape) == ("2x3", (2, 3))
    assert profile["scalar"].shape == ()


def test_a_shape_says_all_dimensions_of_its_input() -> None:
    given_shapes = dict([parse_shape("image=1x3x224x224:4x3x640x640:8x3x1024x640")])

    profile = make_profile([ROWS, IMAGE], (1, 2, 3), given_shapes)

    assert profile["image"] == ShapeRange((1, 3, 224, 224), (4, 3, 640, 640), (8, 3, 1024, 640))
    assert profile["image"].shape == (-1, 3, -1, -1)
    assert profile["rows"].largest == (3, 4)


def test_the_name_of_an_input_may_hold_what_separates() -> None:
    assert parse_shape("a=b:0=2x3") == ("a=b:0", ShapeRange((2, 3), (2, 3), (2, 3)))


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        (
            [],
            "input 'image': dimension 2 (height) may have any size, and nothing says which; add --shape image=MIN:OPT",
        ),
        (["image=1x3x2x2", "other=1x2"], "the model has no input 'other'; it has: image"),
        (["image=1x3x2"], "--shape image=1x3x2: expected 4 dimensions, as the model has: nx3xheightxwidth"),
        (["image=1x1x2x2"], "dimension 1 is fixed at 3 in the model"),
        (["image=1x1x2x2:1x3x2x2"], "dimension 1 is fixed at 3 in the model"),
    ],
    ids=["nothing given", "unknown input", "other rank", "other size", "range over a fixed size"],
)
def test_a_profile_that_is_not_the_models_is_refused_with_the_flag_that_helps(shapes: list[str], says: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_profile([IMAGE], (1, 1, 1), dict(parse_shape(text) for text in shapes))
    assert says in refused.value.message


@pytest.mark.parametrize(
    "text", ["", "x", "x=", "=1x2", "x=1x", "x=1x2:", "x=1x-1", "x=2x2:1x2", "x=1x2:1x2x3", "x=0x2", "x=1:2:3:4"]
)
def test_a_shape_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"--shape"):
        parse_shape(text)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), max_size=4), st.data())
def test_a_range_takes_exactly_the_shapes_between_its_ends(
    sizes: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    ordered = [sorted(size) for size in sizes]
    shapes = ShapeRange(*(tuple(size[edge] for size in ordered) for edge in range(3)))
    asked = data.draw(st.tuples(*[st.integers(0, 10) for _ in ordered]))

    fits = all(low <= size <= high for size, (low, _, high) in zip(asked, ordered, strict=True))

    assert (shapes.refusal(asked) == "") == fits
    assert shapes.refusal((*asked, 1)) == f"it has {len(asked) + 1} dimensions; the plan was built for {len(asked)}"


def test_a_shape_outside_its_range_is_refused_by_its_dimension() -> None:
    shapes = ShapeRange((1, 4), (8, 4), (64, 4))
    assert shapes.refusal((65, 4)) == "dimension 0 is 65; the plan was built for 1 to 64"
    assert shapes.refusal((8, 5)) == "dimension 1 is 5; the plan was built for 4"


def model(*initializers: onnx.TensorProto, inputs: tuple[str, ...] = ("x",)) -> bytes:
    dims = ["n", 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in inputs]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2, None])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values, [result], list(initializers))
    return helper.make_model(graph).SerializeToString()


def weight(name: str, dtype: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def test_a_file_says_its_inputs_and_outputs_without_those_that_have_a_default() -> None:
    graph = read_graph(model(weight("w", "f4", 2, 2), inputs=("x", "w")))

    assert graph.inputs == (EngineTensor("x", "FP32", ("n", 4)),)
    assert graph.outputs == (EngineTensor("y", "FP16", (2, "")),)


@pytest.mark.parametrize(
    ("weights", "precision"),
    [
        ([weight("a", "f4", 2), weight("b", "i8", 2)], "fp32"),
        ([weight("a", "f2", 2), weight("b", "f2", 2), weight("c", "f4", 2)], "fp16+fp32"),
        ([weight("a", "i1", 2), weight("b", "f4", 1), weight("c", "i1", 2)], "int8+fp32"),
        ([weight("a", "f2", 2), weight("scalar", "f4")], "fp16"),
        ([], "fp16+fp32"),
    ],
    ids=["shapes are no weights", "most first", "quantised", "scalars do not count", "no weights: inputs and outputs"],
)
def test_precision_is_what_the_weights_are_held_in(weights: list[onnx.TensorProto], precision: str) -> None:
    assert read_graph(model(*weights)).precision == precision


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x08", b"\x3a\x05\x5a\x03\x0a\x01x"])
def test_a_file_that_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(Malformed):
        read_graph(content)


def test_a_size_that_an_exporter_wrote_as_minus_one_varies() -> None:
    made = onnx.load_from_string(model())
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert read_graph(made.SerializeToString()).inputs[0].dims == ("", 4)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, model_sha256="ac" * 32),
        replace(REQUEST, target=89),
        replace(REQUEST, precision="fp16"),
        replace(REQUEST, profile={"x": ShapeRange((1, 4), (8, 4), (65, 4))}),
        replace(REQUEST, profile={"z": REQUEST.profile["x"]}),
        replace(REQUEST, build=replace(BUILD, version="1.7.1.117")),
        replace(REQUEST, build=replace(BUILD, engine="tensorrt")),
        replace(REQUEST, build=replace(BUILD, cuda=13)),
        replace(REQUEST, build=replace(BUILD, platform="linux-aarch64")),
    ],
    ids=["model", "target", "precision", "profile", "input", "version", "engine", "cuda", "platform"],
)
def test_a_key_changes_with_all_that_a_plan_depends_on(other: PlanRequest) -> None:
    assert other.key != REQUEST.key


def test_a_key_does_not_change_with_the_models_name() -> None:
    renamed = replace(REQUEST, model="other")
    assert renamed.key == REQUEST.key
    assert renamed.file_name == "other.sm_86.plan"


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert read_manifest(MANIFEST.to_json(), "ocr.sm_86.plan.json") == MANIFEST


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "its schema is 2, and this headrace reads 1"),
        ({"target": "sm_89"}, "its parts do not belong together"),
        ({"precision": "fp16"}, "its parts do not belong together"),
        ({"target": "sm_x"}, "it is not the manifest of a plan"),
        ({"plan": {"file": "a/b", "sha256": "", "bytes": 1}}, "its parts do not belong together"),
        ({"profile": {"x": {"min": [1]}}}, "it is not the manifest of a plan"),
        ({"inputs": [{"name": "x"}]}, "it is not the manifest of a plan"),
        ({"cuda": float("inf")}, "it is not the manifest of a plan"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(change: dict[str, object], says: str) -> None:
    text = json.dumps(json.loads(MANIFEST.to_json()) | change)
    with pytest.raises(InvalidArgument) as refused:
        read_manifest(text, "ocr.sm_86.plan.json")
    assert refused.value.message.startswith("ocr.sm_86.plan.json: ")
    assert says in refused.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '"x"', "[" * 200_000])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="it is not the manifest of a plan"):
        read_manifest(text, "x.json")


def test_a_plan_runs_on_the_machine_that_it_was_built_for() -> None:
    assert refusal(MANIFEST, A10) == ""
    check_fits(MANIFEST, A10)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            replace(A10, engines={"tensorrt": "1.7.1.116"}),
            "needs tensorrt-rtx 1.7.1.116, and this runner has none; pip install 'headrace[tensorrt-rtx]'",
        ),
        (
            replace(A10, engines={"tensorrt-rtx": "1.8.0.1"}),
            "ocr.sm_86.plan was built by tensorrt-rtx 1.7.1.116, and this runner has 1.8.0.1, which cannot read it",
        ),
        (
            replace(A10, platform="linux-aarch64"),
            "ocr.sm_86.plan was built on linux-x86_64, and this runner is on linux-aarch64: compile it there",
        ),
        (
            replace(A10, gpu=Gpu("NVIDIA L4", 89)),
            "ocr.sm_86.plan was built for sm_86, and this runner's GPU, NVIDIA L4, is sm_89: "
            "headrace compile --engine tensorrt-rtx --target sm_89 builds one for it",
        ),
        (
            replace(A10, driver="525.60.13"),
            "was built for CUDA 12, which needs NVIDIA driver 535 or newer, and this runner has 525.60.13",
        ),
        (replace(A10, driver=""), "needs a GPU of sm_86, and this runner sees no NVIDIA driver; `headrace doctor`"),
        (replace(A10, gpu=None), "needs a GPU of sm_86, and this runner sees none; `headrace doctor`"),
    ],
    ids=["no library", "another version", "another platform", "another GPU", "old driver", "no driver", "no GPU"],
)
def test_a_plan_is_refused_by_a_machine_that_it_was_not_built_for(facts: MachineFacts, says: str) -> None:
    assert says in refusal(MANIFEST, facts)
    with pytest.raises(InvalidArgument, match="sm_86"):
        check_fits(MANIFEST, facts)


def test_a_newer_cuda_needs_a_newer_driver() -> None:
    thirteen = replace(MANIFEST, request=replace(REQUEST, build=replace(BUILD, cuda=13)))
    assert "which needs NVIDIA driver 580 or newer" in refusal(thirteen, A10)
    assert refusal(thirteen, replace(A10, driver="580.65.06")) == ""


@pytest.mark.parametrize(
    ("targets", "facts", "chosen", "says"),
    [
        ((80, 86, 89), A10, "86", ""),
        ((86,), A10, "86", ""),
        ((80,), A10, "", "ocr.sm_80.plan was built for sm_80, and this runner's GPU, NVIDIA A10, is sm_86"),
        ((80, 89), A10, "", "ocr was built for sm_80, sm_89, and this runner's GPU, NVIDIA A10, is sm_86"),
        ((80, 86), replace(A10, gpu=None), "", "ocr.sm_80.plan needs a GPU of sm_80, and this runner sees none"),
        ((80, 86), replace(A10, engines={}), "", "this runner has none; pip install"),
        (
            (80, 86),
            replace(A10, driver="525.60"),
            "",
            "ocr.sm_86.plan was built for CUDA 12, which needs NVIDIA driver 535",
        ),
    ],
    ids=[
        "one of three",
        "the only one",
        "the only one is another's",
        "none of two",
        "no GPU",
        "no library",
        "old driver",
    ],
)
def test_a_runner_picks_the_plan_for_its_gpu_or_says_what_stands_against_it(
    targets: tuple[int, ...], facts: MachineFacts, chosen: str, says: str
) -> None:
    plans = {
        Path(f"ocr.sm_{target}.plan"): replace(MANIFEST, request=replace(REQUEST, target=target)) for target in targets
    }
    if chosen:
        assert choose_plan(plans, facts) == Path(f"ocr.sm_{chosen}.plan")
    else:
        with pytest.raises(InvalidArgument) as refused:
            choose_plan(plans, facts)
        assert says in refused.value.message


def test_what_was_compiled_on_a_gpu_is_kept_for_that_gpu_driver_and_plan_only() -> None:
    others = [
        (MANIFEST, replace(A10, driver="580.1")),
        (MANIFEST, replace(A10, gpu=Gpu("NVIDIA A40", 86))),
        (replace(MANIFEST, plan_sha256="ee" * 32), A10),
        (replace(MANIFEST, request=replace(REQUEST, build=replace(BUILD, version="9"))), A10),
    ]
    names = {runtime_cache_name(MANIFEST, A10), *(runtime_cache_name(*each) for each in others)}
    assert len(names) == 5
    assert runtime_cache_name(MANIFEST, replace(A10, gpu=replace(A10.gpu, uuid="GPU-2"))) in names  # type: ignore[type-var]


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5)), max_size=12), st.integers(0, 500))
def test_a_cache_within_its_bound_keeps_the_newest(entries: list[tuple[int, int]], most: int) -> None:
    known = [Entry(Path(f"{number:02}"), size, float(used)) for number, (size, used) in enumerate(entries)]
    gone = evicted(known, most)
    left = [entry for entry in known if entry not in gone]

    assert sum(entry.size_bytes for entry in left) <= most or len(left) == 1
    if gone:
        # Nothing went that need not have gone, and nothing older stays.
        assert sum(entry.size_bytes for entry in (*left, gone[-1])) > most
        assert max(entry.used_at for entry in gone) <= min(entry.used_at for entry in left)
