"""What the router's parts pass to each other. No protobuf, no grpc, no asyncio.

`oip/` makes an `InferenceRequest` of what came over gRPC or REST and turns the `InferenceResult` back;
`core/` queues, batches and dispatches; `runners.py` and `control.py` talk to the other services.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Buffer = bytes | bytearray | memoryview
"""Raw tensor content as in the protocol's raw form: little-endian, row-major; BYTES elements as
4-byte length and content."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape holds the batch dimension where there is one; -1 is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """Zero: work-conserving defaults."""

    preferred_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_s: float = 0.0
    priority_levels: int = 0
    default_priority_level: int = 0
    max_queue_size: int = 0
    default_timeout_s: float = 0.0
    padding: tuple[tuple[str, float], ...] = ()
    """Inputs whose free non-batch dimensions may be padded, and with what."""


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """Subject: whose, as refusals name it. `returns_at`: seconds since the epoch when it is whole again."""

    subject: str
    reason: str
    returns_at: float


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A tensor that a stateful model gives, by `output`, for the next step of the sequence, by `input`.

    Attributes:
        shape: of one sequence, batch dimension included.
        initial: what a sequence begins with.
    """

    input: str
    output: str
    datatype: str
    shape: tuple[int, ...]
    initial: bytes


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """An input that says where in its sequence a request is.

    Attributes:
        kind: "start", "end", "ready" (always on) or "id".
        off, on: its data; empty for an id.
    """

    input: str
    kind: str
    datatype: str
    shape: tuple[int, ...]
    off: bytes = b""
    on: bytes = b""


@dataclass(frozen=True, slots=True)
class SequenceRules:
    """How a stateful model keeps state. None of these tensors is in the revision's signature.

    Attributes:
        max_idle_s: a sequence without a request for so long is over.
    """

    states: tuple[StateSpec, ...]
    signals: tuple[SignalSpec, ...] = ()
    max_idle_s: float = 60.0

    @property
    def state_bytes(self) -> int:
        return sum(len(state.initial) for state in self.states)

    @property
    def initial(self) -> tuple[bytes, ...]:
        return tuple(state.initial for state in self.states)

    @property
    def id_datatype(self) -> str:
        """Of the input that takes the id; "": there is none."""
        return next((signal.datatype for signal in self.signals if signal.kind == "id"), "")


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """What a request says of its sequence. A number and its digits as text are two ids."""

    id: int | str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class RevisionEntry:
    """One revision of one model, as the autoscaler described it.

    Attributes:
        key: (model, revision); queues, placements and statistics are kept by it.
        blocked_reason: not empty: no instance can be started; requests are refused with it.
        loading: first load under way; not callable yet.
        cache_shared: the response cache serves all tenants as one.
        cache_ttl_s: None: the router's default.
        created_us: when a model of this name was made, since the epoch: tells its lives apart.
        instance_concurrency: requests at one runner at once; 0: as many as its slots take.
        budget: of who pays for its instances, where it is spent and what is new is refused.
        sequences: the model is stateful; None: it is not.
    """

    model: str
    owner: str
    revision: int
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batchable: bool
    max_batch_size: int
    platform: str = "onnxruntime"
    batching: Batching = Batching()
    model_config: bytes = b""
    slo_s: float | None = None
    response_cache: bool = False
    blocked_reason: str = ""
    loading: bool = False
    retiring: bool = False
    current: bool = True
    cache_shared: bool = False
    cache_ttl_s: float | None = None
    created_us: int = 0
    instance_concurrency: int = 0
    budget: SpentBudget | None = None
    sequences: SequenceRules | None = None

    @property
    def key(self) -> tuple[str, int]:
        return (self.model, self.revision)


@dataclass(slots=True)
class TensorData:
    """One tensor of one request. Shape holds the batch dimension where the model has one."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


@dataclass(slots=True)
class InferenceRequest:
    """A validated request, bound to the revision that will answer it.

    Attributes:
        inputs: in the order of the revision's signature; optional inputs may be absent.
        outputs: names wanted; empty: all.
        rows: size of the batch dimension; 1 for a model that is not batchable.
        deadline: monotonic seconds; None: the caller set none.
        priority: 1 is the most urgent; 0: the model's default.
        traceparent: W3C, as the caller sent it; the plane behind `traces` gets sampled ones only.
        arrived: monotonic seconds.
        is_gone: asks the transport whether the caller has gone away.
        sequence: its place in a sequence; of a stateful model always there, of others never.
    """

    revision: RevisionEntry
    tenant: str
    inputs: list[TensorData]
    outputs: tuple[str, ...]
    rows: int
    arrived: float
    deadline: float | None = None
    priority: int = 0
    traceparent: str = ""
    is_gone: Callable[[], bool] | None = None
    size_bytes: int = field(default=0)
    sequence: SequenceStep | None = None


@dataclass(slots=True)
class InferenceResult:
    """Outputs in the order of the signature (or as wanted), cut to this request's rows."""

    outputs: list[TensorData]
    queue_s: float = 0.0
    compute_s: float = 0.0
