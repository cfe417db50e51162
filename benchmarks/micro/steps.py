"""The hot route's single steps, each as a function that does it once on ordinary input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.micro.route import framed
from headrace.runner.v1 import runner_pb2
from headrace_router.bundles import encode_bundle, split_outputs
from headrace_router.core.accounts import Account
from headrace_router.core.admission import Limiter
from headrace_router.core.batching import Bundle
from headrace_router.core.waiting import Waiting
from headrace_router.domain import InferenceRequest, RevisionEntry, TensorData, TensorSpec
from headrace_router.oip.header import split
from headrace_router.oip.wire import ResponseTemplate

_ROWS = 64
_ENTRY = RevisionEntry(
    model="mlp",
    owner="default",
    revision=1,
    version="1",
    inputs=(TensorSpec("x", "FP32", (-1, 64)),),
    outputs=(TensorSpec("y", "FP32", (-1, 10)),),
    batchable=True,
    max_batch_size=_ROWS,
)


def header_split() -> Callable[[], Any]:
    """The request's bytes taken apart."""
    message = framed((64,))[5:]
    return lambda: split(message)


def response_encoded() -> Callable[[], Any]:
    """One answer from a prepared template."""
    template = ResponseTemplate(_ENTRY)
    outputs = [TensorData("y", "FP32", (1, 10), bytes(40))]
    return lambda: template.encode(b"", outputs)


def bundle_encoded() -> Callable[[], Any]:
    """64 requests as one message to a runner."""
    bundle = _bundle()
    return lambda: encode_bundle(1, bundle, _ENTRY, 0.0)


def bundle_split() -> Callable[[], Any]:
    """A runner's answer to 64 requests, cut up."""
    bundle = _bundle()
    outputs = [runner_pb2.Tensor(name="y", datatype="FP32", shape=[_ROWS, 10], data=bytes(40 * _ROWS))]
    return lambda: split_outputs(outputs, bundle, _ENTRY)


STEPS: dict[str, Callable[[], Callable[[], Any]]] = {
    "header split": header_split,
    "response encoded": response_encoded,
    "bundle of 64 encoded": bundle_encoded,
    "bundle of 64 split": bundle_split,
}
"""By the names in `budgets`; each makes what it needs and returns the function to count."""


def _bundle() -> Bundle:
    account = Account("t", "mlp", 1, Limiter("tenant"), Limiter("model"))
    items = []
    for _ in range(_ROWS):
        tensor = TensorData("x", "FP32", (1, 64), bytes(256))
        request = InferenceRequest(_ENTRY, "t", [tensor], (), 1, 0.0, size_bytes=256)
        items.append(Waiting(request, None, account, (), 1, 0.0))  # type: ignore[arg-type] # nobody waits
    return Bundle(items, _ROWS, (), float("inf"), 0)
