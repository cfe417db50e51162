"""A load, from files to a model that is warm. Synchronous: runs on the engine's thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from headrace_common.clock import Clock
from headrace_common.errors import InvalidArgument
from headrace_runner import files, samples
from headrace_runner.core.signature import (
    EngineTensor,
    Signature,
    fixed_batch_reason,
    impossible_tensor,
    make_signature,
    mismatch,
)
from headrace_runner.domain import Loaded, LoadPlan, WarmupSample
from headrace_runner.engines.base import (
    BatchLimited,
    Engine,
    EngineError,
    EngineLost,
    LoadedModel,
    ModelSource,
    OutOfMemory,
    Phased,
    WarmsUp,
)
from headrace_runner.engines.lost import end_process
from headrace_runner.engines.registry import pick
from headrace_runner.probe import probe_rows, workable_size
from headrace_runner.tensors import decode

_FIRST_WARM_BUDGET_S = 2.0
"""For the maximum batch, at a load that verifies a deploy: its times start the router's latency model."""
_LATER_WARM_BUDGET_S = 0.03
"""The same where the times are known from the first load, beside instances that answer meanwhile."""


@dataclass(frozen=True, slots=True)
class _Batching:
    """What is known about batches. `size`: that dimensions of any size can have, where a probe has shown one."""

    signature: Signature
    max_batch_size: int
    reason: str
    size: int | None = None


def load(plan: LoadPlan, engines: Mapping[str, Engine], clock: Clock) -> Loaded:
    """Verifies, opens, probes and warms up a model.

    Raises:
        InvalidArgument: with the engine's own reason, or the file's or request's fault.
    """
    engine = pick(engines, plan.engine)
    phases: dict[str, float] = {}
    phase = _stopwatch(phases, clock)
    try:
        with phase("verify"):
            source = _verify(plan, engine)
        with phase("session"):
            model = engine.load(source)
    except EngineLost as error:
        end_process(error)
    except (OutOfMemory, MemoryError) as error:
        raise InvalidArgument(f"{error}; it does not fit its memory: deploy it with more") from error
    except EngineError as error:
        raise InvalidArgument(str(error)) from error
    if isinstance(model, Phased):
        parts = dict(model.phases_s)
        phases |= parts | {"session": max(0.0, phases["session"] - sum(parts.values()))}
    try:
        with phase("probe"):
            if why_not := impossible_tensor(model.inputs, model.outputs):
                raise InvalidArgument(f"{plan.entry_point}: {why_not}")
            batching = _decide(plan, model)
        with phase("warm"):
            signature, profile = _warm(plan, model, batching, clock)
    except EngineLost as error:
        end_process(error)
    except MemoryError as error:
        model.close()
        raise InvalidArgument(
            f"{plan.entry_point}: inputs made up to try it do not fit its memory: deploy it with more"
        ) from error
    except BaseException:
        model.close()
        raise
    return Loaded(model, signature, batching.max_batch_size, batching.reason, engine.platform, phases, profile)


def _stopwatch(phases: dict[str, float], clock: Clock) -> Callable[[str], AbstractContextManager[None]]:
    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = clock.monotonic()
        yield
        phases[name] = clock.monotonic() - start

    return phase


def _verify(plan: LoadPlan, engine: Engine) -> ModelSource:
    files.verify(plan.directory, plan.files)
    if plan.entry_point not in {file.path for file in plan.files}:
        raise InvalidArgument(f"entry_point {plan.entry_point!r} is not among the model's files")
    path = files.locate(plan.directory, plan.entry_point)
    source = ModelSource(path, plan.entry_point, plan.options, plan.threads, plan.slots)
    if plan.urgent:
        # The first load has found that these bytes read nothing but these files.
        return source
    files.check_external(plan.entry_point, engine.external_files(source), plan.files)
    return source


def _decide(plan: LoadPlan, model: LoadedModel) -> _Batching:
    if plan.expected is not None:
        return _from_known(plan, plan.expected, model)
    why_not = fixed_batch_reason(model.inputs, model.outputs)
    size: int | None = None
    reason = "batchable: two rows together give what they give alone"
    if why_not is None:
        probe = probe_rows(model)
        size, why_not = probe.size, probe.difference
        if probe.with_zeros:
            reason += " (tried with zeros: the engine refused other values)"
    if why_not is not None:
        size, reason = None, f"not batchable: {why_not}"
    signature = make_signature(model.inputs, model.outputs, batchable=why_not is None)
    return _Batching(signature, _max_batch(plan, model, signature, reason), reason, size)


def _from_known(plan: LoadPlan, expected: Signature, model: LoadedModel) -> _Batching:
    found = make_signature(model.inputs, model.outputs, expected.batchable)
    difference = mismatch(expected, found)
    fixed = fixed_batch_reason(model.inputs, model.outputs)
    if difference is None and expected.batchable and fixed is not None:
        difference = f"it cannot be batched: {fixed}"
    if difference is not None:
        raise InvalidArgument(f"{plan.entry_point} does not have the signature that is known of it: {difference}")
    why_not = fixed or "the first load found that its rows depend on each other"
    reason = "batchable: known from the first load" if expected.batchable else f"not batchable: {why_not}"
    return _Batching(expected, _max_batch(plan, model, expected, reason), reason)


def _max_batch(plan: LoadPlan, model: LoadedModel, signature: Signature, reason: str) -> int:
    if signature.batchable:
        largest = model.largest_batch if isinstance(model, BatchLimited) else None
        if largest is not None and plan.max_batch_size > largest:
            raise InvalidArgument(
                f"max_batch_size {plan.max_batch_size} is impossible: it was compiled for batches up to {largest}; "
                "deploy it with a maximum batch of that, or compile it with --batch"
            )
        return plan.max_batch_size or min(plan.default_max_batch_size, largest or plan.default_max_batch_size)
    if plan.max_batch_size > 1:
        raise InvalidArgument(
            f"max_batch_size {plan.max_batch_size} is impossible: {reason}; deploy it with a maximum batch of 1"
        )
    return 1


def _warm(plan: LoadPlan, model: LoadedModel, batching: _Batching, clock: Clock) -> tuple[Signature, dict[int, int]]:
    """Runs zeros at one row and at the maximum batch, then the samples given with the model.

    Zeros are left out where requests wait: any run of zeros takes as long as answering the first of them would,
    and the times are known. A model that refuses zeros is not at fault; one that refuses its own samples is.
    """
    profile: dict[int, int] = {}
    signature = batching.signature
    if not plan.urgent:
        signature, profile = _run_zeros(plan, model, batching, clock)
        _warm_up(model)
    for sample in plan.warmup:
        _run_sample(model, signature, sample)
    return signature, profile


def _warm_up(model: LoadedModel) -> None:
    if isinstance(model, WarmsUp):
        try:
            model.warm_up()
        except EngineLost:
            raise
        except EngineError as error:
            raise InvalidArgument(f"it fails at a shape that it was compiled for: {error}") from error


def _run_zeros(
    plan: LoadPlan, model: LoadedModel, batching: _Batching, clock: Clock
) -> tuple[Signature, dict[int, int]]:
    profile: dict[int, int] = {}
    signature = batching.signature
    # Finding a size is the first run, which sets things up; the timed ones come after it.
    size = batching.size or workable_size(model, 1 if signature.batchable else None)
    if size is not None:
        signature = _with_ranks(signature, _time_run(model, signature.batchable, 1, size, clock, profile))
        budget_s = _FIRST_WARM_BUDGET_S if plan.expected is None else _LATER_WARM_BUDGET_S
        largest = _affordable(batching.max_batch_size, profile.get(1), budget_s)
        if largest > 1:
            _time_run(model, True, largest, size, clock, profile)
    return signature, profile


def _affordable(max_batch_size: int, one_row_us: int | None, budget_s: float) -> int:
    """The largest batch up to the maximum that fits the budget if time is linear in rows, which is its upper bound."""
    if one_row_us is None:
        return 1
    return min(max_batch_size, math.floor(budget_s * 1e6 / max(one_row_us, 1)))


def _time_run(
    model: LoadedModel, batchable: bool, rows: int, size: int, clock: Clock, profile: dict[int, int]
) -> dict[str, int]:
    """Times a run of zeros; what fails leaves no time. Answers the rank of each output."""
    inputs = samples.zeros(model.inputs, rows if batchable else None, size)
    start = clock.monotonic()
    try:
        outputs = model.run(inputs)
    except EngineLost:
        raise
    except EngineError:
        return {}
    profile[rows] = max(1, round((clock.monotonic() - start) * 1e6))
    return {name: array.ndim for name, array in outputs.items()}


def _with_ranks(signature: Signature, ranks: Mapping[str, int]) -> Signature:
    """Completes outputs whose rank the file leaves open with what a run has shown."""
    outputs = tuple(
        spec if spec.shape else replace(spec, shape=(-1,) * ranks.get(spec.name, 0)) for spec in signature.outputs
    )
    return replace(signature, outputs=outputs)


def _run_sample(model: LoadedModel, signature: Signature, sample: WarmupSample) -> None:
    """What it does not name and has one size is zeros: a stateful model's state is given by no client and no sample."""
    try:
        given = {t.name: decode(t.name, t.datatype, t.shape, t.data) for t in sample.inputs}
        model.run(samples.zeros(_unnamed(model, signature, given), _rows(signature, given), size=1) | given)
    except EngineLost:
        raise
    except EngineError as error:
        raise InvalidArgument(f"warm-up sample {sample.name!r} failed: {error}") from error


def _unnamed(model: LoadedModel, signature: Signature, given: samples.Inputs) -> list[EngineTensor]:
    free_from = 1 if signature.batchable else 0
    fixed = {spec.name for spec in signature.inputs if not spec.optional and -1 not in spec.shape[free_from:]}
    return [tensor for tensor in model.inputs if tensor.name in fixed and tensor.name not in given]


def _rows(signature: Signature, given: samples.Inputs) -> int | None:
    if not signature.batchable:
        return None
    return next((len(array) for array in given.values() if array.ndim), 1)
