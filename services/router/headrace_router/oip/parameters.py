"""The protocol's parameters: what we honour, what we refuse by name.

Parameters that neither the protocol nor Triton reserves are for the model, as in Triton; engines here
take tensors only, so they are accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace_common.errors import InvalidArgument
from headrace_router.domain import RevisionEntry, SequenceRules, SequenceStep
from headrace_router.oip.elements import brief

FINAL_RESPONSE = "triton_enable_empty_final_response"
IS_FINAL = "triton_final_response"
BINARY_OUTPUT = "binary_data_output"
BINARY_DATA = "binary_data"
BINARY_SIZE = "binary_data_size"

SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END = "sequence_id", "sequence_start", "sequence_end"
_SEQUENCE = (SEQUENCE_ID, SEQUENCE_START, SEQUENCE_END)
MAX_ID_CHARACTERS = 128
"""As in Triton."""
_MOST_IDS = {"INT32": 2**31 - 1, "UINT32": 2**32 - 1, "INT64": 2**63 - 1, "UINT64": 2**64 - 1}
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a request's parameters say.

    Attributes:
        timeout_s: from `timeout`, microseconds; None: not set, or 0, which means the model's default.
        priority: 1 is the most urgent; 0: the model's default.
        sequence: of a stateful model always there, of others never.
    """

    timeout_s: float | None = None
    priority: int = 0
    sequence: SequenceStep | None = None


NO_SETTINGS = Settings()


def read_settings(parameters: Mapping[str, object], entry: RevisionEntry) -> Settings:
    """The request's own parameters.

    A priority beyond the model's levels is the default one, as in Triton.

    Raises:
        InvalidArgument: a value of the wrong type; a sequence where the model keeps no state; none where it does.
    """
    sequence = None if entry.sequences is None else _read_sequence(parameters, entry.model, entry.sequences)
    if not parameters:
        return NO_SETTINGS
    for name in _SEQUENCE:
        if sequence is None and parameters.get(name):
            raise InvalidArgument(f"parameter {name!r}: model {entry.model!r} is not stateful; leave it out")
    timeout_us = _count(parameters, "timeout", "microseconds")
    priority = _count(parameters, "priority", "1 is the most urgent, 0 the model's default")
    return Settings(
        timeout_s=timeout_us / 1_000_000 if timeout_us else None,
        priority=priority if priority <= entry.batching.priority_levels else 0,
        sequence=sequence,
    )


def _read_sequence(parameters: Mapping[str, object], model: str, rules: SequenceRules) -> SequenceStep:
    what = f"model {model!r} is stateful, so each request names its sequence by the parameter {SEQUENCE_ID!r}"
    value = parameters.get(SEQUENCE_ID, 0)
    if value in (0, "") and not isinstance(value, bool):
        raise InvalidArgument(
            f"{what}, a number from 1 or a text, and the first one of a sequence has {SEQUENCE_START!r}: true; got none"
        )
    datatype = rules.id_datatype
    most = _MOST_IDS.get(datatype, _MOST_IDS["UINT64"])
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        pass
    elif not isinstance(value, str) or datatype in _MOST_IDS or len(value) > MAX_ID_CHARACTERS:
        text = "" if datatype in _MOST_IDS else f", or a text of at most {MAX_ID_CHARACTERS} characters"
        raise InvalidArgument(f"{what}, a number from 1 to {most}{text}; got {brief(value)}")
    start = flag(parameters, SEQUENCE_START, False, "the request")
    end = flag(parameters, SEQUENCE_END, False, "the request")
    return SequenceStep(value, start, end)


def check_tensor_parameters(parameters: Mapping[str, object], where: str) -> None:
    """The parameters of one input or output.

    Raises:
        InvalidArgument: shared memory or classification is asked for.
    """
    for name in _SHARED_MEMORY:
        if name in parameters:
            raise InvalidArgument(f"{where}: parameter {name!r}: shared memory is not offered; send the data itself")
    if parameters.get("classification"):
        raise InvalidArgument(
            f"{where}: parameter 'classification' is not offered; ask for the tensor and rank it yourself"
        )


def flag(parameters: Mapping[str, object], name: str, default: bool, where: str) -> bool:
    """A boolean parameter. Raises InvalidArgument where it is something else."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{where}: parameter {name!r} is true or false; got {brief(value)}")
    return value


def _count(parameters: Mapping[str, object], name: str, unit: str) -> int:
    value = parameters.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidArgument(f"parameter {name!r} is a whole number, at least 0 ({unit}); got {brief(value)}")
    return value
