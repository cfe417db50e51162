"""What a deploy says of a model's state, held against what the engine found in the model. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from headrace_autoscaler.domain import (
    ModelSpec,
    Sequences,
    SequenceSignal,
    Signature,
    StateTensor,
    TensorSpec,
)
from headrace_autoscaler.repository.datatypes import ELEMENT_BYTES
from headrace_common.errors import InvalidArgument

MAX_STATE_BYTES = 16 << 20
"""Of one sequence: the state goes to a runner and back with each of its requests."""
MAX_INITIAL_BYTES = 64 << 10
"""Of a model's initial states that are not zeros: routers are told them with the catalogue, in one message."""


def settled_sequences(spec: ModelSpec, configured: Sequences | None) -> Sequences | None:
    """What the spec and config.pbtxt come to; None: the model is not stateful.

    Raises:
        InvalidArgument: both say it, or what is said cannot be together.
    """
    if spec.states and configured is not None:
        raise InvalidArgument("states: config.pbtxt has sequence_batching already; expected one of the two")
    if spec.sequence_idle_s is not None and not spec.states and configured is None:
        raise InvalidArgument("sequence_idle: the model is not stateful; expected states as well, or sequence_batching")
    sequences = configured
    if spec.states:
        sequences = Sequences(tuple(StateTensor(into, out) for out, into in spec.states))
    if sequences is None or spec.sequence_idle_s is None:
        return sequences
    return replace(sequences, max_idle_s=spec.sequence_idle_s)


def sequence_mistakes(sequences: Sequences | None, signature: Signature) -> tuple[str, ...]:
    """What is wrong with it: tensor, expected, found. Empty: nothing."""
    return tuple(_mistakes(sequences, signature)) if sequences is not None else ()


def public_signature(signature: Signature, sequences: Sequences | None) -> Signature:
    """What clients send and get: without the tensors that routers add and take out."""
    if sequences is None:
        return signature
    inputs, outputs = hidden_inputs(sequences), {state.output for state in sequences.states}
    return replace(
        signature,
        inputs=tuple(tensor for tensor in signature.inputs if tensor.name not in inputs),
        outputs=tuple(tensor for tensor in signature.outputs if tensor.name not in outputs),
    )


def hidden_inputs(sequences: Sequences | None) -> frozenset[str]:
    """Inputs that clients do not send."""
    if sequences is None:
        return frozenset()
    return frozenset((*(state.input for state in sequences.states), *(each.input for each in sequences.signals)))


def shape_of_one(tensor: TensorSpec, signature: Signature) -> tuple[int, ...]:
    """Of a tensor of one sequence: a batch of one row where there is a batch."""
    return (1, *tensor.shape[1:]) if signature.batchable else tensor.shape


def state_bytes(tensor: TensorSpec, signature: Signature) -> int:
    """Of one sequence, in raw form. The shape has no free dimension and the datatype is not BYTES."""
    return math.prod(shape_of_one(tensor, signature)) * ELEMENT_BYTES[tensor.datatype]


def _mistakes(sequences: Sequences, signature: Signature) -> Iterator[str]:
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    outputs = {tensor.name: tensor for tensor in signature.outputs}
    if twice := _twice([*(state.input for state in sequences.states), *(each.input for each in sequences.signals)]):
        yield f"input {twice!r} is named twice; expected each once"
    if twice := _twice(state.output for state in sequences.states):
        yield f"output {twice!r} is named twice; expected each once"
    total = 0
    for state in sequences.states:
        given, left = inputs.get(state.input), outputs.get(state.output)
        if given is None:
            yield _missing("input", state.input, inputs)
        elif left is None:
            yield _missing("output", state.output, outputs)
        elif wrong := _unlike(state, given, left, signature):
            yield wrong
        else:
            size = state_bytes(given, signature)
            total += size
            if state.initial and len(state.initial) != size:
                yield (
                    f"state {state.input!r}: its initial state takes {size} bytes, {given.datatype} of shape "
                    f"{list(shape_of_one(given, signature))}; {state.initial_file!r} has {len(state.initial)}"
                )
    if total > MAX_STATE_BYTES:
        yield f"the state of one sequence takes {total} bytes; expected at most {MAX_STATE_BYTES}"
    for each in sequences.signals:
        yield from _signal_mistakes(each, inputs, signature)


def _unlike(state: StateTensor, given: TensorSpec, left: TensorSpec, signature: Signature) -> str:
    name = f"state {state.output!r} -> {state.input!r}"
    if given.datatype == "BYTES" or left.datatype == "BYTES":
        return f"{name}: BYTES has no fixed size; expected numbers"
    if given.datatype != left.datatype:
        return f"{name}: the output is {left.datatype}, the input {given.datatype}; expected the same"
    if state.datatype and state.datatype != given.datatype:
        return f"{name}: expected {state.datatype}, as declared; the model has {given.datatype}"
    ours, theirs = shape_of_one(given, signature), shape_of_one(left, signature)
    declared = _declared(state, signature)
    for kind, shape in (("input", ours), ("output", theirs), ("declaration", declared or ())):
        if any(size < 1 for size in shape):
            where = "besides the batch " if signature.batchable else ""
            return (
                f"{name}: its {kind} has shape {list(shape)}; expected fixed sizes {where}(a model whose state has its "
                "batch elsewhere than in front needs a Transpose around it)"
            )
    if ours != theirs:
        return f"{name}: the output's shape is {list(theirs)}, the input's {list(ours)}; expected the same"
    if declared is not None and declared != ours:
        return f"{name}: expected shape {list(declared)}, as declared; the model has {list(ours)}"
    return ""


def _declared(state: StateTensor, signature: Signature) -> tuple[int, ...] | None:
    """The shape that it says one sequence's has; None: it says none."""
    dims = state.dims
    if dims is None or not signature.batchable:
        return dims
    if not state.dims_hold_batch:
        return (1, *dims)
    return (1, *dims[1:]) if dims[:1] == (-1,) else dims


def _signal_mistakes(each: SequenceSignal, inputs: dict[str, TensorSpec], signature: Signature) -> Iterator[str]:
    tensor = inputs.get(each.input)
    if tensor is None:
        yield _missing("input", each.input, inputs)
    elif tensor.datatype != each.datatype:
        yield f"control input {each.input!r}: expected {each.datatype}, as declared; the model has {tensor.datatype}"
    elif any(size not in (1, -1) for size in shape_of_one(tensor, signature)):
        yield f"control input {each.input!r}: expected one element; the model has shape {list(tensor.shape)}"


def _missing(kind: str, name: str, known: Iterable[str]) -> str:
    return f"the model has no {kind} {name!r}; there are: {', '.join(sorted(known)) or 'none'}"


def _twice(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
