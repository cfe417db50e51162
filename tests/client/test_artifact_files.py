"""Which files a source means, and how they travel."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headrace.client.artifact import CHUNK_BYTES, ArtifactFile, artifact_files, is_url, upload_parts
from headrace.client.onnx_files import external_files
from headrace.errors import InvalidArgument


def write(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def onnx_model(path: Path, *locations: str, nested: str = "") -> Path:
    """A model with one external initializer per location; `nested` is one in an If branch's subgraph."""
    initializers = [_tensor(f"w{index}", location) for index, location in enumerate(locations)]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    if nested:
        constant = helper.make_node("Constant", [], ["c"], value=_tensor("c", nested))
        branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])])
        nodes.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    graph = helper.make_graph(nodes, "g", [value], [value], initializers)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def _tensor(name: str, location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return tensor


def paths(files: tuple[ArtifactFile, ...]) -> list[str]:
    return [file.path for file in files]


def test_an_onnx_file_is_the_model_whatever_its_name(tmp_path: Path) -> None:
    files = artifact_files(onnx_model(tmp_path / "iris-v7.onnx"), "iris")
    assert paths(files) == ["model.onnx"]


def test_an_exported_program_is_the_model_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path / "digits-v2.pt2")
    assert paths(artifact_files(tmp_path / "digits-v2.pt2", "digits")) == ["model.pt2"]


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.pkl"])
def test_a_pickle_is_refused_before_it_is_sent_and_says_what_to_export(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    with pytest.raises(
        InvalidArgument, match=f"{name}: a pickle, or TorchScript.*export the module with headrace.models"
    ):
        artifact_files(tmp_path / name, "m")


def test_weights_beside_the_model_go_with_it(tmp_path: Path) -> None:
    write(tmp_path / "big.weights")
    write(tmp_path / "parts" / "w.bin")
    write(tmp_path / "sub")
    write(tmp_path / "other.bin")
    model = onnx_model(tmp_path / "m.onnx", "big.weights", "parts/w.bin", nested="sub")
    assert paths(artifact_files(model, "m")) == ["model.onnx", "big.weights", "parts/w.bin", "sub"]


def test_missing_weights_are_named(tmp_path: Path) -> None:
    model = onnx_model(tmp_path / "m.onnx", "gone.bin")
    with pytest.raises(InvalidArgument, match=r"gone\.bin, which is not there"):
        artifact_files(model, "m")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b"])
def test_weights_outside_the_models_directory_are_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(InvalidArgument, match="outside its own directory"):
        external_files(onnx_model(tmp_path / "m.onnx", location))


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"not a model", b"\x3a\x7f\x01"])
def test_what_is_no_onnx_is_left_to_the_engine(tmp_path: Path, content: bytes) -> None:
    assert paths(artifact_files(write(tmp_path / "m.onnx", content), "m")) == ["model.onnx"]


def test_a_fake_model_keeps_its_kind(tmp_path: Path) -> None:
    assert paths(artifact_files(write(tmp_path / "slow.fake.json", b"{}"), "m")) == ["model.fake.json"]


def test_a_plan_goes_under_its_own_name_with_its_manifest(tmp_path: Path) -> None:
    write(tmp_path / "ocr.sm_86.plan.json")
    assert paths(artifact_files(write(tmp_path / "ocr.sm_86.plan"), "m")) == ["ocr.sm_86.plan", "ocr.sm_86.plan.json"]
    with pytest.raises(InvalidArgument, match=r"its manifest, ocr.sm_89.plan.json, is not beside it"):
        artifact_files(write(tmp_path / "ocr.sm_89.plan"), "m")


def test_a_directory_of_plans_is_one_model_for_several_gpus(tmp_path: Path) -> None:
    for name in ("ocr.sm_86.plan", "ocr.sm_86.plan.json", "ocr.sm_89.plan", "ocr.sm_89.plan.json", "notes.txt"):
        write(tmp_path / name)
    ocr = ["ocr.sm_86.plan", "ocr.sm_86.plan.json", "ocr.sm_89.plan", "ocr.sm_89.plan.json"]
    assert paths(artifact_files(tmp_path, "reader")) == ocr

    for name in ("files.sm_86.plan", "files.sm_86.plan.json"):
        write(tmp_path / name)
    assert paths(artifact_files(tmp_path, "ocr")) == ocr
    with pytest.raises(InvalidArgument, match=r"plans of several models \(files, ocr\) and none named 'reader'"):
        artifact_files(tmp_path, "reader")


def test_a_triton_directory_goes_as_it_is(tmp_path: Path) -> None:
    for name in ("config.pbtxt", "1/model.onnx", "2/model.onnx", ".git/config"):
        write(tmp_path / "iris" / name)
    assert paths(artifact_files(tmp_path / "iris", "iris")) == ["1/model.onnx", "2/model.onnx", "config.pbtxt"]


def test_of_a_whole_repository_the_model_is_taken_by_name(tmp_path: Path) -> None:
    for name in ("iris/1/model.onnx", "ocr/1/model.onnx"):
        write(tmp_path / name)
    assert artifact_files(tmp_path, "ocr")[0].local == tmp_path / "ocr" / "1" / "model.onnx"
    with pytest.raises(InvalidArgument, match=r"several models \(iris, ocr\) and none named 'x'"):
        artifact_files(tmp_path, "x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gone.onnx", "no such file"), ("notes.txt", "not a kind of model file"), ("empty", "Triton's layout")],
)
def test_what_is_no_model_is_said_with_what_would_be(tmp_path: Path, name: str, expected: str) -> None:
    write(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match=expected):
        artifact_files(tmp_path / name, "m")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
def test_a_file_travels_as_header_and_chunks(tmp_path: Path, size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    parts = list(upload_parts([ArtifactFile("model.onnx", write(tmp_path / "m", content))]))
    header, chunks = parts[0].file, [part.chunk for part in parts[1:]]
    assert (header.path, header.size_bytes) == ("model.onnx", size)
    assert header.sha256 == hashlib.sha256(content).hexdigest()
    assert b"".join(chunks) == content
    assert all(0 < len(chunk) <= CHUNK_BYTES for chunk in chunks)


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="gone: cannot be read"):
        list(upload_parts([ArtifactFile("model.onnx", tmp_path / "gone")]))


def test_urls_are_the_meshs_to_fetch() -> None:
    assert [is_url(source) for source in ("s3://b/m.onnx", "gs://b/m", "https://h/m.onnx", "http://h/m", "m.onnx")] == [
        True,
        True,
        True,
        False,
        False,
    ]
