"""A stop ends, whatever one of its steps does, and says what it waited for."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
import structlog

from headrace_autoscaler.stopping import Stopping
from headrace_common.clock import SystemClock


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize("limit_s", [0.05, None], ids=["its-own-limit", "the-limit-of-all"])
async def test_what_does_not_end_is_left_behind_and_named(limit_s: float | None) -> None:
    done: list[str] = []

    async def last() -> None:
        done.append("last")

    with structlog.testing.capture_logs() as logs:
        stopping = Stopping(SystemClock(), 0.3)
        hanging = asyncio.create_task(forever(), name="somebody's task")
        await stopping.step("runners", forever(), limit_s)
        await stopping.step("catalogue", last())
    [said] = logs
    assert (said["event"], said["step"], said["log_level"]) == ("stop goes on without", "runners", "error")
    assert "somebody's task" in said["tasks"]
    assert done == ["last"], "what comes after has its turn"
    hanging.cancel()


async def test_a_step_that_fails_does_not_keep_the_rest_from_stopping() -> None:
    with structlog.testing.capture_logs() as logs:
        await Stopping(SystemClock(), 5.0).step("provider", fails())
    assert [(each["event"], each["step"]) for each in logs] == [("stop step failed", "provider")]


HANGS_AT_ITS_END = """
import threading
from headrace_autoscaler.stopping import end_anyway
from headrace_common.logs import configure_logging
configure_logging("autoscaler")
threading.Thread(target=threading.Event().wait, name="stuck").start()
end_anyway(7, 0.1)
"""


def test_a_process_that_hangs_at_its_end_ends_and_says_where_its_threads_were() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS_AT_ITS_END], capture_output=True, timeout=60, check=False)
    assert done.returncode == 7
    line = json.loads(done.stderr)
    assert line["event"] == "ended by force"
    assert any(name.startswith("stuck ") for name in line["threads"])
