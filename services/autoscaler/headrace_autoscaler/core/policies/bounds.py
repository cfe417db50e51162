"""The user's own bounds, which hold over any policy's wish."""

from __future__ import annotations

from dataclasses import replace

from headrace_autoscaler.core.policies.base import Profile, Wish


def bounded(wish: Wish, profile: Profile) -> Wish:
    """The wish inside the profile's minimum and maximum; the reason says when one of them decided."""
    if wish.desired < profile.min_instances:
        return replace(wish, desired=profile.min_instances, reason="the model's minimum")
    if profile.max_instances is not None and wish.desired > profile.max_instances:
        return replace(wish, desired=profile.max_instances, reason="the model's maximum; the policy asks for more")
    return wish
