"""What cannot be answered is refused in one line, before anything is made."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace_runner.optimizer import __main__ as program

Optimize = Callable[..., Any]
SavesSamples = Callable[..., str]


def refused(ran: Any) -> str:
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 1
    return str(ran.err)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_python_objects_are_never_unpickled(
    trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path
) -> None:
    mark = tmp_path / "unpickled"
    path = samples(x=np.array([Bomb(mark)], dtype=object))
    message = refused(optimize(trained.path, "--samples", path))
    assert "array 'x' holds Python objects, which are never unpickled here; expected numbers" in message
    assert not mark.exists()


def test_a_lone_array_of_python_objects_is_not_unpickled_either(
    trained: Any, optimize: Optimize, tmp_path: Path
) -> None:
    mark, path = tmp_path / "unpickled", tmp_path / "x.npy"
    np.save(path, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    assert "expected an .npz file" in refused(optimize(trained.path, "--samples", path))
    assert not mark.exists()


X = np.ones((9, 16), np.float32)


@pytest.mark.parametrize(
    ("arrays", "flags", "message"),
    [
        pytest.param({"z": X}, [], "has 'z'; expected the model's inputs: 'x'", id="another name"),
        pytest.param({"x": X, "y": X}, [], "name the right answers with --labels", id="one too many"),
        pytest.param({"x": X}, ["--labels=y"], "--labels y: ", id="labels that are not there"),
        pytest.param({"x": X}, ["--labels=x"], "is an input of the model", id="an input for labels"),
        pytest.param({"x": X.astype(float)}, [], "is float64; expected float32: convert it with .astype", id="type"),
        pytest.param({"x": X[:, :5]}, [], "has the shape [9, 5]; expected [samples, 16]", id="shape"),
        pytest.param({"x": X[0]}, [], "has the shape [16]; expected [samples, 16]", id="rank"),
        pytest.param({"x": np.float32(1)}, [], "has the shape []; expected [samples, 16]", id="a number"),
        pytest.param({"x": X[:0]}, [], "has no rows", id="no rows"),
        pytest.param({"x": X * np.nan}, [], "has NaN or infinity in it", id="NaN"),
        pytest.param(
            {"x": X, "y": np.ones(8)}, ["--labels=y"], "as many rows in each array; found x 9, y 8", id="rows"
        ),
        pytest.param({"x": X}, [], "has 1 different samples, of which 0 are left to measure with", id="repetitions"),
    ],
)
def test_samples_that_do_not_fit(
    trained: Any, samples: SavesSamples, optimize: Optimize, arrays: dict[str, Any], flags: list[str], message: str
) -> None:
    assert message in refused(optimize(trained.path, "--samples", samples(**arrays), *flags))


def test_too_few_samples_are_told_how_many_would_do(trained: Any, samples: SavesSamples, optimize: Optimize) -> None:
    message = refused(optimize(trained.path, "--samples", samples(x=trained.x[:200])))
    assert "to tell a floor of 0.99 takes 381 even if every answer is right: bring 507 samples" in message


def test_as_many_samples_as_were_asked_for_do(trained: Any, samples: SavesSamples, optimize: Optimize) -> None:
    assert optimize(trained.path, "--samples", samples(x=trained.x[:507]), "--precisions=fp32").code == 0
    assert optimize(trained.path, "--samples", samples(x=trained.x[:506]), "--precisions=fp32").code == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--floor=1"], "--floor: expected a share above 0 and below 1, such as 0.5; got '1'; no number of samples"),
        (["--floor=most"], "--floor: expected a share above 0 and below 1"),
        (["--prune=0.5,2"], "--prune: expected a share above 0 and below 1, such as 0.5; got '2'"),
        (["--precisions=fp8"], "--precisions: expected some of fp32, fp16, int8, int4; got 'fp8'"),
        (["--precisions="], "--precisions: expected one at least"),
        (["--latency=soon"], "--latency: expected a duration"),
        (["--output=z"], "--output z: the model has 'y'"),
    ],
)
def test_flags_that_make_no_sense(
    trained: Any, samples: SavesSamples, optimize: Optimize, flags: list[str], message: str
) -> None:
    assert message in refused(optimize(trained.path, "--samples", samples(x=trained.x), *flags))


def test_labels_of_another_kind(trained: Any, samples: SavesSamples, optimize: Optimize) -> None:
    path = samples(x=trained.x, kind=trained.labels.astype(str))
    message = refused(optimize(trained.path, "--samples", path, "--labels=kind", "--precisions=fp32"))
    assert "--labels kind: are <U" in message
    assert "which none of them can equal" in message


def test_samples_that_were_damaged(trained: Any, samples: SavesSamples, optimize: Optimize, tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, x=trained.x)
    content = bytearray(path.read_bytes())
    content[100:140] = b"\xff" * 40
    path.write_bytes(content)
    assert "array 'x' cannot be read" in refused(optimize(trained.path, "--samples", path, "--precisions=fp32"))


def test_samples_that_unpack_to_more_than_the_limit(trained: Any, optimize: Optimize, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1 << 17, 16), np.float32))
    assert path.stat().st_size < 1 << 16
    message = refused(optimize(trained.path, "--samples", path, "--max-samples=1Mi"))
    assert "samples: 8Mi when unpacked, over the limit of 1Mi (--max-samples); bring fewer" in message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_samples_packed_by_a_method_that_has_no_bound(
    trained: Any, optimize: Optimize, tmp_path: Path, method: int
) -> None:
    path, content = tmp_path / "bomb.npz", io.BytesIO()
    np.save(content, X)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", content.getvalue())
    assert "expected an .npz file, as numpy.savez writes it" in refused(optimize(trained.path, "--samples", path))


def test_samples_that_are_larger_than_they_say(trained: Any, optimize: Optimize, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros((1 << 17, 16), np.float32))
    content = path.read_bytes()
    directory = content.rindex(b"PK\1\2")
    # The uncompressed size, at 24 of the entry in the directory (APPNOTE.TXT, 4.3.12).
    path.write_bytes(content[: directory + 24] + (4096).to_bytes(4, "little") + content[directory + 28 :])
    assert "array 'x' cannot be read" in refused(optimize(trained.path, "--samples", path, "--max-samples=1Mi"))


def test_labels_of_another_shape(trained: Any, samples: SavesSamples, optimize: Optimize) -> None:
    path = samples(x=trained.x, kind=np.eye(3)[trained.labels])
    message = refused(optimize(trained.path, "--samples", path, "--labels=kind", "--precisions=fp32"))
    assert "expected one label per answer, [] a row; found [3]" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"PK\x03\x04 broken", "expected an .npz file"), (b"", "expected an .npz file"), (None, "No such file")],
)
def test_files_that_are_no_samples(
    trained: Any, optimize: Optimize, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "samples.npz"
    if content is not None:
        path.write_bytes(content)
    assert message in refused(optimize(trained.path, "--samples", path))


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_files_that_are_no_model(
    samples: SavesSamples, optimize: Optimize, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in refused(optimize(path, "--samples", samples(x=X)))


def test_a_directory_without_a_model(samples: SavesSamples, optimize: Optimize, tmp_path: Path) -> None:
    message = refused(optimize(tmp_path, "--samples", samples(x=X)))
    assert "expected an ONNX file, or a directory with VERSION/model.onnx in it" in message


def test_a_missing_library_is_named_with_what_to_install(
    trained: Any, optimize: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "onnxslim" else object())
    message = refused(optimize(trained.path, "--samples", "x.npz"))
    assert "optimize needs onnxslim, which is not installed here; pip install 'headrace[optimize]'" in message
