"""Keeps the services' logs from filling the disk."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from pathlib import Path

ROTATE_BYTES = 16 << 20
_PERIOD_S = 10.0


def rotate_logs(directory: Path, limit: int = ROTATE_BYTES) -> None:
    """Sets aside each NAME.log larger than `limit` bytes as NAME.log.1, in place of the one before, and empties it.

    Copied and emptied, not renamed: whoever writes to it has it open, for appending. What is written between the
    two is lost; so is what does not fit on the disk.
    """
    with suppress(OSError):
        for log in [path for path in directory.glob("*.log") if path.stat().st_size > limit]:
            with suppress(OSError):
                shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)


async def keep_logs_small(directory: Path) -> None:
    """Looks now and then, for ever."""
    while True:
        await asyncio.to_thread(rotate_logs, directory)
        await asyncio.sleep(_PERIOD_S)
