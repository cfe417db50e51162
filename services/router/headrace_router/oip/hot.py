"""The hot path: one unary ModelInfer, bytes in and bytes out.

It answers exactly as `decode` and `encode` do, which stay the reference: whatever is unusual goes
through `decode`, and tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace_common.clock import Clock
from headrace_router.domain import InferenceRequest, RevisionEntry, SequenceStep, TensorData
from headrace_router.oip.caller import Caller, deadline
from headrace_router.oip.decode import asks_for_final, decode_infer, layout_of, parse_infer, plain_parameters
from headrace_router.oip.header import split
from headrace_router.oip.parameters import read_settings
from headrace_router.oip.signature import InputLayout, Signatures
from headrace_router.oip.wire import ResponseTemplate
from headrace_router.ports import Catalogue, DataPlane


@dataclass(frozen=True, slots=True)
class _Plan:
    """What checking a header came to. Holds as long as the catalogue hands out the same entry.

    Attributes:
        model, version: as the request names them; version "" is the current one.
        inputs: (position in the request, name, datatype, shape, bytes or None, its checker), in the
            signature's order. Bytes is None where the checker must look inside the data.
    """

    model: str
    version: str
    entry: RevisionEntry
    inputs: tuple[tuple[int, str, str, tuple[int, ...], int | None, InputLayout], ...]
    outputs: tuple[str, ...]
    rows: int
    timeout_s: float | None
    priority: int
    final: bool
    sequence: SequenceStep | None


class HotInference:
    """ModelInfer without protobuf objects, where the request is an ordinary one.

    Args:
        capacity: headers and revisions remembered; the oldest go first.
    """

    def __init__(self, catalogue: Catalogue, plane: DataPlane, clock: Clock, capacity: int = 4096) -> None:
        self._catalogue = catalogue
        self._plane = plane
        self._clock = clock
        self._capacity = capacity
        self._signatures = Signatures(capacity)
        self._plans: dict[bytes, _Plan] = {}
        self._templates: dict[tuple[str, int], ResponseTemplate] = {}
        self._last: tuple[RevisionEntry, ResponseTemplate] | tuple[None, None] = None, None

    async def infer_bytes(
        self,
        body: bytes,
        tenant: str,
        time_left_s: float | None = None,
        traceparent: str = "",
        is_gone: Callable[[], bool] | None = None,
    ) -> bytes:
        """Serialised ModelInferRequest to serialised ModelInferResponse.

        Args:
            body: the message, without gRPC's frame, inflated.
            tenant: as `headrace_common.identity.tenant_of` said.
            time_left_s: of grpc-timeout.
            traceparent: the header as it came, or "".
            is_gone: asks the transport whether the caller has gone away.

        Raises:
            HeadraceError: as `Catalogue.resolve`, `decode_infer` and `DataPlane.infer` do.
        """
        request, request_id, _ = self.decode(body, Caller(tenant, time_left_s, traceparent, is_gone))
        result = await self._plane.infer(request)
        return self.template(request.revision).encode(request_id, result.outputs)

    def decode(self, body: bytes | memoryview, caller: Caller) -> tuple[InferenceRequest, bytes, bool]:
        """The request, its id as UTF-8, and whether a stream shall mark its answer as the final one."""
        body = bytes(body)
        parts = split(body)
        if parts is None:
            return self._decode_fully(body, caller)
        return self.decode_parts(body, parts.header, parts.request_id, parts.spans, caller)

    def decode_parts(
        self, body: bytes | memoryview, header: bytes, request_id: bytes, spans: Sequence[int], caller: Caller
    ) -> tuple[InferenceRequest, bytes, bool]:
        """As `decode`, of a request that `header.split`, or what does the same, has taken apart."""
        plan = self._plans.get(header)
        if plan is None or self._catalogue.resolve(caller.tenant, plan.model, plan.version) is not plan.entry:
            plan = self._plan(header, caller)
        if plan is None or len(spans) != 2 * len(plan.inputs):
            return self._decode_fully(body, caller)
        return _bind(plan, memoryview(body), spans, caller, self._clock.monotonic()), request_id, plan.final

    def _decode_fully(self, body: bytes | memoryview, caller: Caller) -> tuple[InferenceRequest, bytes, bool]:
        message = parse_infer(bytes(body))
        entry = self._catalogue.resolve(caller.tenant, message.model_name, message.model_version)
        request = decode_infer(message, self._signatures.of(entry), caller, self._clock.monotonic())
        return request, message.id.encode(), asks_for_final(message)

    def _plan(self, header: bytes, caller: Caller) -> _Plan | None:
        message = parse_infer(header)
        if any(tensor.HasField("contents") for tensor in message.inputs):
            return None
        entry = self._catalogue.resolve(caller.tenant, message.model_name, message.model_version)
        layout = layout_of(message, self._signatures.of(entry))
        settings = read_settings(plain_parameters(message.parameters), entry)
        inputs = tuple(
            (index, known.name, known.datatype.name, known.shape, None if known.looks_inside else known.size, known)
            for index in layout.order
            for known in (layout.inputs[index],)
        )
        names = message.model_name, message.model_version
        timeout_s, priority, final = settings.timeout_s, settings.priority, asks_for_final(message)
        sequence = settings.sequence
        plan = _Plan(*names, entry, inputs, layout.outputs, layout.rows, timeout_s, priority, final, sequence)
        if sequence is not None and (sequence.start or sequence.end):
            return plan  # Such a header comes once: kept, it would only drive out others.
        if len(self._plans) >= self._capacity and header not in self._plans:
            del self._plans[next(iter(self._plans))]
        self._plans[header] = plan
        return plan

    def template(self, entry: RevisionEntry) -> ResponseTemplate:
        """Writes a revision's answers."""
        last_entry, last = self._last
        if last is not None and entry is last_entry:
            return last
        known = self._templates.get(entry.key)
        if known is None:
            if len(self._templates) >= self._capacity:
                del self._templates[next(iter(self._templates))]
            known = self._templates[entry.key] = ResponseTemplate(entry)
        # Requests come in runs of one model.
        self._last = entry, known
        return known


def _bind(plan: _Plan, body: memoryview, spans: Sequence[int], caller: Caller, now: float) -> InferenceRequest:
    inputs: list[TensorData] = []
    total = 0
    for index, name, datatype, shape, size, known in plan.inputs:
        start, stop = spans[2 * index], spans[2 * index + 1]
        data = body[start:stop]
        if size != stop - start:
            known.check_raw(data)
        total += stop - start
        inputs.append(TensorData(name, datatype, shape, data))
    return InferenceRequest(
        plan.entry,
        caller.tenant,
        inputs,
        plan.outputs,
        plan.rows,
        now,
        deadline(now, caller.time_left_s, plan.timeout_s),
        plan.priority,
        caller.traceparent,
        caller.is_gone,
        total,
        plan.sequence,
    )
