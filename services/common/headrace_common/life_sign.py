"""What a runner leaves for whoever was not there when it ended: what it held, and when it was last alive."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

PERIOD_S = 1.0
"""How often a runner shows that it lives: when it ended is known to within this."""


@dataclass(frozen=True, slots=True)
class LifeSign:
    """Of one runner process. Model: empty while it stands by."""

    pid: int
    tenant: str = ""
    model: str = ""
    revision: int = 0
    version: str = ""
    cpu_millicores: int = 0
    memory_bytes: int = 0
    gpu_millis: int = 0
    gpu_memory_bytes: int = 0

    def write(self, path: Path) -> None:
        """Replaces the file, which is whole or as it was. Raises OSError."""
        unfinished = path.with_name(f"{path.name}.new")
        unfinished.write_text(json.dumps(asdict(self)))
        os.replace(unfinished, path)


def life_path(socket: Path) -> Path:
    """Where a runner's sign is, beside its socket."""
    return socket.with_suffix(".life")


def read_life(path: Path) -> tuple[LifeSign, float] | None:
    """The sign, and when it was given last, in seconds since the epoch; None: there is none that can be read."""
    try:
        alive_at = path.stat().st_mtime
        return LifeSign(**json.loads(path.read_text())), alive_at
    except (OSError, ValueError, TypeError):
        return None
