"""Sessions of ONNX Runtime as an instance's settings ask for them.

Names of session and run configuration are those of onnxruntime_session_options_config_keys.h and
onnxruntime_run_options_config_keys.h (https://github.com/microsoft/onnxruntime/tree/main/include/onnxruntime/core/session).
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from headrace_runner.core.ort_options import CPU, PROVIDERS, OrtSettings, missing_provider
from headrace_runner.engines.base import ModelRefused

FATAL = 4
_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": ort.GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# ArenaExtendStrategy of onnxruntime's framework/arena_extend_strategy.h.
_EXTEND = {"power_of_two": 0, "same_as_requested": 1}
_DEFAULT_SIZE = -1


def open_session(model: Path | bytes, settings: OrtSettings) -> ort.InferenceSession:
    """Raises ModelRefused where an execution provider is missing, and what the binding raises."""
    if reason := missing_provider(settings, ort.get_available_providers()):
        raise ModelRefused(reason)
    options = _session_options(settings)
    if settings.arena_extend:
        _use_arena(options, settings.arena_extend)
    asked = [PROVIDERS[provider.name] for provider in settings.providers]
    session = ort.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=asked,
        provider_options=[dict(provider.settings) for provider in settings.providers],
        # With it, the binding opens a session on the CPU instead, and says so on standard output.
        enable_fallback=0,
    )
    # A provider whose own libraries cannot be loaded is left out by ONNX Runtime, with a line in its log.
    absent = [ours.name for ours, theirs in zip(settings.providers, asked, strict=True) if not _has(session, theirs)]
    if absent:
        raise ModelRefused(
            f"onnxruntime has execution provider {absent[0]!r} and cannot start it: its libraries or its device are "
            f"missing; `headrace doctor` says what this machine has"
        )
    return session


def run_options(settings: OrtSettings) -> ort.RunOptions | None:
    """For each run; None: ONNX Runtime's own."""
    if not settings.arena_shrink:
        return None
    devices = {CPU: 0} | dict(device for provider in settings.providers if (device := provider.device))
    named = ";".join(f"{'gpu' if kind == 'cuda' else kind}:{number}" for kind, number in devices.items())
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", named)
    return options


def _has(session: ort.InferenceSession, provider: str) -> bool:
    return provider in session.get_providers()


def _session_options(settings: OrtSettings) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = settings.inter_op_threads
    if settings.inter_op_threads > 1:
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.log_severity_level = FATAL
    options.graph_optimization_level = _LEVELS[settings.graph_optimization]
    options.enable_cpu_mem_arena = settings.arena
    options.enable_mem_pattern = settings.memory_pattern
    # Spinning threads burn the CPUs that the other instances of the machine were promised.
    spinning = "1" if settings.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    if all(provider.name != CPU for provider in settings.providers):
        # Who asks for a GPU alone is told of nodes that it cannot compute; by default they would go to the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _use_arena(options: ort.SessionOptions, extend: str) -> None:
    """How the CPU's arena grows is a matter of the process, which has one model."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    unlimited = 0
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(unlimited, _EXTEND[extend], _DEFAULT_SIZE, _DEFAULT_SIZE))
    options.add_session_config_entry("session.use_env_allocators", "1")
