"""The mesh's log files, read as one. Synchronous; the servicer runs it in threads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_BLOCK_BYTES = 1 << 16
_MAX_SCAN_BYTES = 64 << 20
"""Looked through per file, from its end, for lines about one model."""
_MAX_READ_BYTES = 4 << 20


class _Line(NamedTuple):
    """Ordered by time, and within a file by place."""

    ts: str
    file: str
    place: int
    text: str


@dataclass(slots=True)
class _Position:
    """Up to where a file has been read, and which file that was."""

    inode: int
    offset: int
    ts: str = ""


class LogFiles:
    """`*.log` of one directory: each holds JSON objects, one a line, oldest first.

    A line that is no JSON object (a traceback of a process that died) is shown as one, under the time of
    the line before it.

    Args:
        directory: may not be there yet.
        model: only lines whose "model" is this; all without it.
    """

    def __init__(self, directory: Path, model: str = "") -> None:
        self._directory = directory
        self._model = model
        self._positions: dict[str, _Position] = {}

    def newest(self, count: int) -> list[str]:
        """The newest `count` lines of all files together, oldest first."""
        lines: list[_Line] = []
        for path in self._paths():
            lines += self._last(path, count)
        return [line.text for line in sorted(lines)[-count:]]

    def added(self) -> list[str]:
        """What was written since the last call of this or of `newest`."""
        lines: list[_Line] = []
        for path in self._paths():
            lines += self._new(path)
        return [line.text for line in sorted(lines)]

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.log"))

    def _last(self, path: Path, count: int) -> list[_Line]:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            data, end = b"", stat.st_size
            start = end
            found: list[_Line] = []
            while start > 0 and len(found) < count and end - start < _MAX_SCAN_BYTES:
                # Twice as much each time, so that what is parsed again adds up to no more than the whole.
                start = max(0, end - max(_BLOCK_BYTES, 2 * (end - start)))
                file.seek(start)
                data = file.read(end - start)
                found = self._parse(path, start, _complete(data, whole=start == 0))
        complete = data.rfind(b"\n") + 1
        self._positions[path.name] = _Position(stat.st_ino, start + complete, found[-1].ts if found else "")
        return found[-count:]

    def _new(self, path: Path) -> list[_Line]:
        with path.open("rb") as file:
            stat = os.fstat(file.fileno())
            position = self._positions.setdefault(path.name, _Position(stat.st_ino, 0))
            if stat.st_ino != position.inode or stat.st_size < position.offset:
                # Rotated or emptied: what is there now is all new.
                position.inode, position.offset = stat.st_ino, 0
            file.seek(position.offset)
            data = file.read(_MAX_READ_BYTES)
        complete = data.rfind(b"\n") + 1
        if not complete and len(data) == _MAX_READ_BYTES:
            complete = len(data)
        lines = self._parse(path, position.offset, data[:complete].splitlines(), position.ts)
        position.offset += complete
        position.ts = lines[-1].ts if lines else position.ts
        return lines

    def _parse(self, path: Path, start: int, raw: Iterable[bytes], ts: str = "") -> list[_Line]:
        return list(self._lines(path, start, raw, ts))

    def _lines(self, path: Path, start: int, raw: Iterable[bytes], ts: str) -> Iterator[_Line]:
        needle = self._model.encode()
        for place, line in enumerate(raw, start):
            if not line.strip() or needle not in line:
                continue
            text = line.decode(errors="replace")
            entry = _entry(line)
            if entry is None:
                entry = {"ts": ts, "level": "error", "process": path.stem, "event": "output", "output": text}
                text = orjson.dumps(entry).decode()
            if self._model and entry.get("model") != self._model:
                continue
            ts = str(entry.get("ts", ts))
            yield _Line(ts, path.name, place, text)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _complete(data: bytes, *, whole: bool) -> list[bytes]:
    """The complete lines of a block; its first is one only if the block begins the file."""
    end = data.rfind(b"\n") + 1
    begin = 0 if whole else data.find(b"\n") + 1
    return data[begin:end].splitlines()
