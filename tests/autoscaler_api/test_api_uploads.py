"""Uploads: whole, broken, and left by their client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from headrace.v1 import models_pb2

Code = grpc.StatusCode


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


# Conversions.


async def parts(*requests: models_pb2.UploadArtifactRequest) -> AsyncIterator[models_pb2.UploadArtifactRequest]:
    for request in requests:
        yield request


def announce(path: str, content: bytes = b"", sha256: str = "") -> models_pb2.UploadArtifactRequest:
    header = models_pb2.UploadArtifactRequest.FileHeader(
        path=path, size_bytes=len(content), sha256=sha256 or hashlib.sha256(content).hexdigest()
    )
    return models_pb2.UploadArtifactRequest(file=header)


async def test_an_upload_answers_the_artifact_and_its_size(api: Any) -> None:
    content = b"x" * 5000
    chunks = [models_pb2.UploadArtifactRequest(chunk=content[at : at + 2048]) for at in range(0, 5000, 2048)]
    answer = await api.models.UploadArtifact(parts(announce("m.onnx", content), *chunks))
    assert answer.size_bytes == 5000
    assert (api.artifacts.directory / answer.artifact / "m.onnx").read_bytes() == content


@pytest.mark.parametrize(
    ("requests", "code", "message"),
    [
        ([], Code.INVALID_ARGUMENT, "holds no file"),
        ([models_pb2.UploadArtifactRequest()], Code.INVALID_ARGUMENT, "part"),
        ([announce("m", sha256="XYZ")], Code.INVALID_ARGUMENT, "file.sha256: "),
        ([announce("")], Code.INVALID_ARGUMENT, "file.path: "),
        ([announce("../m")], Code.INVALID_ARGUMENT, "'../m': the path holds"),
        ([models_pb2.UploadArtifactRequest(chunk=b"x")], Code.INVALID_ARGUMENT, "before any file header"),
        ([announce("m", b"x" * (17 << 20))], Code.RESOURCE_EXHAUSTED, "over the limit of 16Mi"),
    ],
    ids=["nothing", "no part", "bad digest", "no path", "traversal", "no header", "too large"],
)
async def test_a_broken_upload_is_refused(
    api: Any, requests: list[models_pb2.UploadArtifactRequest], code: grpc.StatusCode, message: str
) -> None:
    got, told = await refused(api.models.UploadArtifact(parts(*requests)))
    assert got is code
    assert message in told
    assert api.stored_artifacts() == set()


async def eventually(condition: Callable[[], bool]) -> bool:
    """Waits for what another process or thread does, five seconds at most."""
    for _ in range(500):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


async def test_an_upload_whose_client_goes_away_leaves_nothing(api: Any) -> None:
    begun = asyncio.Event()

    async def stalls() -> AsyncIterator[models_pb2.UploadArtifactRequest]:
        yield announce("m.onnx", b"abc")
        begun.set()
        await asyncio.Event().wait()

    call = api.models.UploadArtifact(stalls())
    await begun.wait()
    incoming = api.artifacts.directory / ".incoming"
    assert await eventually(lambda: bool(list(incoming.glob("*/m.onnx"))))
    call.cancel()
    assert await eventually(lambda: not list(incoming.iterdir()))
    assert api.stored_artifacts() == set()


# Models.
