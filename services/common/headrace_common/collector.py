"""Python's garbage collector, kept out of the way of processes that serve for long."""

from __future__ import annotations

import gc


def spare_the_collector() -> None:
    """What lives for ever is not looked at again, and what requests leave is looked at seldom.

    For a process that has started up, and again once it holds what it will hold. Requests leave no cycles, however they
    end, and with hundreds in flight the default thresholds have the collector look for them every few dozen requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
