"""The client that a command talks through."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from headrace.cli.problems import found_here

if TYPE_CHECKING:
    from headrace.client.blocking import Client


def connect(tenant: str = "") -> Client:
    """A client for the mesh at HEADRACE_URL."""
    # gRPC and OpenSSL write what they think to standard error; what matters of it comes as an error, too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from headrace.client.blocking import Client

    with found_here():
        return Client(tenant=tenant or None)
