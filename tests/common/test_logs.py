"""Log lines on standard error, also where nobody can take them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LOGS = """
import sys
from headrace_common.logs import configure_logging, get_logger
configure_logging("router-0", "info")
get_logger(model="ocr").debug("not said")
get_logger(model="ocr").info("said", odd=object, text="na\\u00efve")
print("went on")
"""


def run(stderr: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=stderr, check=False, timeout=30)


def test_a_line_is_one_json_object_that_names_the_process() -> None:
    read, write = os.pipe()
    done = run(write)
    os.close(write)
    with os.fdopen(read, "rb") as lines:
        [line] = [json.loads(line) for line in lines]
    assert done.returncode == 0
    assert line.items() >= {"process": "router-0", "event": "said", "level": "info", "model": "ocr"}.items()
    assert line["text"] == "naïve"


def test_nobody_reads_any_more_and_the_process_goes_on() -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(write)
    os.close(write)
    assert (done.returncode, done.stdout) == (0, b"went on\n")


def test_the_disk_is_full_and_the_process_goes_on() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(full.fileno())
    assert (done.returncode, done.stdout) == (0, b"went on\n")


def test_what_every_line_has_comes_first() -> None:
    read, write = os.pipe()
    run(write)
    os.close(write)
    with os.fdopen(read, "rb") as lines:
        assert list(json.loads(lines.readline())) == ["ts", "level", "process", "event", "model", "odd", "text"]
