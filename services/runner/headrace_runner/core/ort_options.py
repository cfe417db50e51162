"""What may be asked of ONNX Runtime by engine options, and what it comes to. Pure.

Every option is one of ours: none of them names a file, because options come from tenants.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from headrace_common.errors import InvalidArgument
from headrace_runner.core.options import MOST_TOLD, nearest, thread_count, unknown_option

ENGINE = "onnxruntime"
CPU = "cpu"

PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Our names of execution providers, and ONNX Runtime's."""

_ON_CUDA = frozenset({"cuda", "tensorrt", "tensorrt-rtx"})

# https://onnxruntime.ai/docs/execution-providers/: without those that name files or change what is computed in secret.
_PROVIDER_OPTIONS: Mapping[str, frozenset[str]] = {
    "cuda": frozenset(
        {
            "device_id", "gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search",
            "cudnn_conv_use_max_workspace", "cudnn_conv1d_pad_to_nc1d", "do_copy_in_default_stream", "prefer_nhwc",
            "use_tf32",
        }
    ),
    "tensorrt": frozenset(
        {
            "device_id", "trt_max_workspace_size", "trt_min_subgraph_size", "trt_max_partition_iterations",
            "trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_builder_optimization_level",
            "trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes",
        }
    ),
    "tensorrt-rtx": frozenset(
        {
            "device_id", "nv_max_workspace_size", "nv_profile_min_shapes", "nv_profile_opt_shapes",
            "nv_profile_max_shapes",
        }
    ),
    "openvino": frozenset({"device_type", "precision", "num_of_threads", "num_streams"}),
    "migraphx": frozenset({"device_id", "migraphx_fp16_enable"}),
    "xnnpack": frozenset({"intra_op_num_threads"}),
}  # fmt: skip

_VALUE = re.compile(r"[A-Za-z0-9_:,.-]{1,64}")
"""Numbers, words, and devices such as HETERO:GPU.1,CPU: nothing in which a folder could be named."""
_SHAPES = re.compile(r"[^:,\x00-\x20]{1,512}:[0-9]{1,9}(x[0-9]{1,9}){0,15}")
"""Of an input, whose name may have slashes in it."""
_MOST_SHAPES = 64

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "graph_optimization": ("all", "none", "basic", "extended", "layout"),
    "arena": ("on", "off"),
    "arena_extend": ("power_of_two", "same_as_requested"),
    "arena_shrink": ("off", "on"),
    "memory_pattern": ("on", "off"),
    "spinning": ("off", "on"),
    "io_binding": ("auto", "on", "off"),
}
"""Options with few values; the first one is the default."""
_THREADS = ("intra_op_threads", "inter_op_threads")
_OPTIONS = (*_THREADS, *_CHOICES, "providers")


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider.

    Attributes:
        name: ours.
        settings: by ONNX Runtime's own names.
    """

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def device(self) -> tuple[str, int] | None:
        """Kind and number of the device whose memory it computes in; None: the CPU's."""
        return ("cuda", int(self.settings.get("device_id", "0"))) if self.name in _ON_CUDA else None


@dataclass(frozen=True, slots=True)
class OrtSettings:
    """What a session is made with. Defaults are those of an instance that shares its machine.

    Attributes:
        graph_optimization: none, basic, extended, layout or all.
        arena: memory of tensors is kept for the next batch.
        arena_extend: power_of_two or same_as_requested; "" is ONNX Runtime's own, which is the first.
        arena_shrink: the arena gives back after each batch what it took for it.
        io_binding: None: where tensors live on a device.
        providers: the first one that can takes a node.
    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    spinning: bool = False
    graph_optimization: str = "all"
    arena: bool = True
    arena_extend: str = ""
    arena_shrink: bool = False
    memory_pattern: bool = True
    io_binding: bool | None = None
    providers: tuple[Provider, ...] = (Provider(CPU),)

    @property
    def device(self) -> tuple[str, int] | None:
        """Where inputs and outputs are bound; None: nothing is bound."""
        device = self.providers[0].device
        if self.io_binding is None:
            return device
        return (device or (CPU, 0)) if self.io_binding else None


def read_options(options: Mapping[str, str], threads: int) -> OrtSettings:
    """Options as they were deployed.

    Args:
        threads: those of the instance: the default of intra_op_threads.

    Raises:
        InvalidArgument: names the option, what was expected and what came.
    """
    given = _own(options)
    providers = _providers(given.get("providers", CPU), options)
    chosen = {name: _choice(name, given.get(name, values[0])) for name, values in _CHOICES.items()}
    settings = OrtSettings(
        intra_op_threads=thread_count("intra_op_threads", given.get("intra_op_threads", str(threads))),
        inter_op_threads=thread_count("inter_op_threads", given.get("inter_op_threads", "1")),
        spinning=chosen["spinning"] == "on",
        graph_optimization=chosen["graph_optimization"],
        arena=chosen["arena"] == "on",
        arena_extend=given.get("arena_extend", ""),
        arena_shrink=chosen["arena_shrink"] == "on",
        memory_pattern=chosen["memory_pattern"] == "on",
        io_binding={"on": True, "off": False}.get(chosen["io_binding"]),
        providers=providers,
    )
    if not settings.arena and (settings.arena_shrink or settings.arena_extend):
        which = "arena_shrink" if settings.arena_shrink else "arena_extend"
        raise InvalidArgument(f"engine option {which}: there is no arena to which it could apply; leave arena=off out")
    return settings


def missing_provider(settings: OrtSettings, present: Collection[str]) -> str:
    """The sentence for the first provider that is not there; "": all are.

    Args:
        present: by ONNX Runtime's names.
    """
    for provider in settings.providers:
        if PROVIDERS[provider.name] not in present:
            have = ", ".join(name for name, theirs in PROVIDERS.items() if theirs in present)
            return f"execution provider {provider.name!r} is not in this runner's onnxruntime; it has: {have or 'none'}"
    return ""


def _own(options: Mapping[str, str]) -> Mapping[str, str]:
    """Those of the session itself; the others belong to providers."""
    own = {name: value for name, value in options.items() if "." not in name}
    for name in sorted(own):
        if name not in _OPTIONS:
            raise InvalidArgument(unknown_option(ENGINE, name, _OPTIONS))
    return own


def _providers(text: str, options: Mapping[str, str]) -> tuple[Provider, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PROVIDERS:
            raise InvalidArgument(
                f"engine option providers: there is no execution provider {name[:MOST_TOLD]!r}"
                f"{nearest(name[:MOST_TOLD], PROVIDERS)}; "
                f"expected some of {', '.join(PROVIDERS)}, with commas between them"
            )
    if len(set(names)) < len(names):
        raise InvalidArgument(f"engine option providers: expected each once; got {text[:MOST_TOLD]!r}")
    settings: dict[str, dict[str, str]] = {name: {} for name in names}
    for option in sorted(option for option in options if "." in option):
        provider, _, key = option.partition(".")
        if provider not in settings:
            raise InvalidArgument(
                f"engine option {option!r} is for an execution provider that is not asked for; providers: {text}"
            )
        if key not in _PROVIDER_OPTIONS.get(provider, ()):
            known = [f"{provider}.{one}" for one in _PROVIDER_OPTIONS.get(provider, ())]
            raise InvalidArgument(unknown_option(ENGINE, option, [*_OPTIONS, *known]))
        settings[provider][key] = _setting(option, key, options[option])
    return tuple(Provider(name, settings[name]) for name in names)


def _setting(option: str, key: str, value: str) -> str:
    if key == "device_id":
        return _device_number(option, value)
    if key.endswith("_shapes"):
        shapes = value.split(",", _MOST_SHAPES)
        if len(shapes) > _MOST_SHAPES or not all(_SHAPES.fullmatch(shape) for shape in shapes):
            raise InvalidArgument(
                f"engine option {option}: expected the shapes of at most {_MOST_SHAPES} inputs, such as x:1x3,y:1x4; "
                f"got {value[:MOST_TOLD]!r}"
            )
    elif not _VALUE.fullmatch(value):
        raise InvalidArgument(
            f"engine option {option}: expected a number or a word, none that names a file; got {value[:MOST_TOLD]!r}"
        )
    return value


def _device_number(option: str, value: str) -> str:
    if not value.isascii() or not value.isdigit() or len(value) > 2:
        raise InvalidArgument(
            f"engine option {option}: expected the number of a device, 0 to 99; got {value[:MOST_TOLD]!r}"
        )
    return value


def _choice(name: str, value: str) -> str:
    if value not in _CHOICES[name]:
        raise InvalidArgument(
            f"engine option {name}: expected one of {', '.join(_CHOICES[name])}; got {value[:MOST_TOLD]!r}"
        )
    return value
