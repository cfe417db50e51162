"""config.pbtxt's model_warmup to batches of tensor data. Pure: the same configuration, the same data."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from headrace.oip import model_config_pb2 as pb
from headrace_autoscaler.domain import Warmup, WarmupTensor
from headrace_autoscaler.repository.datatypes import ELEMENT_BYTES, datatype_of

MAX_BYTES = 16 << 20
"""Of all warm-up data of a model: it is stored with the revision and sent with every load."""
MAX_BATCHES = 1_000
MAX_DIMENSIONS = 32

_RANDOM_INTEGERS_BELOW = 100
"""Small, so that random token ids stay inside a vocabulary."""


def warmup_refusals(samples: Iterable[pb.ModelWarmup], max_batch_size: int) -> Iterator[str]:
    """What headrace does not do of these, by path and with the reason."""
    total = batches = 0
    for index, sample in enumerate(samples):
        batches += max(sample.count, 1)
        path = f"model_warmup[{index}]"
        if sample.batch_size > max(max_batch_size, 1):
            yield f"{path}.batch_size {sample.batch_size} (max_batch_size is {max_batch_size})"
        for name, tensor in sample.inputs.items():
            where = f"{path}.inputs[{name!r}]"
            if tensor.WhichOneof("input_data_type") == "input_data_file":
                yield f"{where}.input_data_file (only zero_data and random_data)"
            elif not getattr(tensor, tensor.WhichOneof("input_data_type") or "zero_data"):
                yield f"{where} (expected zero_data: true or random_data: true)"
            if not datatype_of(tensor.data_type):
                yield f"{where}.data_type (expected one such as TYPE_FP32)"
            elif len(tensor.dims) > MAX_DIMENSIONS:
                yield f"{where}.dims of {len(tensor.dims)} sizes (at most {MAX_DIMENSIONS})"
            elif any(size < 1 for size in tensor.dims):
                yield f"{where}.dims {list(tensor.dims)} (expected sizes of at least 1)"
            else:
                shape = _shape(sample, tensor, max_batch_size)
                total += max(sample.count, 1) * math.prod(shape) * ELEMENT_BYTES[datatype_of(tensor.data_type)]
    if batches > MAX_BATCHES:
        yield f"model_warmup of {batches} batches in all (at most {MAX_BATCHES})"
    if total > MAX_BYTES:
        yield f"model_warmup of {total} bytes in all (at most {MAX_BYTES})"


def warmups(samples: Iterable[pb.ModelWarmup], max_batch_size: int) -> tuple[Warmup, ...]:
    """The batches, each as often as its count says; only for what `warmup_refusals` lets pass."""
    result: list[Warmup] = []
    for sample in samples:
        inputs = tuple(
            _tensor(name, sample.inputs[name], _shape(sample, sample.inputs[name], max_batch_size))
            for name in sorted(sample.inputs)
        )
        result += [Warmup(sample.name, max(sample.batch_size, 1), inputs)] * max(sample.count, 1)
    return tuple(result)


def _shape(sample: pb.ModelWarmup, tensor: pb.ModelWarmup.Input, max_batch_size: int) -> tuple[int, ...]:
    batch = (max(sample.batch_size, 1),) if max_batch_size > 0 else ()
    return batch + tuple(tensor.dims)


def _tensor(name: str, tensor: pb.ModelWarmup.Input, shape: tuple[int, ...]) -> WarmupTensor:
    datatype = datatype_of(tensor.data_type)
    elements = math.prod(shape)
    zero = tensor.WhichOneof("input_data_type") == "zero_data"
    data = bytes(elements * ELEMENT_BYTES[datatype]) if zero else _random(name, datatype, elements)
    return WarmupTensor(name, datatype, shape, data)


def _random(name: str, datatype: str, elements: int) -> bytes:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if datatype == "BYTES":
        # Not empty strings: one letter each, with its length before it.
        letters = generator.integers(ord("a"), ord("z") + 1, elements, dtype=np.uint8)
        return b"".join(b"\x01\x00\x00\x00" + bytes([letter]) for letter in letters)
    if datatype == "BF16":
        # The upper half of a 32-bit float.
        return (generator.random(elements, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    if datatype.startswith("FP"):
        width = ELEMENT_BYTES[datatype]
        return generator.random(elements).astype(f"<f{width}").tobytes()
    below = 2 if datatype == "BOOL" else _RANDOM_INTEGERS_BELOW
    return generator.integers(0, below, elements).astype(f"<u{ELEMENT_BYTES[datatype]}").tobytes()
