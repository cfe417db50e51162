"""`InferenceResult` to a REST answer: JSON, and JSON with the binary tensor extension. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson

from headrace_common.errors import Unimplemented
from headrace_router.domain import Buffer, InferenceResult, RevisionEntry, TensorData
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.oip.elements import split_elements
from headrace_router.oip.parameters import BINARY_DATA, BINARY_SIZE


def encode_json(
    entry: RevisionEntry, request_id: str, result: InferenceResult, binary: frozenset[str]
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON where binary tensors follow it (None: there are none).

    Raises:
        Unimplemented: an output that was not asked for in binary form holds what JSON cannot say: NaN,
            infinity, or bytes that are not UTF-8. (The request was right and so was the engine.)
    """
    tail: list[Buffer] = []
    outputs: list[dict[str, Any]] = []
    for tensor in result.outputs:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if tensor.name in binary:
            output["parameters"] = {BINARY_SIZE: len(tensor.data)}
            tail.append(tensor.data)
        else:
            output["data"] = _values(tensor)
        outputs.append(output)
    document: dict[str, Any] = {"model_name": entry.model, "model_version": entry.version}
    if request_id:
        document["id"] = request_id
    document["outputs"] = outputs
    text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    # What is not finite is written so; names may hold that word, too.
    if b"null" in text:
        _check_finite(result.outputs, binary)
    return (b"".join([text, *tail]), len(text)) if tail else (text, None)


def _values(tensor: TensorData) -> Any:
    """Flat, row-major."""
    dtype = DATATYPES[tensor.datatype].dtype
    if dtype is None:
        return _strings(tensor)
    values = np.frombuffer(tensor.data, dtype)
    return values if values.flags.aligned else values.copy()


def _check_finite(outputs: Iterable[TensorData], binary: frozenset[str]) -> None:
    for tensor in outputs:
        dtype = DATATYPES[tensor.datatype].dtype
        if tensor.name in binary or dtype is None or dtype.kind != "f":
            continue
        if not np.isfinite(np.frombuffer(tensor.data, dtype)).all():
            raise _unsayable(tensor, "NaN or infinity")


def _strings(tensor: TensorData) -> list[str]:
    try:
        return [element.decode() for element in split_elements(tensor.data, f"output {tensor.name!r}")]
    except UnicodeDecodeError:
        raise _unsayable(tensor, "bytes that are not UTF-8") from None


def _unsayable(tensor: TensorData, what: str) -> Unimplemented:
    return Unimplemented(
        f"output {tensor.name!r} holds {what}, which JSON cannot carry; ask for it with the parameter "
        f"{BINARY_DATA!r}: true"
    )
