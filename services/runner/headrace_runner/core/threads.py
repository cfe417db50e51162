"""How many threads an engine gets of its CPU."""

from __future__ import annotations


def intra_op_threads(millicores: int, cpus: int, *, in_cgroup: bool) -> int:
    """At least 1, at most one per CPU of the machine.

    Where a control group holds the runner to its millicores, a begun CPU counts: 1500 get two threads, which together
    get one and a half. Elsewhere threads are all that limits it, and only whole CPUs count.
    """
    whole, rest = divmod(millicores, 1000)
    return min(max(1, whole + (in_cgroup and rest > 0)), max(1, cpus))
