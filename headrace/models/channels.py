"""Which layers of a torch module hang together by their channels, how large they are, and what prunes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch_pruning

from headrace.errors import InvalidArgument

Inputs = tuple[Any, ...] | dict[str, Any]

_ROOTS = (torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR, torch_pruning.ops.TORCH_LSTM)
"""Layers whose channels are chosen; norms and the like follow them."""

_IMPORTANCES = {
    "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
    "lamp": torch_pruning.importance.LAMPImportance,
    "geometric-median": torch_pruning.importance.FPGMImportance,
}


class Count(NamedTuple):
    """Of one layer.

    Attributes:
        channels: that it puts out; 0 where it has none to count.
    """

    kind: str
    channels: int
    parameters: int
    macs: int


def census(module: torch.nn.Module, inputs: Inputs) -> dict[str, Count]:
    """Every layer with parameters of its own, by name."""
    _, _, found, _ = torch_pruning.utils.count_ops_and_params(module, inputs, layer_wise=True)
    macs = {part: int(found.get(part) or 0) for part in module.modules()}
    graph = torch_pruning.DependencyGraph()
    counts = {}
    for name, part in module.named_modules():
        if parameters := sum(each.numel() for each in part.parameters(recurse=False)):
            # What the library has for a part is with its parts'.
            own = max(0, macs[part] - sum(macs[child] for child in part.children()))
            counts[name] = Count(type(part).__name__, _channels(graph, part), parameters, own)
    return counts


def find_kept(module: torch.nn.Module, inputs: Inputs, keep: Sequence[str]) -> dict[str, str]:
    """Layers that must keep their channels, by name, and why.

    Args:
        keep: names of layers or of parts with layers in them.

    Raises:
        InvalidArgument: all of them must.
    """
    graph, ends = _trace(module, inputs)
    names = {part: name for name, part in module.named_modules()}
    groups = list(graph.get_all_groups(root_module_types=_ROOTS))
    tied = _tied(module)
    kept: dict[str, str] = {}
    for group in groups:
        members = [(part, names[part]) for part in _members(graph, group) if part in names]
        own = [name for part, name in members if isinstance(part, _ROOTS)]
        asked = [name for _, name in members if any(f"{name}.".startswith(f"{part}.") for part in keep)]
        if _reaches(graph, group, ends):
            kept |= dict.fromkeys(own, "its channels are an output of the module")
        elif any(isinstance(part, torch_pruning.ops.TORCH_LSTM) for part, _ in members):
            # It cuts the recurrent weights twice along one side, and fails.
            kept |= dict.fromkeys(own, "torch-pruning does not prune an LSTM's channels")
        elif both := [names[each] for each in _touched(group) if names.get(each) in tied]:
            # Pruned, each would have weights of its own: the module would be larger.
            kept |= dict.fromkeys(own, f"{both[0]} has its weights in common with {tied[both[0]]}")
        elif asked:
            kept |= dict.fromkeys(own, f"shares its channels with {asked[0]}, which is to be kept")
            kept |= dict.fromkeys(asked, "as asked")
        elif graph.get_out_channels(group[0].dep.target.module) == 1:
            kept |= dict.fromkeys(own, "it has one channel")
    if all(names[group[0].dep.target.module] in kept for group in groups):
        reasons = "; ".join(f"{name or 'the module'}: {kept[name]}" for name in names.values() if name in kept)
        raise InvalidArgument(
            f"nothing to prune: {reasons or 'no convolution, linear layer or LSTM leads to a differentiable output'}"
        )
    seen = graph.module2node
    unused = [name for part, name in names.items() if isinstance(part, _ROOTS) and part not in seen]
    return kept | dict.fromkeys(unused, "no differentiable output depends on it")


def make_pruner(
    module: torch.nn.Module, inputs: Inputs, ratio: float, steps: int, importance: str, kept: dict[str, str]
) -> Any:
    """Its `step()`, as often as `steps`, prunes the module in place."""
    return torch_pruning.pruner.BasePruner(
        module,
        inputs,
        importance=_IMPORTANCES[importance](),
        pruning_ratio=ratio,
        pruning_ratio_dict=_all_but_one(module, ratio),
        iterative_steps=steps,
        ignored_layers=[module.get_submodule(name) for name in kept],
        root_module_types=list(_ROOTS),
        # Its defaults are dictionaries which all pruners share, and fill.
        in_channel_groups={},
        # Each head of an attention gives up as many.
        out_channel_groups={
            part: part.num_heads for part in module.modules() if isinstance(part, torch.nn.MultiheadAttention)
        },
        num_heads={},
    )


def _trace(module: torch.nn.Module, inputs: Inputs) -> tuple[Any, list[Any]]:
    """The dependency graph, and what computed the outputs."""
    ends: list[Any] = []

    def differentiable(outputs: Any) -> list[torch.Tensor]:
        leaves = torch.utils._pytree.tree_leaves(outputs)
        found = [each for each in leaves if isinstance(each, torch.Tensor) and each.grad_fn is not None]
        ends.extend(each.grad_fn for each in found)
        return found

    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(module, inputs, output_transform=differentiable, verbose=False)
    return graph, ends


def _all_but_one(module: torch.nn.Module, ratio: float) -> dict[torch.nn.Module, float]:
    """Ratios for narrow layers: one that would lose all its channels is passed over by the library."""
    graph = torch_pruning.DependencyGraph()
    widths = {part: _channels(graph, part) for part in module.modules() if isinstance(part, _ROOTS)}
    return {part: 1 - 1.5 / width for part, width in widths.items() if width > 1 and width * (1 - ratio) < 1}


def _channels(graph: Any, part: torch.nn.Module) -> int:
    pruner = graph.get_pruner_of_module(part)
    return (pruner.get_out_channels(part) if pruner else None) or 0


def _tied(module: torch.nn.Module) -> dict[str, str]:
    """Layers that have a parameter in common with another, and which one."""
    owners: dict[int, list[str]] = {}
    for name, part in module.named_modules():
        for each in part.parameters(recurse=False):
            owners.setdefault(id(each), []).append(name)
    return {
        name: next(other for other in all_ if other != name)
        for all_ in owners.values()
        if len(all_) > 1
        for name in all_
    }


def _touched(group: Any) -> Iterator[Any]:
    """Whatever loses something with the group's channels, on either side."""
    return (dependency.target.module for dependency, _ in group)


def _members(graph: Any, group: Any) -> Iterator[Any]:
    """The layers of a group whose own channels leave with it, and not those behind them alone."""
    for dependency, _ in group:
        if graph.is_out_channel_pruning_fn(dependency.handler):
            yield dependency.target.module


def _reaches(graph: Any, group: Any, ends: Sequence[Any]) -> bool:
    """Whether an output of the module has the group's channels. A layer that only takes them in has others to give."""
    return any(
        any(dependency.target.grad_fn is end for end in ends) and graph.is_out_channel_pruning_fn(dependency.handler)
        for dependency, _ in group
    )
