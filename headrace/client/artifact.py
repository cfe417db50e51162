"""A model's files on the way to the mesh."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.client.onnx_files import external_files
from headrace.errors import InvalidArgument
from headrace.v1 import models_pb2
from headrace_common.model_files import PICKLED, PICKLED_REASON

CHUNK_BYTES = 1 << 20
URL_SCHEMES = ("s3://", "gs://", "https://")
_SINGLE_FILES = {
    ".onnx": "model.onnx",
    ".pt2": "model.pt2",
    ".fake.json": "model.fake.json",
}
_PLAN = ".plan"
_TARGET = re.compile(r"\.sm_[0-9]+$")
_KINDS = (
    "an .onnx, .pt2 or .plan file, a directory of one model's plans or in Triton's repository layout, or an s3://, "
    "gs:// or https:// URL"
)


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """A file to upload.

    Attributes:
        path: inside the artifact, with "/".
        local: where it is here.
    """

    path: str
    local: Path


def is_url(source: str) -> bool:
    """Whether the mesh fetches the source itself."""
    return source.startswith(URL_SCHEMES)


def artifact_files(source: Path, name: str) -> tuple[ArtifactFile, ...]:
    """The files that make up a model, sorted by their path in the artifact.

    Args:
        source: a model file, a model's directory, or a repository that holds just this model.
        name: the model's name, which picks its directory in a repository of several.

    Raises:
        InvalidArgument: there is nothing there that could be a model, or a part of it is missing.
    """
    if source.is_file():
        return _single(source)
    if source.is_dir() and any(source.glob(f"*{_PLAN}")) and not _is_model(source):
        return _plans(source, name)
    if source.is_dir():
        return _directory(_model_directory(source, name))
    raise InvalidArgument(f"{source}: no such file or directory; expected {_KINDS}")


def samples_files(source: Path) -> tuple[ArtifactFile, ...]:
    """The samples of an optimisation.

    Raises:
        InvalidArgument: there is no such file, or it is none that holds samples.
    """
    if not source.is_file() or source.suffix != ".npz":
        raise InvalidArgument(f"{source}: expected an .npz file of samples, as numpy.savez writes it")
    return (ArtifactFile("samples.npz", source),)


def upload_parts(files: Sequence[ArtifactFile]) -> Iterator[models_pb2.UploadArtifactRequest]:
    """Each file's header, with its digest, and then its content in chunks of 1 MiB.

    Raises:
        InvalidArgument: a file cannot be read, or changed while it was read.
    """
    for file in files:
        try:
            yield from _file_parts(file)
        except OSError as error:
            raise InvalidArgument(f"{file.local}: cannot be read: {error.strerror}") from None


def _file_parts(file: ArtifactFile) -> Iterator[models_pb2.UploadArtifactRequest]:
    with file.local.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        size_bytes = content.tell()
        header = models_pb2.UploadArtifactRequest.FileHeader(path=file.path, size_bytes=size_bytes, sha256=digest)
        yield models_pb2.UploadArtifactRequest(file=header)
        content.seek(0)
        sent = 0
        while chunk := content.read(CHUNK_BYTES):
            sent += len(chunk)
            yield models_pb2.UploadArtifactRequest(chunk=chunk)
        if sent != size_bytes:
            raise InvalidArgument(f"{file.local}: changed while it was being uploaded; deploy again")


def _single(source: Path) -> tuple[ArtifactFile, ...]:
    for suffix, path in _SINGLE_FILES.items():
        if source.name.endswith(suffix):
            return (ArtifactFile(path, source), *(_external(source) if suffix == ".onnx" else ()))
    if source.name.endswith(_PLAN):
        # Under its own name, which the manifest has too.
        return (ArtifactFile(source.name, source), _manifest(source))
    if source.name.endswith(PICKLED):
        raise InvalidArgument(f"{source}: {PICKLED_REASON}")
    raise InvalidArgument(f"{source}: not a kind of model file that headrace knows; expected {_KINDS}")


def _manifest(plan: Path) -> ArtifactFile:
    local = plan.with_name(f"{plan.name}.json")
    if not local.is_file():
        raise InvalidArgument(
            f"{plan}: its manifest, {local.name}, is not beside it; `headrace compile` writes both, and a plan says "
            "nothing of itself"
        )
    return ArtifactFile(local.name, local)


def _plans(directory: Path, name: str) -> tuple[ArtifactFile, ...]:
    """The plans of one model, each for another kind of GPU, as `headrace compile --out` leaves them."""
    by_model: dict[str, list[Path]] = {}
    for plan in sorted(directory.glob(f"*{_PLAN}")):
        by_model.setdefault(_TARGET.sub("", plan.name.removesuffix(_PLAN)), []).append(plan)
    if len(by_model) > 1 and name not in by_model:
        raise InvalidArgument(
            f"{directory}: holds plans of several models ({', '.join(by_model)}) and none named {name!r}; name the "
            "model as its plans are named, or give one plan"
        )
    plans = by_model[name] if name in by_model else next(iter(by_model.values()))
    return tuple(file for plan in plans for file in (ArtifactFile(plan.name, plan), _manifest(plan)))


def _external(model: Path) -> Iterator[ArtifactFile]:
    for location in external_files(model):
        local = model.parent / location
        if not local.is_file():
            raise InvalidArgument(f"{model}: its weights are in {local}, which is not there; put it beside the model")
        yield ArtifactFile(Path(location).as_posix(), local)


def _model_directory(source: Path, name: str) -> Path:
    """`source` itself, or the model's directory in it where `source` is a whole repository."""
    if _is_model(source):
        return source
    models = [child for child in sorted(source.iterdir()) if child.is_dir() and _is_model(child)]
    named = [child for child in models if child.name == name]
    if len(named or models) == 1:
        return (named or models)[0]
    if models:
        raise InvalidArgument(
            f"{source}: holds several models ({', '.join(child.name for child in models)}) and none named {name!r}; "
            "name the directory of one"
        )
    raise InvalidArgument(
        f"{source}: expected Triton's layout, a directory with config.pbtxt or with numbered versions such as "
        "1/model.onnx"
    )


def _is_model(directory: Path) -> bool:
    return (directory / "config.pbtxt").is_file() or any(
        child.is_dir() and child.name.isdecimal() for child in directory.iterdir()
    )


def _directory(root: Path) -> tuple[ArtifactFile, ...]:
    files = [
        ArtifactFile(path.relative_to(root).as_posix(), path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not files:
        raise InvalidArgument(f"{root}: holds no file")
    return tuple(files)
