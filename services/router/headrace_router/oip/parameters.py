"""The protocol's parameters: what we honour, what we refuse by name.

Parameters that neither the protocol nor Triton reserves are for the model, as in Triton; engines here
take tensors only, so they are accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace_common.errors import InvalidArgument
from headrace_router.domain import RevisionEntry
from headrace_router.oip.elements import brief

FINAL_RESPONSE = "triton_enable_empty_final_response"
IS_FINAL = "triton_final_response"
BINARY_OUTPUT = "binary_data_output"
BINARY_DATA = "binary_data"
BINARY_SIZE = "binary_data_size"

_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
_SHARED_MEMORY = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a request's parameters say.

    Attributes:
        timeout_s: from `timeout`, microseconds; None: not set, or 0, which means the model's default.
        priority: 1 is the most urgent; 0: the model's default.
    """

    timeout_s: float | None = None
    priority: int = 0


NO_SETTINGS = Settings()


def read_settings(parameters: Mapping[str, object], entry: RevisionEntry) -> Settings:
    """The request's own parameters.

    A priority beyond the model's levels is the default one, as in Triton.

    Raises:
        InvalidArgument: a value of the wrong type, or a sequence, which no model here keeps state for.
    """
    if not parameters:
        return NO_SETTINGS
    for name in _SEQUENCE:
        if parameters.get(name):
            raise InvalidArgument(f"parameter {name!r}: model {entry.model!r} is not stateful; leave it out")
    timeout_us = _count(parameters, "timeout", "microseconds")
    priority = _count(parameters, "priority", "1 is the most urgent, 0 the model's default")
    return Settings(
        timeout_s=timeout_us / 1_000_000 if timeout_us else None,
        priority=priority if priority <= entry.batching.priority_levels else 0,
    )


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
