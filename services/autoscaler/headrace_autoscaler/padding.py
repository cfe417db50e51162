"""Whether the padding that a user declares can be right for a model. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from headrace_autoscaler.domain import Signature, TensorSpec

_INTEGERS = {
    f"{sign}INT{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
} | {"BOOL": (0, 1)}


def padding_mistakes(padding: tuple[tuple[str, float], ...], signature: Signature) -> tuple[str, ...]:
    """What is wrong with it: input, expected, found. Empty: nothing that the signature shows."""
    return tuple(_mistakes(padding, signature)) if padding else ()


def _mistakes(padding: tuple[tuple[str, float], ...], signature: Signature) -> Iterator[str]:
    if not signature.batchable:
        yield "the model is not batchable, so that its requests never share a batch: leave padding out"
        return
    by_name = {tensor.name: tensor for tensor in signature.inputs}
    for name, value in padding:
        tensor = by_name.get(name)
        if tensor is None:
            yield f"the model has no input {name!r}; there are: {', '.join(sorted(by_name))}"
        else:
            yield from _input_mistakes(tensor, value)
    for tensor in signature.outputs:
        if tensor.datatype == "BYTES" and -1 in tensor.shape[1:]:
            yield f"output {tensor.name!r} is BYTES with a free dimension, which cannot be cut back: leave padding out"


def _input_mistakes(tensor: TensorSpec, value: float) -> Iterator[str]:
    if tensor.datatype == "BYTES":
        yield f"input {tensor.name!r} is BYTES, which has no number to pad with"
    elif -1 not in tensor.shape[1:]:
        yield f"input {tensor.name!r} has no free dimension besides the batch; its shape is {list(tensor.shape)}"
    elif (bounds := _INTEGERS.get(tensor.datatype)) and not (value == value // 1 and bounds[0] <= value <= bounds[1]):
        yield f"input {tensor.name!r} is {tensor.datatype}, which cannot hold {value:g}"
