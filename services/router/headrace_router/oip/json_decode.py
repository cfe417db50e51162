"""REST inference requests to `InferenceRequest`: JSON, and JSON with the binary tensor extension. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from headrace_common.errors import InvalidArgument
from headrace_router.domain import Buffer, InferenceRequest
from headrace_router.oip.caller import Caller
from headrace_router.oip.datatypes import RAW_ONLY
from headrace_router.oip.decode import bind
from headrace_router.oip.elements import brief, pack_json
from headrace_router.oip.header import MAX_HEADER_BYTES
from headrace_router.oip.json_parse import Json, check_key_count, count_keys, kind_of, member, parse_object
from headrace_router.oip.parameters import (
    BINARY_DATA,
    BINARY_OUTPUT,
    BINARY_SIZE,
    Settings,
    check_tensor_parameters,
    flag,
    read_settings,
)
from headrace_router.oip.signature import DeclaredTensor, InputLayout, Layout, Signature

_REQUEST = "the request"
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class JsonInference:
    """A request and how its answer is to look.

    Attributes:
        binary: names of the outputs that go behind the JSON in raw form.
    """

    request: InferenceRequest
    request_id: str
    binary: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Checked:
    """What a document comes to, without its id and the `data` of its inputs.

    Attributes:
        signature: what it was checked against.
        inputs: as they came, for what their parameters say of binary data.
        keys: how many keys it has.
    """

    signature: Signature
    inputs: list[Json]
    layout: Layout
    settings: Settings
    binary: frozenset[str]
    keys: int


class JsonDecoder:
    """Parses, checks and binds requests.

    From request to request of one client all but the id and the data is mostly the same. Serialised again,
    the rest of a document is a key under which the result of checking it is kept.

    Args:
        capacity: documents remembered; the oldest go first.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._known: dict[tuple[tuple[str, int], bytes], _Checked] = {}

    def decode(
        self, body: bytes, header_length: int | None, signature: Signature, caller: Caller, now: float
    ) -> JsonInference:
        """A request to the revision of `signature`.

        Args:
            body: JSON, then the binary tensors in the order of the inputs.
            header_length: length of the JSON; None: it is the whole body.
            now: monotonic seconds.

        Raises:
            InvalidArgument: says where in the JSON, or names the tensor, what was expected and what came.
        """
        text, tail = _split(body, header_length)
        document = parse_object(text)
        kept = len(document)
        request_id = member(document, "id", str, _REQUEST, "")
        document.pop("id", None)
        values = _take_data(document)
        # Keys that are taken out count as well.
        kept += len(values) - values.count(_ABSENT) - len(document)
        checked = self._check(document, signature)
        data = _data(values, checked, tail)
        check_key_count(text, checked.keys + kept)
        request = bind(signature.entry, checked.layout, data, checked.settings, caller, now)
        return JsonInference(request, request_id, checked.binary)

    def _check(self, document: Json, signature: Signature) -> _Checked:
        try:
            text = orjson.dumps(document)
        except orjson.JSONEncodeError:  # It nests deeper than is written, though not than is read.
            return _check_document(document, signature)
        key = (signature.entry.key, text)
        known = self._known.get(key)
        if known is None or known.signature is not signature:
            known = _check_document(document, signature)
            step = known.settings.sequence
            if len(text) <= MAX_HEADER_BYTES and not (step is not None and (step.start or step.end)):
                if len(self._known) >= self._capacity and key not in self._known:
                    del self._known[next(iter(self._known))]
                self._known[key] = known
        return known


def _take_data(document: Json) -> list[Any]:
    """Takes `data` out of each input; `_ABSENT` where there is none."""
    inputs = document.get("inputs")
    if type(inputs) is not list:
        return []
    return [tensor.pop("data", _ABSENT) if type(tensor) is dict else _ABSENT for tensor in inputs]


def _check_document(document: Json, signature: Signature) -> _Checked:
    parameters = member(document, "parameters", dict, _REQUEST, {})
    inputs = _tensors("inputs", member(document, "inputs", list, _REQUEST))
    outputs = _tensors("outputs", member(document, "outputs", list, _REQUEST, []))
    layout = signature.layout([_declared(tensor) for tensor in inputs], [output["name"] for output in outputs])
    for tensor, known in zip(inputs, layout.inputs, strict=True):
        if known.datatype.name in RAW_ONLY and BINARY_SIZE not in _parameters(tensor):
            raise InvalidArgument(
                f"{known.where}: {known.datatype.name} cannot be sent in JSON; send it in binary form"
            )
    settings = read_settings(parameters, signature.entry)
    return _Checked(signature, inputs, layout, settings, _binary(outputs, parameters, signature), count_keys(document))


def _split(body: bytes, header_length: int | None) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    if not 1 <= header_length <= len(body):
        raise InvalidArgument(
            f"Inference-Header-Content-Length is the length of the JSON before the binary tensors, 1 to {len(body)} "
            f"here; got {header_length}"
        )
    return body[:header_length], memoryview(body)[header_length:]


def _tensors(what: str, items: list[Any]) -> list[Json]:
    """Inputs or outputs as objects whose names and parameters are of the right kind."""
    for index, item in enumerate(items):
        where = f"{what}[{index}]"
        if not isinstance(item, dict):
            raise InvalidArgument(f"{where} is an object; got {kind_of(item)}")
        name = member(item, "name", str, where)
        check_tensor_parameters(_parameters(item), f"{what.removesuffix('s')} {name!r:.80}")
    return items


def _parameters(tensor: Json) -> Json:
    return member(tensor, "parameters", dict, f"tensor {tensor['name']!r:.80}", {})


def _declared(tensor: Json) -> DeclaredTensor:
    where = f"input {tensor['name']!r:.80}"
    shape = member(tensor, "shape", list, where)
    if not set(map(type, shape)) <= {int}:
        raise InvalidArgument(f"{where}: 'shape' is an array of integers")
    return DeclaredTensor(tensor["name"], member(tensor, "datatype", str, where), tuple(shape))


def _data(values: list[Any], checked: _Checked, tail: memoryview) -> list[Buffer]:
    data: list[Buffer] = []
    at = 0
    for value, tensor, known in zip(values, checked.inputs, checked.layout.inputs, strict=True):
        parameters = tensor.get("parameters")
        if not parameters or BINARY_SIZE not in parameters:
            data.append(_from_json(value, known))
            continue
        size = _binary_size(parameters[BINARY_SIZE], value, known, len(tail) - at)
        known.check_raw(tail[at : at + size])
        data.append(tail[at : at + size])
        at += size
    if at != len(tail):
        raise InvalidArgument(f"{len(tail)} bytes follow the JSON; the inputs' {BINARY_SIZE} add up to {at}")
    return data


def _binary_size(size: object, value: object, known: InputLayout, left: int) -> int:
    if type(size) is not int or size < 0:
        raise InvalidArgument(f"{known.where}: parameter {BINARY_SIZE!r} is a number of bytes; got {brief(size)}")
    if value is not None and value is not _ABSENT:
        raise InvalidArgument(f"{known.where}: it has both 'data' and {BINARY_SIZE!r}; send either")
    if size > left:
        raise InvalidArgument(
            f"{known.where}: {BINARY_SIZE!r} is {size}, but {left} bytes are left behind the JSON, whose length "
            "the header Inference-Header-Content-Length says"
        )
    return size


def _from_json(values: Any, known: InputLayout) -> bytes:
    if type(values) is not list:
        came = {} if values is _ABSENT else {"data": values}
        values = member(came, "data", list, known.where)
    kinds = set(map(type, values))
    if list in kinds:
        values = _flatten(values, known)
        kinds = set(map(type, values))
    if len(values) != known.volume:
        raise InvalidArgument(
            f"{known.where}: shape {list(known.shape)} has {known.volume} elements; got {len(values)} in 'data'"
        )
    return pack_json(known.datatype, values, kinds, known.where)


def _flatten(values: list[Any], known: InputLayout) -> list[Any]:
    """Nested `data` must have the declared shape, level by level."""
    level: list[Any] = [values]
    for axis, size in enumerate(known.shape):
        for part in level:
            if not isinstance(part, list) or len(part) != size:
                came = f"one of {len(part)}" if isinstance(part, list) else kind_of(part)
                raise InvalidArgument(
                    f"{known.where}: 'data' is nested, so by shape {list(known.shape)} each array at depth {axis} has "
                    f"{size} elements; got {came}"
                )
        level = list(chain.from_iterable(level))
    return level


def _binary(outputs: list[Json], parameters: Json, signature: Signature) -> frozenset[str]:
    default = flag(parameters, BINARY_OUTPUT, False, _REQUEST)
    asked = {
        output["name"]: flag(_parameters(output), BINARY_DATA, default, f"output {output['name']!r:.80}")
        for output in outputs
    } or dict.fromkeys(signature.outputs, default)
    for name, binary in asked.items():
        if not binary and signature.outputs[name].datatype in RAW_ONLY:
            raise InvalidArgument(
                f"output {name!r}: {signature.outputs[name].datatype} cannot be sent in JSON; ask for it with "
                f"the parameter {BINARY_DATA!r}: true"
            )
    return frozenset(name for name, binary in asked.items() if binary)
