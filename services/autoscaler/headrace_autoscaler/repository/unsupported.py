"""Finds what a config.pbtxt sets and headrace does not do, by its path. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Union

from google.protobuf.message import Message

Tree = Mapping[str, Union["Tree", None]]
"""Supported fields by name; None: the whole field, as it is."""

SUPPORTED: Tree = {
    "name": None,
    "platform": None,
    "backend": None,
    "max_batch_size": None,
    "input": {"name": None, "data_type": None, "dims": None, "optional": None},
    "output": {"name": None, "data_type": None, "dims": None},
    "version_policy": None,
    "instance_group": {"name": None, "kind": None, "count": None},
    "dynamic_batching": {
        "preferred_batch_size": None,
        "max_queue_delay_microseconds": None,
        "priority_levels": None,
        "default_priority_level": None,
        "default_queue_policy": None,
    },
    "sequence_batching": {
        "max_sequence_idle_microseconds": None,
        "control_input": {
            "name": None,
            "control": {
                "kind": None,
                "int32_false_true": None,
                "fp32_false_true": None,
                "bool_false_true": None,
                "data_type": None,
            },
        },
        "state": {"input_name": None, "output_name": None, "data_type": None, "dims": None, "initial_state": None},
        "direct": {},
        "oldest": {"preferred_batch_size": None, "max_queue_delay_microseconds": None},
    },
    "model_warmup": {"name": None, "batch_size": None, "count": None, "inputs": None},
    "response_cache": None,
    "default_model_filename": None,
    "parameters": None,
}


def unsupported(message: Message, supported: Tree = SUPPORTED, prefix: str = "") -> Iterator[str]:
    """Paths of the fields that are set and not in `supported`, such as "input[0].reshape"."""
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        if descriptor.name not in supported:
            yield path
            continue
        below = supported[descriptor.name]
        if below is not None:
            for index, item in _items(value):
                yield from unsupported(item, below, f"{path}{index}.")


def _items(value: Any) -> Iterator[tuple[str, Message]]:
    if isinstance(value, Message):
        yield "", value
        return
    for index, item in enumerate(value):
        yield f"[{index}]", item
