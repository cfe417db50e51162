"""How gRPC's core polls in the processes at both ends of the Execute stream.

By default each message goes through a pool of threads of gRPC's "event engine" before the thread that polls
for Python sees it. Without it that thread reads the socket itself: half the context switches of a bundle and
a quarter of its latency (docs/data-path.md). The core reads this from the environment, once, when `grpc` is
imported; an unknown name costs a line in the log, and a test holds these to the installed version.
"""

from __future__ import annotations

from collections.abc import MutableMapping

VARIABLE = "GRPC_EXPERIMENTS"
EXPERIMENTS = "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"


def poll_without_event_engine(environment: MutableMapping[str, str]) -> None:
    """Leaves alone what the operator has set."""
    environment.setdefault(VARIABLE, EXPERIMENTS)
