"""Structured pruning: whole channels leave a torch module, which is smaller afterwards, and not only emptier.

Which layers hang together is found by torch-pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR
2023); what must not be touched, and whether the module still does its work, is checked here.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    import torch

    from headrace.models.channels import Count

FineTune = Callable[["torch.nn.Module", int], object]

IMPORTANCES = ("magnitude", "lamp", "geometric-median")
"""By the L2 norm of a channel's weights; the same in proportion to the larger ones of its layer (Lee et al., 2021); by
how well the others stand in for it (He et al., 2019).
"""


class Change(NamedTuple):
    before: int
    after: int

    @property
    def share(self) -> float:
        """What is left, 0 to 1."""
        return self.after / self.before if self.before else 1.0


@dataclass(frozen=True, slots=True)
class Layer:
    """Attributes:
    name: as in `module.named_modules()`.
    kind: its class.
    channels: that it puts out.
    macs: multiplications with additions, for the example inputs.
    kept: why none of its own channels were removed; empty where some were, and where they follow another layer's.
    """

    name: str
    kind: str
    channels: Change
    parameters: Change
    macs: Change
    kept: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """Attributes:
    module: the smaller one; the module that was given is as it was.
    layers: those with parameters, in the module's order.
    """

    module: torch.nn.Module
    parameters: Change
    macs: Change
    layers: tuple[Layer, ...]

    def __str__(self) -> str:
        """A line for the whole and one for each layer."""
        lines = [_line("all", self.parameters, self.macs)]
        for each in self.layers:
            channels = f"{each.channels.before} to {each.channels.after} channels"
            kept = f"; kept: {each.kept}" if each.kept else ""
            lines.append(f"{_line(each.name or each.kind, each.parameters, each.macs)}, {channels}{kept}")
        return "\n".join(lines)


def prune(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    ratio: float,
    fine_tune: FineTune | None = None,
    steps: int = 1,
    importance: str = "magnitude",
    keep: Collection[str] = (),
) -> Pruned:
    """Removes the least important channels of each layer, and what the layers behind them did with those.

    Layers whose channels are the module's output are never pruned, nor those that share their channels with one.

    Args:
        example_inputs: a tensor, a tuple of them, or a mapping by names of arguments; any values that the module takes.
        ratio: share of each layer's channels to remove, above 0 and below 1. Parameters and operations between two
            pruned layers shrink with its square.
        fine_tune: called after each step with the module, which it trains in place, and the step, from 0. Parameters
            are new objects after each step, so an optimizer has to be made anew in each call.
        steps: to reach the ratio in, by equal parts. More steps with training between them keep more of the accuracy.
        importance: one of `IMPORTANCES`.
        keep: names of layers, or of modules with layers in them, not to prune.

    Raises:
        InvalidArgument: an argument is out of bounds, the module cannot run on the inputs, or nothing can be pruned.
        FailedPrecondition: torch-pruning cannot trace the module, the pruned one no longer gives outputs of the same
            shapes, it is called under torch.inference_mode, or torch or torch-pruning is not installed.
    """
    torch = _torch()
    if torch.is_inference_mode_enabled():
        raise FailedPrecondition(
            "prune is called under torch.inference_mode, where nothing has gradients, which it follows; call it "
            "outside of that (under torch.no_grad it works)"
        )
    from headrace.models import channels  # imports torch-pruning

    kept_parts = (keep,) if isinstance(keep, str) else tuple(keep)
    if not isinstance(module, torch.nn.Module):
        raise InvalidArgument(f"module: expected a torch.nn.Module; got {type(module).__name__}")
    _check(module, ratio, steps, importance, kept_parts)
    inputs = _inputs(torch, example_inputs)
    smaller = _copy(module)
    expected = _shapes(torch, smaller, inputs)
    with _traced(torch, smaller, "trace"):
        before = channels.census(smaller, inputs)
        kept = channels.find_kept(smaller, inputs, kept_parts)
        pruner = channels.make_pruner(smaller, inputs, ratio, steps, importance, kept)
    with _same_modes(smaller):
        for step in range(steps):
            with _traced(torch, smaller, "prune"):
                pruner.step()
            _check_outputs(torch, smaller, inputs, expected)
            with _traced(torch, smaller, "count"):
                left = channels.census(smaller, inputs)
            _check_shares(before, left, ratio * (step + 1) / steps)
            if fine_tune is not None:
                fine_tune(smaller, step)
    with _traced(torch, smaller, "count"):
        after = channels.census(smaller, inputs)
    return _result(smaller, before, after, kept)


def _check_shares(before: Mapping[str, Count], after: Mapping[str, Count], ratio: float) -> None:
    """Where halves of a layer's output meet again, as in gated units, channels leave with others that were to stay."""
    for name, old in before.items():
        removed, wanted = old.channels - after[name].channels, ratio * old.channels
        if removed > wanted + max(2.0, 0.1 * old.channels):
            raise FailedPrecondition(
                f"{name or old.kind} would lose {removed} of {old.channels} channels, and not {ratio:g} of them: its "
                "output is split, and the parts meet again; name it with keep=(...)"
            )


def _result(
    module: torch.nn.Module,
    before: Mapping[str, Count],
    after: Mapping[str, Count],
    kept: Mapping[str, str],
) -> Pruned:
    layers = tuple(
        Layer(
            name,
            old.kind,
            Change(old.channels, after[name].channels),
            Change(old.parameters, after[name].parameters),
            Change(old.macs, after[name].macs),
            kept.get(name, ""),
        )
        for name, old in before.items()
    )
    if all(each.channels.before == each.channels.after for each in layers):
        raise InvalidArgument("nothing to prune: no layer that is not kept has a channel to spare")
    parameters = Change(_total(before, "parameters"), _total(after, "parameters"))
    return Pruned(module, parameters, Change(_total(before, "macs"), _total(after, "macs")), layers)


def _total(counts: Mapping[str, Count], what: str) -> int:
    return sum(getattr(each, what) for each in counts.values())


def _line(name: str, parameters: Change, macs: Change) -> str:
    return (
        f"{name}: {parameters.before:,} to {parameters.after:,} parameters ({parameters.share:.2f}), "
        f"{macs.before:,} to {macs.after:,} MACs ({macs.share:.2f})"
    )


def _torch() -> Any:
    missing = [name for name in ("torch", "torch_pruning") if find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            f"pruning needs {', '.join(missing)}, which is not installed here; pip install 'headrace[torch]'"
        )
    import torch

    return torch


def _check(module: torch.nn.Module, ratio: float, steps: int, importance: str, keep: Collection[str]) -> None:
    if not 0.0 < ratio < 1.0:
        raise InvalidArgument(f"ratio: expected a share above 0 and below 1, such as 0.5; got {ratio!r}")
    if steps < 1:
        raise InvalidArgument(f"steps: expected 1 or more; got {steps!r}")
    if importance not in IMPORTANCES:
        raise InvalidArgument(f"importance: expected one of {', '.join(IMPORTANCES)}; got {importance!r}")
    names = {name for name, _ in module.named_modules() if name}
    for each in keep:
        if each not in names:
            raise InvalidArgument(f"keep: the module has no {each!r}; it has {', '.join(sorted(names)) or 'no parts'}")


def _inputs(torch: Any, given: Any) -> tuple[Any, ...] | dict[str, Any]:
    if isinstance(given, torch.Tensor):
        return (given,)
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list | tuple):
        return tuple(given)
    raise InvalidArgument(f"example_inputs: expected a tensor, a tuple or a mapping; got {type(given).__name__}")


def _copy(module: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(module)
    except Exception as error:
        # Whatever somebody's module says when it is copied.
        raise InvalidArgument(f"module: {type(module).__name__} cannot be copied: {_said(error)}") from error


def _run(module: torch.nn.Module, inputs: Any) -> Any:
    return module(**inputs) if isinstance(inputs, dict) else module(*inputs)


def _shapes(torch: Any, module: torch.nn.Module, inputs: Any) -> list[list[int]]:
    """Of the outputs, in evaluation: training would count the examples as data."""
    try:
        with torch.no_grad(), _same_modes(module):
            outputs = torch.utils._pytree.tree_leaves(_run(module.eval(), inputs))
    except Exception as error:
        # Whatever the module's own code raises.
        raise InvalidArgument(f"example_inputs: the module cannot run on them: {_said(error)}") from error
    return [list(each.shape) for each in outputs if isinstance(each, torch.Tensor)]


def _check_outputs(torch: Any, module: torch.nn.Module, inputs: Any, expected: list[list[int]]) -> None:
    advice = "name with keep=(...) the layers before the place where its code counts on their channels"
    try:
        found = _shapes(torch, module, inputs)
    except InvalidArgument as error:
        reason = error.message.partition("run on them: ")[2]
        raise FailedPrecondition(f"the pruned module no longer runs: {reason}; {advice}") from error
    if found != expected:
        raise FailedPrecondition(f"the pruned module's outputs have the shapes {found}, expected {expected}; {advice}")


@contextlib.contextmanager
def _traced(torch: Any, module: torch.nn.Module, doing: str) -> Iterator[None]:
    """What torch-pruning needs around it, and what it raises as a reason; its warnings are for its own users."""
    try:
        with torch.enable_grad(), _same_modes(module), _trainable(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InvalidArgument:
        raise
    except Exception as error:
        # Whatever tracing meets in somebody's module.
        raise FailedPrecondition(f"torch-pruning cannot {doing} {type(module).__name__}: {_said(error)}") from error


@contextlib.contextmanager
def _same_modes(module: torch.nn.Module) -> Iterator[None]:
    """Each part trains or evaluates afterwards as it did before."""
    modes = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


@contextlib.contextmanager
def _trainable(module: torch.nn.Module) -> Iterator[None]:
    """Tracing follows gradients, which frozen parameters do not have."""
    frozen = {name for name, each in module.named_parameters() if not each.requires_grad}
    _require_gradients(module, frozen, True)
    try:
        yield
    finally:
        _require_gradients(module, frozen, False)


def _require_gradients(module: torch.nn.Module, names: Collection[str], wanted: bool) -> None:
    for name, each in module.named_parameters():
        if name in names and each.is_floating_point():
            each.requires_grad_(wanted)


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'without a reason'}"
