"""Tensor buffers between a router and a runner on one machine, without the stream in between.

A router makes one segment per connection. Its first half carries bundles, which the router places; its
second half carries results, which the runner places. Offsets are of the segment.
"""

from headrace_common.shared_memory.placer import Placer, ResultPlacer, read_bundle, read_result
from headrace_common.shared_memory.segment import SHARED_FROM_BYTES, BadRegion, Region, Segment, SegmentRefused

__all__ = [
    "SHARED_FROM_BYTES",
    "BadRegion",
    "Placer",
    "Region",
    "ResultPlacer",
    "Segment",
    "SegmentRefused",
    "read_bundle",
    "read_result",
]
