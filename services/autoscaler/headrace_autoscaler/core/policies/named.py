"""Policies by the names that users choose them by."""

from __future__ import annotations

from collections.abc import Callable

from headrace_autoscaler.core.policies.base import Policy
from headrace_autoscaler.core.policies.headrace import HeadracePolicy
from headrace_autoscaler.core.policies.hpa import HpaPolicy
from headrace_autoscaler.core.policies.kpa import KpaPolicy
from headrace_autoscaler.core.policies.ray import RayPolicy
from headrace_autoscaler.core.policies.thresholds import AGGRESSIVE, BALANCED, CONSERVATIVE, ThresholdPolicy
from headrace_common.errors import InvalidArgument

POLICIES: dict[str, Callable[[], Policy]] = {
    "headrace": HeadracePolicy,
    "conservative": lambda: ThresholdPolicy(CONSERVATIVE),
    "balanced": lambda: ThresholdPolicy(BALANCED),
    "aggressive": lambda: ThresholdPolicy(AGGRESSIVE),
    "kpa": KpaPolicy,
    "ray": RayPolicy,
    "hpa": HpaPolicy,
}


def policy_factory(name: str) -> Callable[[], Policy]:
    """What makes the policy of that name; every call one of its own.

    Raises:
        InvalidArgument: there is no such policy; names those that there are.
    """
    factory = POLICIES.get(name)
    if factory is None:
        raise InvalidArgument(f"policy {name!r} is not known; there are {', '.join(POLICIES)}")
    return factory
