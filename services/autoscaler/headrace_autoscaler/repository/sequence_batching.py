"""config.pbtxt's sequence_batching: what is refused of it, and what it comes to. Pure.

Semantics: triton-inference-server, docs/user_guide/implicit_state_management.md and batcher.md ("Sequence Batcher").
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace.oip import model_config_pb2 as pb
from headrace_autoscaler.domain import SEQUENCE_IDLE_S, Sequences, SequenceSignal, StateTensor
from headrace_autoscaler.repository.datatypes import datatype_of

INITIAL_DIRECTORY = "initial_state"
"""Where a model's folder has the files that initial_state.data_file names."""

LONGEST_IDLE_US = 1 << 63
"""For ever. The format's own most is not, in seconds and back, what it was, and does not fit where it is sent."""

_Control = pb.ModelSequenceBatching.Control
_KINDS = {
    _Control.CONTROL_SEQUENCE_START: "start",
    _Control.CONTROL_SEQUENCE_END: "end",
    _Control.CONTROL_SEQUENCE_READY: "ready",
    _Control.CONTROL_SEQUENCE_CORRID: "id",
}
_ID_DATATYPES = ("BYTES", "INT32", "INT64", "UINT32", "UINT64")


def sequence_refusals(config: pb.ModelConfig) -> Iterator[str]:
    """What headrace does not do of its sequence_batching, by path and with the reason."""
    batching = config.sequence_batching
    if config.HasField("sequence_batching") and not batching.state:
        yield "sequence_batching without state (an engine here keeps none of its own between requests)"
    for index, tensor in enumerate(batching.control_input):
        path = f"sequence_batching.control_input[{index}]"
        if not tensor.name:
            yield f"{path} without a name"
        if len(tensor.control) != 1:
            yield f"{path} with {len(tensor.control)} controls (expected one)"
        for control in tensor.control:
            yield from _control_refusals(control, f"{path}.control[0]")
    for index, state in enumerate(batching.state):
        path = f"sequence_batching.state[{index}]"
        if not (state.input_name and state.output_name):
            yield f"{path} (expected input_name and output_name)"
        if len(state.initial_state) > 1:
            yield f"{path} with {len(state.initial_state)} initial states (expected one at most)"
        for initial in state.initial_state:
            if initial.data_type != state.data_type or list(initial.dims) != list(state.dims):
                yield f"{path}.initial_state (expected data_type and dims as the state's)"
            file = initial.data_file
            if file and ("/" in file or file.startswith(".")):
                yield f"{path}.initial_state.data_file {file!r} (expected the name of a file in {INITIAL_DIRECTORY}/)"


def _control_refusals(control: _Control, path: str) -> Iterator[str]:
    sizes = [len(control.int32_false_true), len(control.fp32_false_true), len(control.bool_false_true)]
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        if datatype_of(control.data_type) not in _ID_DATATYPES:
            yield f"{path}.data_type (expected TYPE_STRING, or an INT or UINT of 32 or 64 bits)"
    elif control.kind not in _KINDS or sorted(sizes) != [0, 0, 2]:
        yield f"{path} (expected one of int32_false_true, fp32_false_true, bool_false_true, with two values)"


def sequences_of(config: pb.ModelConfig) -> Sequences:
    """For what `sequence_refusals` lets pass. Initial states from files are to be filled in."""
    batching, dims_hold_batch = config.sequence_batching, config.max_batch_size < 1
    idle_us = min(batching.max_sequence_idle_microseconds, LONGEST_IDLE_US)
    return Sequences(
        states=tuple(_state(state, dims_hold_batch) for state in batching.state),
        signals=tuple(_signal(tensor.name, tensor.control[0]) for tensor in batching.control_input),
        max_idle_s=idle_us / 1e6 if idle_us else SEQUENCE_IDLE_S,
    )


def _state(state: pb.ModelSequenceBatching.State, dims_hold_batch: bool) -> StateTensor:
    return StateTensor(
        input=state.input_name,
        output=state.output_name,
        datatype=datatype_of(state.data_type),
        dims=tuple(state.dims) if state.dims else None,
        initial_file=state.initial_state[0].data_file if state.initial_state else "",
        dims_hold_batch=dims_hold_batch,
    )


def _signal(name: str, control: _Control) -> SequenceSignal:
    kind = _KINDS[control.kind]
    if kind == "id":
        return SequenceSignal(name, kind, datatype_of(control.data_type))
    if control.int32_false_true:
        datatype, values = "INT32", np.array(control.int32_false_true, "<i4")
    elif control.fp32_false_true:
        datatype, values = "FP32", np.array(control.fp32_false_true, "<f4")
    else:
        datatype, values = "BOOL", np.array(control.bool_false_true, "?")
    return SequenceSignal(name, kind, datatype, values[:1].tobytes(), values[1:].tobytes())
