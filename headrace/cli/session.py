"""The client that a command talks through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.problems import found_here

if TYPE_CHECKING:
    from headrace.client.blocking import Client


def connect(tenant: str = "") -> Client:
    """A client for the mesh at HEADRACE_URL."""
    from headrace.client.blocking import Client

    with found_here():
        return Client(tenant=tenant or None)
