"""What is kept of models' pasts: a JSON file per model below the state directory.

Files, not rows: they are written every few seconds as long as anything happens, matter to nobody but whoever reads
`describe`, and may be lost, so they need no transaction and no migration.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from headrace_autoscaler.domain import Learnt, ModelPast
from headrace_autoscaler.store.documents import CONFIG, Document, T
from headrace_common.logs import get_logger

_PAST: Document[ModelPast] = Document(TypeAdapter(tuple[ModelPast], config=CONFIG))
_LEARNT: Document[Learnt] = Document(TypeAdapter(tuple[Learnt], config=CONFIG))
_POOL = "_standby.json"
"""No model's name begins like this."""


class HistoryFiles:
    """Synchronous and thread-safe; callers on an event loop run these in a thread. `write` may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writing = threading.Lock()

    def read(self) -> dict[str, ModelPast]:
        """All there is. A file that cannot be read is left out, and said."""
        paths = [path for path in sorted(self._directory.glob("*.json")) if path.name != _POOL]
        return {path.stem: past for path in paths if (past := _read(path, _PAST)) is not None}

    def read_pool(self) -> Learnt | None:
        """What the standby pool has learnt; None: there is nothing, or it cannot be read, which is said."""
        path = self._directory / _POOL
        return _read(path, _LEARNT) if path.exists() else None

    def write(self, changed: Mapping[str, ModelPast | None], pool: Learnt | None = None) -> None:
        """Replaces the files of these models; None removes one. Each is whole or as it was, whenever we die.

        Args:
            pool: replaces what the standby pool has learnt; None: that stays as it is.
        """
        with self._writing:
            self._directory.mkdir(parents=True, exist_ok=True)
            for model, past in changed.items():
                _replace(self._directory / f"{model}.json", None if past is None else _PAST.dump(past))
            if pool is not None:
                _replace(self._directory / _POOL, _LEARNT.dump(pool))


def _read(path: Path, document: Document[T]) -> T | None:
    try:
        return document.load(path.read_text())
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        get_logger().warning("history not read", file=str(path), reason=reason)
        return None


def _replace(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(text)
    os.replace(unfinished, path)
