"""Logs of all processes as one, the newest lines first found, and followed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from headrace.v1 import mesh_pb2
from headrace_autoscaler.api.log_files import LogFiles


def log_line(ts: int, event: str, **fields: object) -> bytes:
    return orjson.dumps({"ts": f"2026-01-01T00:00:{ts:02}Z", "level": "info", "event": event, **fields}) + b"\n"


async def read(api: Any, **fields: Any) -> list[str]:
    stream = api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest(**fields))
    return [orjson.loads(answer.line)["event"] async for answer in stream]


@pytest.fixture
def logs(state: Path) -> Path:
    directory = state / "logs"
    directory.mkdir()
    (directory / "a.log").write_bytes(log_line(1, "one", model="m") + log_line(3, "three") + log_line(5, "five"))
    (directory / "b.log").write_bytes(log_line(2, "two") + log_line(4, "four", model="m") + b'{"ts": "cut o')
    (directory / "notes.txt").write_bytes(log_line(9, "no log"))
    return directory


async def test_logs_of_all_processes_are_one_by_time(api: Any, logs: Path) -> None:
    assert await read(api) == ["one", "two", "three", "four", "five"]
    assert await read(api, tail=2) == ["four", "five"]
    assert await read(api, model="m") == ["one", "four"]
    assert await read(api, model="m", tail=1) == ["four"]
    assert await read(api, model="mm") == []


async def test_there_may_be_no_logs_yet(api: Any) -> None:
    assert await read(api) == []


async def test_output_that_is_no_json_is_shown_under_the_time_before_it(api: Any, logs: Path) -> None:
    (logs / "a.log").write_bytes(log_line(1, "one") + b"Traceback: boom\n[1]\n" + log_line(3, "three"))
    lines = [answer.line async for answer in api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest())]
    assert [orjson.loads(line)["event"] for line in lines] == ["one", "output", "output", "two", "three", "four"]
    assert orjson.loads(lines[1]) == {
        "ts": "2026-01-01T00:00:01Z",
        "level": "error",
        "process": "a",
        "event": "output",
        "output": "Traceback: boom",
    }


async def test_the_newest_lines_of_a_large_file_are_found_from_its_end(api: Any, logs: Path) -> None:
    padding = "x" * 500
    lines = [log_line(i % 60, f"e{i}", padding=padding, model="rare" if i == 7 else "m") for i in range(3000)]
    (logs / "a.log").write_bytes(b"".join(lines))
    (logs / "b.log").unlink()
    stamped = [line.replace(b"2026-01-01T00:00:", f"2026-01-01T{i:06}:".encode()) for i, line in enumerate(lines)]
    (logs / "a.log").write_bytes(b"".join(stamped))
    assert await read(api, tail=300) == [f"e{i}" for i in range(2700, 3000)]
    assert await read(api, model="rare") == ["e7"]


async def test_following_tells_what_is_added_until_the_client_goes(api: Any, logs: Path) -> None:
    stream = api.mesh.ReadLogs(mesh_pb2.ReadLogsRequest(follow=True, tail=1))

    async def following() -> str:
        return str(orjson.loads((await asyncio.wait_for(stream.read(), 10)).line)["event"])

    assert await following() == "five"
    with (logs / "b.log").open("ab") as file:
        file.write(b'ff", "event": "completed"}\n' + log_line(6, "six"))
    assert [await following(), await following()] == ["six", "completed"]
    (logs / "c.log").write_bytes(log_line(7, "seven"))
    assert await following() == "seven"
    (logs / "a.log").unlink()
    (logs / "a.log").write_bytes(log_line(8, "rotated"))
    assert await following() == "rotated"
    stream.cancel()


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_a_line_that_a_block_cuts_is_never_taken_for_a_line(tmp_path: Path, beyond: int) -> None:
    lines = [log_line(0, f"{i:06}", padding="x" * 20) for i in range(3000)]
    count = (1 << 16) // len(lines[0]) + beyond  # As many as a block of 64 KiB holds, and one or two more.
    (tmp_path / "a.log").write_bytes(b"".join(lines))
    found = [orjson.loads(line)["event"] for line in LogFiles(tmp_path).newest(count)]
    assert found == [f"{i:06}" for i in range(3000 - count, 3000)]


def test_a_line_is_told_once_it_is_complete(tmp_path: Path) -> None:
    files, path = LogFiles(tmp_path), tmp_path / "a.log"
    assert files.newest(10) == []
    told = []
    for piece in (log_line(1, "one")[:20], log_line(1, "one")[20:] + log_line(2, "two")[:9], log_line(2, "two")[9:]):
        with path.open("ab") as file:
            file.write(piece)
        told.append([orjson.loads(line)["event"] for line in files.added()])
    assert told == [[], ["one"], ["two"]]
    path.write_bytes(log_line(3, "anew"))
    assert [orjson.loads(line)["event"] for line in files.added()] == ["anew"]
