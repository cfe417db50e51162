import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headrace import errors
from headrace.cli.tensor_inputs import conform
from headrace.client import methods
from headrace.client.tensors import DATATYPES, decode, encode
from headrace.oip import inference_pb2

Run = Callable[..., Any]


def metadata(**inputs: str) -> inference_pb2.ModelMetadataResponse:
    return inference_pb2.ModelMetadataResponse(
        name="m", inputs=[{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in inputs.items()]
    )


def echo(request: inference_pb2.ModelInferRequest) -> inference_pb2.ModelInferResponse:
    response = inference_pb2.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    return response


@pytest.fixture
def echoing(mesh: Any) -> Callable[..., None]:
    def script(**inputs: str) -> None:
        mesh.on(methods.METADATA, metadata(**inputs))
        mesh.on(methods.INFER, echo)

    return script


@pytest.mark.parametrize(
    ("of", "field", "value"),
    [("17", "uint64_param", 17), ("call-17", "string_param", "call-17")],
    ids=["a number", "a text"],
)
def test_a_request_says_which_sequence_it_is_of(
    mesh: Any, run: Run, echoing: Callable[..., None], of: str, field: str, value: int | str
) -> None:
    echoing(x="FP32")
    assert run("infer", "m", "-i", "x=[1]", "--sequence", of, "--start").code == 0
    assert run("infer", "m", "-i", "x=[1]", "--sequence", of, "--end").code == 0
    first, last = (request.parameters for request in mesh.requests(methods.INFER))
    assert getattr(first["sequence_id"], field) == getattr(last["sequence_id"], field) == value
    assert (first["sequence_start"].bool_param, "sequence_end" in first) == (True, False)
    assert (last["sequence_end"].bool_param, "sequence_start" in last) == (True, False)


@pytest.mark.parametrize(
    ("datatype", "literal", "printed"),
    [
        ("FP32", "[[1, 2.5]]", [[1.0, 2.5]]),
        ("FP16", "[0.1]", [0.0999755859375]),
        ("BF16", "[1.5]", [1.5]),
        ("INT64", "[9007199254740993]", [9007199254740993]),
        ("UINT64", "[18446744073709551615]", [18446744073709551615]),
        ("INT8", "[-128, 5.0]", [-128, 5]),
        ("BOOL", "[true, 0]", [True, False]),
        ("BYTES", '["a", "ü"]', ["a", "ü"]),
        ("FP32", "7", 7.0),
        ("FP32", "[]", []),
    ],
)
def test_literals_become_what_the_model_wants(
    mesh: Any, run: Run, echoing: Callable[..., None], datatype: str, literal: str, printed: Any
) -> None:
    echoing(x=datatype)
    done = run("infer", "m", "-i", f"x={literal}")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"outputs": {"x": printed}}
    assert mesh.requests(methods.INFER)[0].inputs[0].datatype == datatype


@pytest.mark.parametrize(
    ("datatype", "literal", "expected"),
    [
        ("INT8", "[300]", "wants INT8, which cannot hold 300"),
        ("UINT8", "[-1]", "cannot hold -1"),
        ("INT32", "[1.5]", "cannot hold 1.5"),
        ("BOOL", "[2]", "cannot hold 2"),
        ("FP32", "[1e300]", "cannot hold 1e+300"),
        ("FP16", "[70000]", "cannot hold 70000"),
        ("FP32", '["a"]', "expected numbers"),
        ("FP32", "[[1], [2, 3]]", "not of equal lengths"),
        ("BYTES", "[1]", "expected strings"),
        ("FP32", "[1", "not JSON"),
        pytest.param("FP32", "[" * 100_000, "lists in lists without end", id="deep"),
    ],
)
def test_values_that_do_not_fit_are_refused_here(
    mesh: Any, run: Run, echoing: Callable[..., None], datatype: str, literal: str, expected: str
) -> None:
    echoing(pixels=datatype)
    done = run("infer", "m", "-i", f"pixels={literal}")
    assert done.code == 2
    assert "'pixels'" in done.err
    assert expected in done.err
    assert not mesh.requests(methods.INFER)


@given(data=st.data(), source=st.sampled_from(sorted(DATATYPES)), target=st.sampled_from(sorted(DATATYPES)))
def test_a_conversion_keeps_every_value_or_refuses(data: st.DataObject, source: str, target: str) -> None:
    array = data.draw(hnp.arrays(DATATYPES[source], (3,)))
    target_type = np.float16 if target == "FP16" else np.float32
    try:
        converted = decode("x", conform({"x": array}, metadata(x=target))["x"])
    except errors.InvalidArgument:
        assert DATATYPES[target].kind != "f" or np.nanmax(np.abs(array.astype(np.float64))) > np.finfo(target_type).max
        return
    if DATATYPES[target].kind != "f":
        assert [int(value) for value in converted] == [int(value) for value in array]


def test_files_and_names(mesh: Any, run: Run, echoing: Callable[..., None], tmp_path: Path) -> None:
    echoing(x="FP32", y="INT64")
    np.save(tmp_path / "x.npy", np.array([[1.0]], np.float64))
    (tmp_path / "y.json").write_text("[1, 2]")
    done = run("infer", "m", "-i", f"x=@{tmp_path}/x.npy", "-i", f"y=@{tmp_path}/y.json", "--tenant", "acme")
    assert json.loads(done.out) == {"outputs": {"x": [[1.0]], "y": [1, 2]}}
    assert mesh.seen[methods.INFER.path][0].metadata["x-headrace-tenant"] == "acme"


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("x", "expected TENSOR=@file.npy"),
        ("=1", "expected TENSOR=@file.npy"),
        ("x=@gone.npy", "gone.npy cannot be read"),
        ("x=@data.csv", "ending in .npy or .json"),
        ("z=1", "model 'm' has no input 'z'; its inputs are: x (FP32)"),
    ],
)
def test_inputs_that_are_none(run: Run, echoing: Callable[..., None], argument: str, expected: str) -> None:
    echoing(x="FP32")
    done = run("infer", "m", "-i", argument)
    assert done.code == 2
    assert expected in done.err


def test_pickles_are_not_opened(run: Run, echoing: Callable[..., None], tmp_path: Path) -> None:
    echoing(x="BYTES")
    np.save(tmp_path / "x.npy", np.array(["a"], dtype=object), allow_pickle=True)
    done = run("infer", "m", "-i", f"x=@{tmp_path}/x.npy")
    assert done.code == 2
    assert "cannot be read" in done.err


def test_an_answer_can_be_saved(run: Run, echoing: Callable[..., None], tmp_path: Path) -> None:
    echoing(x="FP32", t="BYTES")
    done = run("infer", "m", "-i", "x=[1]", "-i", 't=[["ab"]]', "-o", f"npz={tmp_path}/out.npz")
    assert (done.code, done.out) == (0, "")
    with np.load(tmp_path / "out.npz", allow_pickle=False) as saved:
        assert saved["x"].tolist() == [1.0]
        assert saved["t"].tolist() == [[b"ab"]]


def test_numbers_that_json_lacks_are_named(mesh: Any, run: Run) -> None:
    mesh.on(methods.METADATA, metadata(x="FP32"))
    tensor = encode("y", np.array([np.nan, np.inf, -np.inf], np.float32))
    response = inference_pb2.ModelInferResponse(raw_output_contents=[tensor.data])
    response.outputs.add(name="y", datatype="FP32", shape=[3])
    mesh.on(methods.INFER, response)
    assert json.loads(run("infer", "m", "-i", "x=1").out) == {"outputs": {"y": ["NaN", "Infinity", "-Infinity"]}}


def test_bytes_that_are_no_text_point_to_npz(mesh: Any, run: Run) -> None:
    mesh.on(methods.METADATA, metadata(x="FP32"))
    tensor = encode("y", [b"\xff"])
    response = inference_pb2.ModelInferResponse(raw_output_contents=[tensor.data])
    response.outputs.add(name="y", datatype="BYTES", shape=[1])
    mesh.on(methods.INFER, response)
    assert "use -o npz=FILE" in run("infer", "m", "-i", "x=1").err


def test_the_timeout_is_the_calls_deadline(mesh: Any, run: Run, echoing: Callable[..., None]) -> None:
    echoing(x="FP32")
    assert run("infer", "m", "-i", "x=1", "--timeout", "2s").code == 0
    assert 0 < mesh.seen[methods.INFER.path][0].remaining_s < 2.5


@pytest.mark.parametrize(
    ("after_s", "said"),
    [(1.5, "1.5 s"), (119.0, "119 s"), (1874.0, "31 minutes"), (7300.0, "2 hours"), (450_600.0, "5 days")],
    ids=["soon", "later", "much later", "today", "this month"],
)
def test_a_refusal_says_when_to_try_again(mesh: Any, run: Run, after_s: float, said: str) -> None:
    mesh.on(methods.METADATA, metadata(x="FP32"))
    refusal = errors.QuotaExceeded(
        "acme is over 2", subject="tenant:acme", dimension="concurrency", retry_after_s=after_s
    )
    mesh.on(methods.INFER, refusal)
    done = run("infer", "m", "-i", "x=1")
    assert (done.code, done.err) == (1, f"headrace: acme is over 2 (try again in {said})\n")


@pytest.mark.parametrize("output", ["yaml", "npz", "npz="])
def test_other_forms_of_output_are_refused(run: Run, output: str) -> None:
    done = run("infer", "m", "-i", "x=1", "-o", output)
    assert done.code == 2
    assert "expected json or npz=FILE" in done.err


@pytest.mark.parametrize("content", [b"", b"junk\n", b"\x80\x04."], ids=["empty", "text", "a pickle"])
def test_a_file_that_is_no_npy_is_called_that(
    run: Run, echoing: Callable[..., None], tmp_path: Path, content: bytes
) -> None:
    echoing(x="FP32")
    (tmp_path / "x.npy").write_bytes(content)
    done = run("infer", "m", "-i", f"x=@{tmp_path}/x.npy")
    assert (done.code, done.err) == (2, f"headrace: input 'x': {tmp_path}/x.npy is not a .npy file\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("--timeout", "0s"), "--timeout: expected more"), (("--tenant", "ünï"), "'ünï' does not name a tenant")],
)
def test_a_deadline_or_a_tenant_that_is_none_is_wrong_usage(
    mesh: Any, run: Run, arguments: tuple[str, ...], expected: str
) -> None:
    done = run("infer", "m", "-i", "x=1", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert not mesh.seen


def test_a_refusal_that_says_itself_when_to_retry_says_it_once(mesh: Any, run: Run) -> None:
    mesh.on(methods.METADATA, metadata(x="FP32"))
    mesh.on(methods.INFER, errors.QueueFull("the queue is full; retry in 0.218 s", retry_after_s=0.218))
    assert run("infer", "m", "-i", "x=1").err == "headrace: the queue is full; retry in 0.218 s\n"
