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

from headrace_autoscaler.domain import ModelPast
from headrace_autoscaler.store.documents import CONFIG, Document
from headrace_common.logs import get_logger

_PAST: Document[ModelPast] = Document(TypeAdapter(tuple[ModelPast], config=CONFIG))


class HistoryFiles:
    """Synchronous and thread-safe; callers on an event loop run these in a thread. `write` may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._writing = threading.Lock()

    def read(self) -> dict[str, ModelPast]:
        """All there is. A file that cannot be read is left out, and said."""
        past = {}
        for path in sorted(self._directory.glob("*.json")):
            try:
                past[path.stem] = _PAST.load(path.read_text())
            except (OSError, ValueError, ValidationError) as error:
                reason = " ".join(str(error).split())
                get_logger().warning("history not read", file=str(path), reason=reason)
        return past

    def write(self, changed: Mapping[str, ModelPast | None]) -> None:
        """Replaces the files of these models; None removes one. Each is whole or as it was, whenever we die."""
        with self._writing:
            self._directory.mkdir(parents=True, exist_ok=True)
            for model, past in changed.items():
                _replace(self._directory / f"{model}.json", past)


def _replace(path: Path, past: ModelPast | None) -> None:
    if past is None:
        path.unlink(missing_ok=True)
        return
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.write_text(_PAST.dump(past))
    os.replace(unfinished, path)
