"""Which policy a model has: the one that is named, or the one that the table of traffic and cost says.

| traffic | policy |
| --- | --- |
| nothing said | headrace |
| spiky | aggressive |
| steady | conservative |
| variable, or only a sensitivity to cost | balanced |

A high sensitivity to cost multiplies the upper threshold by 1.2 and the lower one by 0.8, a low one by 0.8 and 1.2;
on our own policy it doubles or halves the chance of being short that it accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from headrace_autoscaler.core.policies.base import Policy
from headrace_autoscaler.core.policies.headrace import HeadracePolicy
from headrace_autoscaler.core.policies.named import POLICIES, policy_factory
from headrace_autoscaler.core.policies.schedules import Schedule, ScheduledPolicy
from headrace_autoscaler.core.policies.targets import Target, TargetedPolicy
from headrace_autoscaler.core.policies.thresholds import (
    AGGRESSIVE,
    BALANCED,
    CONSERVATIVE,
    Sensitivity,
    ThresholdPolicy,
)
from headrace_common.errors import InvalidArgument

DEFAULT = "headrace"
_BY_TRAFFIC = {"spiky": "aggressive", "steady": "conservative", "variable": "balanced"}
_THRESHOLDS = {"conservative": CONSERVATIVE, "balanced": BALANCED, "aggressive": AGGRESSIVE}
_SENSITIVITIES: dict[str, Sensitivity] = {"high": "cost", "normal": "normal", "low": "latency"}
_THRIFT = {"high": 2.0, "normal": 1.0, "low": 0.5}
TRAFFIC = tuple(_BY_TRAFFIC)
COST_SENSITIVITY = tuple(_SENSITIVITIES)


def policy_name(asked: str, traffic: str = "", cost_sensitivity: str = "") -> str:
    """The policy's name; "" is what was not said.

    Raises:
        InvalidArgument: names the field, what was expected and what came.
    """
    _check("policy", asked, POLICIES)
    _check("traffic", traffic, TRAFFIC)
    _check("cost_sensitivity", cost_sensitivity, COST_SENSITIVITY)
    if asked:
        _check_adjustable(asked, cost_sensitivity)
        return asked
    if traffic:
        return _BY_TRAFFIC[traffic]
    return _BY_TRAFFIC["variable"] if cost_sensitivity in ("high", "low") else DEFAULT


def make_policy(
    name: str, cost_sensitivity: str = "", schedules: Sequence[Schedule] = (), targets: Sequence[Target] = ()
) -> Policy:
    """A policy for one model, under its schedule, beside its targets.

    Args:
        name: as `policy_name` answered it.
    """
    return governed(_plain(name, cost_sensitivity or "normal"), schedules, targets)


def governed(policy: Policy, schedules: Sequence[Schedule], targets: Sequence[Target]) -> Policy:
    """A policy under a schedule, beside targets."""
    if targets:
        policy = TargetedPolicy(policy, targets)
    return ScheduledPolicy(policy, schedules) if schedules else policy


def factories(names: str, cost_sensitivity: str = "") -> dict[str, Callable[[], Policy]]:
    """Policies by name; what a sensitivity adjusts of them is adjusted.

    Args:
        names: with commas between them, or "all", of which some cannot be adjusted.

    Raises:
        InvalidArgument: one of them is not known, or cannot be adjusted.
    """
    _check("cost_sensitivity", cost_sensitivity, COST_SENSITIVITY)
    if names == "all":
        return {name: partial(_adjusted, name, cost_sensitivity) for name in POLICIES}
    listed = [name.strip() for name in names.split(",")]
    for name in listed:
        policy_factory(name)
        _check_adjustable(name, cost_sensitivity)
    return {name: partial(make_policy, name, cost_sensitivity) for name in listed}


def _adjusted(name: str, cost_sensitivity: str) -> Policy:
    return make_policy(name, cost_sensitivity if name == DEFAULT or name in _THRESHOLDS else "")


def _plain(name: str, cost_sensitivity: str) -> Policy:
    if name in _THRESHOLDS:
        return ThresholdPolicy(_THRESHOLDS[name], _SENSITIVITIES[cost_sensitivity])
    if name == DEFAULT:
        return HeadracePolicy(_THRIFT[cost_sensitivity])
    return policy_factory(name)()


def _check(field: str, value: str, known: Iterable[str]) -> None:
    if value and value not in known:
        raise InvalidArgument(f"{field}: expected {', '.join(known)} or none, got {value!r}")


def _check_adjustable(name: str, cost_sensitivity: str) -> None:
    if cost_sensitivity in ("high", "low") and name != DEFAULT and name not in _THRESHOLDS:
        raise InvalidArgument(
            f"cost_sensitivity: policy {name!r} has nothing to adjust; expected it with "
            f"{', '.join((DEFAULT, *_THRESHOLDS))}, or none"
        )
