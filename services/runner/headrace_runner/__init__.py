"""The runner service: one process, one instance; holds an engine and executes whole batches."""

import os

from headrace_common.grpc_core import poll_without_event_engine

# Here, because it must come before the first import of grpc.
poll_without_event_engine(os.environ)
