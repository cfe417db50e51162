"""ModelInferRequest to `InferenceRequest`. Pure: messages in, domain out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from headrace.oip import inference_pb2 as pb
from headrace_common.errors import InvalidArgument
from headrace_router.domain import Buffer, InferenceRequest, RevisionEntry, TensorData
from headrace_router.oip.caller import Caller, deadline
from headrace_router.oip.elements import pack_contents
from headrace_router.oip.parameters import FINAL_RESPONSE, Settings, check_tensor_parameters, read_settings
from headrace_router.oip.signature import DeclaredTensor, InputLayout, Layout, Signature


def parse_infer(body: bytes) -> pb.ModelInferRequest:
    """Raises InvalidArgument for bytes that are not a ModelInferRequest."""
    try:
        return pb.ModelInferRequest.FromString(body)
    except DecodeError as error:
        raise InvalidArgument(f"the message is not a ModelInferRequest, or is cut off: {error}") from None


def decode_infer(message: pb.ModelInferRequest, signature: Signature, caller: Caller, now: float) -> InferenceRequest:
    """Checks a request against a signature and binds it to that revision.

    Args:
        now: monotonic seconds.

    Raises:
        InvalidArgument: names the tensor, what was expected and what came.
    """
    layout = layout_of(message, signature)
    settings = read_settings(plain_parameters(message.parameters), signature.entry)
    return bind(signature.entry, layout, _data(message, layout), settings, caller, now)


def layout_of(message: pb.ModelInferRequest, signature: Signature) -> Layout:
    """Checks everything but parameters of the request and the tensors' data."""
    for tensor in message.inputs:
        if tensor.parameters:
            check_tensor_parameters(plain_parameters(tensor.parameters), f"input {tensor.name!r:.80}")
    for output in message.outputs:
        if output.parameters:
            check_tensor_parameters(plain_parameters(output.parameters), f"output {output.name!r:.80}")
    declared = [DeclaredTensor(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in message.inputs]
    return signature.layout(declared, (output.name for output in message.outputs))


def bind(
    entry: RevisionEntry, layout: Layout, data: Sequence[Buffer], settings: Settings, caller: Caller, now: float
) -> InferenceRequest:
    """Puts checked parts together; `data` is in the order of `layout.inputs`."""
    inputs = [
        TensorData(tensor.name, tensor.datatype.name, tensor.shape, data[index])
        for index in layout.order
        for tensor in (layout.inputs[index],)
    ]
    return InferenceRequest(
        revision=entry,
        tenant=caller.tenant,
        inputs=inputs,
        outputs=layout.outputs,
        rows=layout.rows,
        arrived=now,
        deadline=deadline(now, caller.time_left_s, settings.timeout_s),
        priority=settings.priority,
        traceparent=caller.traceparent,
        is_gone=caller.is_gone,
        size_bytes=sum(map(len, data)),
        sequence=settings.sequence,
    )


def asks_for_final(message: pb.ModelInferRequest) -> bool:
    """Whether the answer, if it goes on a stream, shall say that it is the final one to this request."""
    parameters = message.parameters
    return FINAL_RESPONSE in parameters and parameters[FINAL_RESPONSE].bool_param


def plain_parameters(parameters: Mapping[str, pb.InferParameter]) -> dict[str, object]:
    """Values without their wrapping; None where no choice is set."""
    plain: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        plain[name] = getattr(parameter, choice) if choice else None
    return plain


def _data(message: pb.ModelInferRequest, layout: Layout) -> list[Buffer]:
    raw = message.raw_input_contents
    if not raw:
        return [_from_contents(tensor, layout.inputs[index]) for index, tensor in enumerate(message.inputs)]
    if len(raw) != len(layout.inputs):
        raise InvalidArgument(
            f"raw_input_contents has {len(raw)} entries for {len(layout.inputs)} inputs; expected one for each input"
        )
    data: list[Buffer] = []
    for tensor, content, known in zip(message.inputs, raw, layout.inputs, strict=True):
        if tensor.HasField("contents") and tensor.contents.ListFields():
            raise InvalidArgument(
                f"{known.where}: its contents are set and so is raw_input_contents; send either, for all inputs"
            )
        known.check_raw(content)
        data.append(content)
    return data


def _from_contents(tensor: pb.ModelInferRequest.InferInputTensor, known: InputLayout) -> bytes:
    datatype = known.datatype
    if not datatype.contents:
        if known.volume:
            raise InvalidArgument(f"{known.where}: {datatype.name} can only be sent in raw_input_contents")
        return b""
    filled = _names(field.name for field, _ in tensor.contents.ListFields() if field.name != datatype.contents)
    if filled:
        raise InvalidArgument(f"{known.where}: {datatype.name} is sent in {datatype.contents}; got {filled}")
    values = getattr(tensor.contents, datatype.contents)
    if len(values) != known.volume:
        raise InvalidArgument(
            f"{known.where}: shape {list(known.shape)} has {known.volume} elements; "
            f"got {len(values)} in {datatype.contents}"
        )
    return pack_contents(datatype, values, known.where)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
