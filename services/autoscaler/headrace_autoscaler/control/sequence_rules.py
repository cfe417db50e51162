"""How a stateful model keeps state, as routers are told it."""

from __future__ import annotations

from headrace.control.v1 import control_pb2
from headrace_autoscaler.domain import Sequences, Signature
from headrace_autoscaler.sequences import shape_of_one, state_bytes

_KINDS = {
    "start": control_pb2.SEQUENCE_SIGNAL_KIND_START,
    "end": control_pb2.SEQUENCE_SIGNAL_KIND_END,
    "ready": control_pb2.SEQUENCE_SIGNAL_KIND_READY,
    "id": control_pb2.SEQUENCE_SIGNAL_KIND_ID,
}


def sequence_rules(sequences: Sequences, signature: Signature) -> control_pb2.SequenceRules:
    """Of what has been held against the signature: see `headrace_autoscaler.sequences`."""
    inputs = {tensor.name: tensor for tensor in signature.inputs}
    rules = control_pb2.SequenceRules(max_idle_us=round(sequences.max_idle_s * 1e6))
    for state in sequences.states:
        tensor = inputs[state.input]
        rules.states.add(
            input=state.input,
            output=state.output,
            datatype=tensor.datatype,
            shape=shape_of_one(tensor, signature),
            size_bytes=state_bytes(tensor, signature),
            initial=state.initial,
        )
    for each in sequences.signals:
        shape = [1] * len(inputs[each.input].shape)
        rules.signals.add(
            input=each.input, kind=_KINDS[each.kind], datatype=each.datatype, shape=shape, off=each.off, on=each.on
        )
    return rules
