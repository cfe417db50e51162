"""Triton's config.pbtxt: text to message, message to settings. Pure.

Everything that is set is honoured or refused by its name; nothing is dropped in silence. Semantics:
triton-inference-server, docs/user_guide/model_configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.protobuf import text_format

from headrace.oip import model_config_pb2 as pb
from headrace_autoscaler.domain import Batching, Sequences, Warmup
from headrace_autoscaler.repository.layout import CONFIG_PATH, ENGINES, NEWEST, OFFERED, PLAN, VersionPolicy
from headrace_autoscaler.repository.sequence_batching import sequence_refusals, sequences_of
from headrace_autoscaler.repository.unsupported import unsupported
from headrace_autoscaler.repository.warmup import warmup_refusals, warmups
from headrace_common.errors import InvalidArgument

MAX_TEXT_BYTES = 1 << 20
MAX_SLOTS = 64
MAX_PRIORITY_LEVELS = 100
"""Routers, which all tenants share, keep a queue for each."""
NO_BATCHING = Batching()

_PLATFORMS = {
    "": "",
    "onnxruntime_onnx": "onnxruntime",
    "torch_export": "torch",
    "tensorrt_plan": "tensorrt",
    "fake": "fake",
}
_BACKENDS = {"": "", "onnxruntime": "onnxruntime", "pytorch": "torch", "tensorrt": "tensorrt", "fake": "fake"}
_KINDS = dict(zip(pb.ModelInstanceGroup.Kind.values(), pb.ModelInstanceGroup.Kind.keys(), strict=True))
_PARAMETERS = {"intra_op_thread_count": "intra_op_threads"}
"""Parameters of Triton's ONNX Runtime backend that are options of our engine under another name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a configuration says, in headrace's terms.

    Attributes:
        engine: empty: by the model file's name.
        max_batch_size: rows; None: decided by the probe.
        slots: bundles in hand per router; None: the mesh's default.
        response_cache: None: not said.
        model_config: the whole configuration, serialised; empty without one.
        sequences: None: sequence_batching is not there.
    """

    engine: str = ""
    max_batch_size: int | None = None
    slots: int | None = None
    batching: Batching = NO_BATCHING
    warmup: tuple[Warmup, ...] = ()
    response_cache: bool | None = None
    engine_options: tuple[tuple[str, str], ...] = ()
    version_policy: VersionPolicy = NEWEST
    default_filename: str = ""
    model_config: bytes = b""
    sequences: Sequences | None = None


def parse_config(text: bytes) -> pb.ModelConfig:
    """config.pbtxt to a message.

    Raises:
        InvalidArgument: not text, or a syntax error, or an unknown key: with line and column.
    """
    if len(text) > MAX_TEXT_BYTES:
        raise InvalidArgument(f"{CONFIG_PATH}: {len(text)} bytes, expected at most {MAX_TEXT_BYTES}")
    config = pb.ModelConfig()
    try:
        text_format.Parse(text.decode(), config)
    except UnicodeDecodeError:
        raise InvalidArgument(f"{CONFIG_PATH}: expected text in UTF-8") from None
    except text_format.ParseError as error:
        raise InvalidArgument(f"{CONFIG_PATH}: line {' '.join(str(error).split())}") from None
    return config


def for_any_engine(text: bytes) -> bytes:
    """A config.pbtxt that names neither an engine nor a model file: both are told by the files' names then.

    Raises:
        InvalidArgument: as `parse_config`.
    """
    config = parse_config(text)
    for field in ("platform", "backend", "default_model_filename"):
        config.ClearField(field)
    return text_format.MessageToString(config).encode()


def settings_of(config: pb.ModelConfig, model: str) -> Settings:
    """The settings, or a refusal that lists everything that is wrong or not supported.

    Args:
        config: as parsed.
        model: the name that it is deployed under.

    Raises:
        InvalidArgument: one message for all of it.
    """
    refused = [
        *unsupported(config),
        *_refused_values(config),
        *sequence_refusals(config),
        *warmup_refusals(config.model_warmup, _rows(config)),
    ]
    wrong = list(_wrong(config, model))
    if refused:
        wrong.append(f"not supported: {', '.join(refused)}")
    if wrong:
        raise InvalidArgument(f"{CONFIG_PATH}: {'; '.join(wrong)}")
    slots = sum(max(group.count, 1) for group in config.instance_group)
    return Settings(
        engine=_PLATFORMS[config.platform] or _BACKENDS[config.backend],
        max_batch_size=max(config.max_batch_size, 1),
        slots=slots or None,
        batching=_batching(config),
        warmup=warmups(config.model_warmup, _rows(config)),
        response_cache=config.response_cache.enable if config.HasField("response_cache") else None,
        engine_options=tuple(sorted((_PARAMETERS[k], v.string_value) for k, v in config.parameters.items())),
        version_policy=_version_policy(config.version_policy),
        default_filename=config.default_model_filename,
        model_config=config.SerializeToString(deterministic=True),
        sequences=sequences_of(config) if config.HasField("sequence_batching") else None,
    )


def _rows(config: pb.ModelConfig) -> int:
    return max(config.max_batch_size, 0)


def _batching(config: pb.ModelConfig) -> Batching:
    oldest = config.sequence_batching.oldest
    if oldest.ListFields():
        return Batching(tuple(oldest.preferred_batch_size), oldest.max_queue_delay_microseconds)
    dynamic = config.dynamic_batching
    policy = dynamic.default_queue_policy
    return Batching(
        preferred_batch_sizes=tuple(dynamic.preferred_batch_size),
        max_queue_delay_us=dynamic.max_queue_delay_microseconds,
        priority_levels=dynamic.priority_levels,
        default_priority_level=dynamic.default_priority_level,
        max_queue_size=policy.max_queue_size,
        default_timeout_us=policy.default_timeout_microseconds,
    )


def _version_policy(policy: pb.ModelVersionPolicy) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            return VersionPolicy(specific=tuple(policy.specific.versions))
        case _:
            return VersionPolicy(latest=max(policy.latest.num_versions, 1))


def _refused_values(config: pb.ModelConfig) -> Iterator[str]:
    if config.platform not in _PLATFORMS:
        yield f"platform {config.platform!r} (expected onnxruntime_onnx, torch_export or tensorrt_plan)"
    if config.backend not in _BACKENDS:
        yield f"backend {config.backend!r} (expected onnxruntime, pytorch or tensorrt)"
    own = "KIND_GPU" if _is_plan(config) else "KIND_CPU"
    for index, group in enumerate(config.instance_group):
        kind = _KINDS.get(group.kind, str(group.kind))
        if kind not in (own, "KIND_AUTO"):
            where = "TensorRT plans run on a GPU" if _is_plan(config) else "only TensorRT plans run on a GPU here"
            yield f"instance_group[{index}].kind {kind} ({where}; expected {own} or KIND_AUTO)"
    if config.dynamic_batching.default_queue_policy.timeout_action != pb.ModelQueuePolicy.REJECT:
        yield "dynamic_batching.default_queue_policy.timeout_action DELAY (only REJECT)"
    for name in sorted(config.parameters):
        if name not in _PARAMETERS:
            yield f"parameters[{name!r}] (known: {', '.join(sorted(_PARAMETERS))})"


def _is_plan(config: pb.ModelConfig) -> bool:
    named = (_PLATFORMS.get(config.platform), _BACKENDS.get(config.backend))
    return "tensorrt" in named or config.default_model_filename.endswith(PLAN)


def _wrong(config: pb.ModelConfig, model: str) -> Iterator[str]:
    if config.name and config.name != model:
        yield f"name: expected {model!r}, which it is deployed as, or none; got {config.name!r}"
    if config.max_batch_size < 0:
        yield f"max_batch_size: expected at least 0, got {config.max_batch_size}"
    if config.default_model_filename and not config.default_model_filename.endswith(tuple(ENGINES)):
        yield f"default_model_filename: expected a name that ends in {' or '.join(OFFERED)}"
    slots = sum(max(group.count, 1) for group in config.instance_group)
    if slots > MAX_SLOTS or any(group.count < 0 for group in config.instance_group):
        yield f"instance_group: expected counts of 1 to {MAX_SLOTS} in all"
    if any(version < 1 for version in config.version_policy.specific.versions):
        yield "version_policy.specific: expected versions of at least 1"
    if config.version_policy.HasField("specific") and not config.version_policy.specific.versions:
        yield "version_policy.specific: expected at least one version"
    yield from _wrong_tensors(config)
    yield from _wrong_batching(config.dynamic_batching, config.max_batch_size)
    oldest = list(config.sequence_batching.oldest.preferred_batch_size)
    if any(not 1 <= size <= max(config.max_batch_size, 1) for size in oldest):
        most = config.max_batch_size
        yield f"sequence_batching.oldest.preferred_batch_size: expected 1 to max_batch_size ({most}), got {oldest}"


def _wrong_tensors(config: pb.ModelConfig) -> Iterator[str]:
    declared: tuple[tuple[str, Sequence[pb.ModelInput | pb.ModelOutput]], ...] = (
        ("input", config.input),
        ("output", config.output),
    )
    for kind, tensors in declared:
        for index, tensor in enumerate(tensors):
            if not tensor.name:
                yield f"{kind}[{index}].name: expected the tensor's name"
            if tensor.data_type not in pb.DataType.values():
                yield f"{kind} {tensor.name!r}: data_type {tensor.data_type}: expected one such as TYPE_FP32"
            if any(size != -1 and size < 1 for size in tensor.dims):
                yield f"{kind} {tensor.name!r}: dims {list(tensor.dims)}: expected sizes of at least 1, or -1 for any"


def _wrong_batching(dynamic: pb.ModelDynamicBatching, max_batch_size: int) -> Iterator[str]:
    sizes = list(dynamic.preferred_batch_size)
    if any(not 1 <= size <= max(max_batch_size, 1) for size in sizes):
        yield f"dynamic_batching.preferred_batch_size: expected 1 to max_batch_size ({max_batch_size}), got {sizes}"
    level, levels = dynamic.default_priority_level, dynamic.priority_levels
    if levels > MAX_PRIORITY_LEVELS:
        yield f"dynamic_batching.priority_levels: expected at most {MAX_PRIORITY_LEVELS}, got {levels}"
    if (level or levels) and not 1 <= level <= levels:
        yield f"dynamic_batching.default_priority_level: expected 1 to priority_levels ({levels}), got {level}"
