"""Padding that cannot be right is refused when it is declared."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from headrace_autoscaler.control.messages import model_entry
from headrace_autoscaler.domain import Signature, TensorSpec
from headrace_autoscaler.padding import padding_mistakes

SIGNATURE = Signature(
    inputs=(
        TensorSpec("tokens", "INT32", (-1, -1)),
        TensorSpec("mask", "FP32", (-1, -1)),
        TensorSpec("text", "BYTES", (-1, -1)),
        TensorSpec("image", "FP32", (-1, 3, 224, 224)),
    ),
    outputs=(TensorSpec("y", "FP32", (-1, -1)),),
    batchable=True,
)


@pytest.mark.parametrize(
    ("name", "value", "mistake"),
    [
        ("tokens", 0.0, None),
        ("mask", -0.5, None),
        ("token", 0.0, "the model has no input 'token'; there are: image, mask, text, tokens"),
        ("text", 0.0, "input 'text' is BYTES, which has no number to pad with"),
        ("image", 0.0, "input 'image' has no free dimension besides the batch; its shape is [-1, 3, 224, 224]"),
        ("tokens", 0.5, "input 'tokens' is INT32, which cannot hold 0.5"),
        ("tokens", 2.0**31, "input 'tokens' is INT32, which cannot hold 2.14748e+09"),
        ("tokens", float("inf"), "input 'tokens' is INT32, which cannot hold inf"),
    ],
)
def test_what_may_be_padded_and_with_what(name: str, value: float, mistake: str | None) -> None:
    assert padding_mistakes(((name, value),), SIGNATURE) == (() if mistake is None else (mistake,))


def test_a_model_that_never_batches_and_outputs_that_cannot_be_cut_back() -> None:
    alone = Signature(SIGNATURE.inputs, SIGNATURE.outputs, batchable=False)
    [mistake] = padding_mistakes((("tokens", 0.0),), alone)
    assert "not batchable" in mistake
    texts = Signature(SIGNATURE.inputs, (TensorSpec("words", "BYTES", (-1, -1)),), batchable=True)
    [mistake] = padding_mistakes((("tokens", 0.0),), texts)
    assert "output 'words' is BYTES with a free dimension" in mistake
    assert padding_mistakes((), alone) == ()


@pytest.mark.parametrize(
    ("padding", "reason"),
    [
        ({"z": 0.0}, "padding: the model has no input 'z'; there are: x"),
        ({"x": 0.0}, "padding: input 'x' has no free dimension besides the batch; its shape is [-1, 3]"),
    ],
)
async def test_a_deploy_is_told_what_is_wrong(
    api: Any, onnx_model: Any, padding: dict[str, float], reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await api.deploy("m", {"m.onnx": onnx_model()}, padding=padding)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_what_is_right_is_kept_told_to_routers_and_changed_by_a_new_revision(api: Any, onnx_model: Any) -> None:
    files = {"m.onnx": onnx_model(width="width")}
    model = await api.deploy("m", files, padding={"x": -1.0})
    assert dict(model.spec.padding) == {"x": -1.0}
    [revision] = model_entry(api.catalogue.model("m"), {}, 1).revisions
    assert dict(revision.batching.pad) == {"x": -1.0}
    again = await api.deploy("m", files, padding={"x": -1.0})
    assert [version.revision for version in again.versions] == [1]
    changed = await api.deploy("m", files)
    assert max(version.revision for version in changed.versions) == 2
    assert not changed.spec.padding
