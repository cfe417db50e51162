"""Who may take a database over: one mesh keeps its state in one database.

A mesh's autoscaler that begins again follows itself, at once. Where the last one was another mesh's, it may live: then
two would take the database from each other in turn, for ever, and the routers of both would lose what they reported.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from headrace_autoscaler.ports import Store
from headrace_common.errors import FailedPrecondition

_WATCHED_S = 2.5
"""An autoscaler posts once a second, as long as anything runs."""


async def take_over(store: Store, mark: Path) -> int:
    """Begins the next epoch.

    Args:
        mark: a file of this mesh's, which says what the last epoch of its own was.

    Raises:
        FailedPrecondition: another mesh's autoscaler keeps its books in this database.
    """
    last = await asyncio.to_thread(store.last_epoch)
    if last not in (0, _own(mark)):
        before = await asyncio.to_thread(store.booked_until_us)
        await asyncio.sleep(_WATCHED_S)
        if await asyncio.to_thread(store.booked_until_us) != before:
            raise FailedPrecondition(
                f"another mesh's autoscaler (epoch {last}) is at work in this database: one database is for one mesh; "
                "stop that mesh, or give this one another autoscaler.database_url"
            )
    epoch = await asyncio.to_thread(store.begin_epoch)
    # A full disk costs the next start the time of watching, and this one nothing.
    with suppress(OSError):
        await asyncio.to_thread(mark.write_text, f"{epoch}\n")
    return epoch


def _own(mark: Path) -> int | None:
    """None where it is missing or damaged."""
    try:
        return int(mark.read_text())
    except (OSError, ValueError):
        return None
