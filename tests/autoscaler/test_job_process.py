"""The optimiser as a process: what it is asked, what it says, how it ends, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace_autoscaler.core.jobs import Optimization
from headrace_autoscaler.jobs.optimizer import ProcessOptimizer, arguments
from headrace_autoscaler.jobs.work import Progress, Work, WorkFailed
from headrace_common.quantities import parse_seconds

KEEPER = (sys.executable, "-m", "headrace_autoscaler.jobs.keeper")
_TELLS_WHO_IT_IS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
score = open("/proc/self/oom_score_adj").read()
print(os.getpid(), child.pid, os.getpgrp(), os.nice(0), score, flush=True)
time.sleep(600)
"""
MANIFEST = {
    "quality": "agreement",
    "chosen": "int8",
    "reason": "int8 is the cheapest",
    "variants": [
        {
            "name": "original",
            "what": "as it came",
            "engines": ["onnxruntime"],
            "verdict": "fits",
            "reason": "",
            "on_front": True,
            "size_bytes": 100,
            "quality": {"share": 1.0, "lower": 0.99, "upper": 1.0, "samples": 400},
            "cpu_s_per_row": 0.25,
            "timings": [{"rows": 1, "latency_s": 0.5, "cpu_s": 0.25, "rows_per_s": 2.0}],
            "file": None,
        },
        {
            "name": "int8",
            "what": "QDQ",
            "engines": ["onnxruntime"],
            "verdict": "disqualified",
            "reason": "NaN",
            "on_front": False,
            "size_bytes": 30,
            "quality": None,
            "cpu_s_per_row": None,
            "timings": [],
            "file": {"name": "int8.onnx", "sha256": "0"},
        },
    ],
}


def work(folder: Path, **asked: Any) -> Work:
    return Work("m", folder / "model.onnx", folder / "samples.npz", folder, Optimization(**asked))


def optimizer(script: str) -> ProcessOptimizer:
    """One whose process runs this in place of the optimiser; the arguments are in sys.argv."""
    return ProcessOptimizer((*KEEPER, sys.executable, "-c", script))


def writes(manifest: Any, code: int) -> str:
    return f"""
import json, os, pathlib, sys
out = next(pathlib.Path(each[6:]) for each in sys.argv if each.startswith("--out="))
out.mkdir()
(out / "manifest.json").write_text({json.dumps(manifest)!r})
sys.stderr.write('{{"stage": "timing", "done": 1, "total": 2}}\\n')
sys.exit({code})
"""


def runs(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def ended(*pids: int) -> None:
    async with asyncio.timeout(10):
        while any(map(runs, pids)):  # noqa: ASYNC110 - other processes' ends are not told
            await asyncio.sleep(0.01)


def test_only_what_was_asked_for_is_on_the_command_line(tmp_path: Path) -> None:
    assert arguments(work(tmp_path)) == [
        f"--samples={tmp_path}/samples.npz",
        "--floor=0.99",
        f"--out={tmp_path}/out",
        "--max-samples=0",
        "--progress-lines",
        "--",
        f"{tmp_path}/model.onnx",
    ]
    asked = arguments(work(tmp_path, labels="-y", latency_s=0.02, precisions=("fp16", "int8"), prune=(0.3, 0.5)))
    assert {"--labels=-y", "--latency=0.020000000s", "--precisions=fp16,int8", "--prune=0.3,0.5"} <= set(asked)


@pytest.mark.parametrize("latency_s", [1500.0, 1.23456789, 1e-7])
def test_any_latency_is_written_as_the_optimiser_reads_it(tmp_path: Path, latency_s: float) -> None:
    [text] = [each for each in arguments(work(tmp_path, latency_s=latency_s)) if each.startswith("--latency=")]
    assert parse_seconds(text.partition("=")[2], "--latency") == pytest.approx(latency_s)


@pytest.mark.parametrize("code", [0, 1])
async def test_what_it_found_and_how_far_it_was_is_told(tmp_path: Path, code: int) -> None:
    told: list[Progress] = []
    found = await optimizer(writes(MANIFEST, code)).run(work(tmp_path), told.append)
    assert told == [Progress("timing", 1, 2)]
    (original, no_file), (int8, file) = found.variants
    assert (found.chosen, found.reason, no_file, file) == ("int8", MANIFEST["reason"], None, tmp_path / "out/int8.onnx")
    assert (original.share, original.lower, original.samples, original.cpu_s_per_row) == (1.0, 0.99, 400, 0.25)
    assert (int8.verdict, int8.samples, int8.cpu_s_per_row, int8.size_bytes) == ("disqualified", 0, None, 30)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('headrace: samples.npz: has 9 samples')", "the optimizer left no result"),
        ("import os, sys; sys.stderr.write('noise\\nheadrace: too few\\n'); os._exit(2)", "too few"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL; often that is a lack of memory"),
        ("import os; os.kill(os.getppid(), 9)", "was ended by SIGKILL"),
        ("import sys; raise RuntimeError('a' * 5_000_000)", "the optimizer"),
        ("import sys; sys.exit(7)", "the optimizer failed: exit status 7"),
        (writes({"variants": [{}]}, 0), "the optimizer left no result that can be read"),
    ],
    ids=["1 without a result", "a reason", "killed", "its keeper killed", "a long line", "a status", "half a result"],
)
async def test_why_it_failed_is_a_sentence(tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(WorkFailed, match=said):
        await optimizer(script).run(work(tmp_path), lambda _: None)


async def test_a_program_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorkFailed, match="cannot be started: No such file"):
        await ProcessOptimizer(("/no/such/program",)).run(work(tmp_path), lambda _: None)


async def test_given_up_it_leaves_no_process(tmp_path: Path) -> None:
    script = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"stage": "pids", "done": %d, "total": %d}' % (os.getpid(), child.pid), file=sys.stderr, flush=True)
time.sleep(600)
"""
    told: asyncio.Queue[Progress] = asyncio.Queue()
    running = asyncio.create_task(optimizer(script).run(work(tmp_path), told.put_nowait))
    async with asyncio.timeout(10):
        pids = await told.get()
    running.cancel()
    await asyncio.wait({running})
    await ended(pids.done, pids.total)


_KILLS_ITS_KEEPER = """
import os, sys, time
print('{"stage": "pids", "done": %d, "total": %d}' % (os.getpid(), child), file=sys.stderr, flush=True)
os.kill(os.getppid(), 9)
time.sleep(600)
"""
_HAS_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
"""


async def test_it_ends_with_its_keeper(tmp_path: Path) -> None:
    told: asyncio.Queue[Progress] = asyncio.Queue()
    async with asyncio.timeout(10):
        with pytest.raises(WorkFailed, match="was ended by SIGKILL"):
            await optimizer("child = 0" + _KILLS_ITS_KEEPER).run(work(tmp_path), told.put_nowait)
    await ended(told.get_nowait().done)


async def test_given_up_after_its_keeper_was_killed_it_leaves_no_process(tmp_path: Path) -> None:
    told: asyncio.Queue[Progress] = asyncio.Queue()
    running = asyncio.create_task(optimizer(_HAS_A_CHILD + _KILLS_ITS_KEEPER).run(work(tmp_path), told.put_nowait))
    async with asyncio.timeout(10):
        pids = await told.get()
        await ended(pids.done)
    running.cancel()
    await asyncio.wait({running})
    await ended(pids.done, pids.total)


async def test_it_ends_with_the_autoscaler_however_that_ends() -> None:
    """The other end of the pipe is closed, as by a kernel whose process is gone."""
    process = await asyncio.create_subprocess_exec(
        *KEEPER,
        sys.executable,
        "-c",
        _TELLS_WHO_IT_IS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        process_group=0,
    )
    assert process.stdin
    assert process.stdout
    pid, grandchild, group, niceness, score = map(int, (await process.stdout.readline()).split())
    assert group == process.pid
    assert (niceness, score) == (min(19, os.nice(0) + 15), 1000), "serving comes first"
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == -signal.SIGKILL
    await ended(pid, grandchild)
