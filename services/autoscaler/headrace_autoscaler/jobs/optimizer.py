"""The optimiser as a process: `python -m headrace_runner.optimizer`, which this service does not import."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from headrace_autoscaler.core.jobs import ORIGINAL, Variant, VariantTiming
from headrace_autoscaler.jobs.keeper import SIGNALLED
from headrace_autoscaler.jobs.work import Found, Progress, Work, WorkFailed

_COMMAND = (sys.executable, "-m", "headrace_autoscaler.jobs.keeper", sys.executable, "-m", "headrace_runner.optimizer")
_OUT = "out"
_NOTHING_FITS = 1
_LAST_WORDS = 2000
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ProcessOptimizer:
    """Args:
    command: what to run, before the optimiser's arguments.
    """

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = tuple(command)

    async def run(self, work: Work, tell: Callable[[Progress], None]) -> Found:
        process = await self._start(work)
        try:
            words = await _listen(process, tell)
            code = await process.wait()
        except BaseException:
            await _kill(process)
            raise
        if code not in (0, _NOTHING_FITS):
            raise WorkFailed(_why(code, words))
        try:
            manifest = orjson.loads(await asyncio.to_thread((work.folder / _OUT / "manifest.json").read_bytes))
            return found(manifest, work.folder / _OUT)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WorkFailed(f"the optimizer left no result that can be read: {words or repr(error)}") from None

    async def _start(self, work: Work) -> asyncio.subprocess.Process:
        # Temporary files beside the result: so they are of one disk, and gone with the folder.
        environment = {**os.environ, **_ONE_THREAD, "TMPDIR": str(work.folder)}
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                *arguments(work),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                process_group=0,
            )
        except OSError as error:
            raise WorkFailed(f"the optimizer cannot be started: {error.strerror or error}") from None


def arguments(work: Work) -> list[str]:
    """The optimiser's command line; by "=", so that no value is taken for a flag."""
    asked = work.optimization
    given = {
        "samples": str(work.samples),
        "labels": asked.labels,
        "floor": repr(asked.floor),
        "latency": "" if asked.latency_s is None else f"{asked.latency_s:.9f}s",
        "precisions": ",".join(asked.precisions),
        "prune": ",".join(map(repr, asked.prune)),
        "out": str(work.folder / _OUT),
        # They were held against autoscaler.max_samples_bytes before the job was queued.
        "max-samples": "0",
    }
    flags = [f"--{name}={value}" for name, value in given.items() if value]
    return [*flags, "--progress-lines", "--", str(work.source)]


def found(manifest: Mapping[str, Any], folder: Path) -> Found:
    """The optimiser's manifest as objects.

    Raises:
        KeyError, TypeError: it is not of the form that is known here.
    """
    variants = []
    for each in manifest["variants"]:
        file = each["file"]
        variants.append((_variant(each, manifest["quality"]), None if file is None else folder / file["name"]))
    return Found(tuple(variants), manifest["chosen"] or "", manifest["reason"])


def _variant(told: Mapping[str, Any], quality: str) -> Variant:
    interval = told["quality"] or {"share": 0.0, "lower": 0.0, "upper": 0.0, "samples": 0}
    return Variant(
        name=told["name"],
        what="as it was deployed" if told["name"] == ORIGINAL else told["what"],
        verdict=told["verdict"],
        reason=told["reason"],
        size_bytes=told["size_bytes"],
        quality=quality,
        share=interval["share"],
        lower=interval["lower"],
        upper=interval["upper"],
        samples=interval["samples"],
        cpu_s_per_row=told["cpu_s_per_row"],
        timings=tuple(VariantTiming(each["rows"], each["latency_s"], each["rows_per_s"]) for each in told["timings"]),
        on_front=told["on_front"],
        engines=tuple(told["engines"]),
    )


async def _listen(process: asyncio.subprocess.Process, tell: Callable[[Progress], None]) -> str:
    """Passes progress on until the process has nothing more to say; returns the last of its other words."""
    if process.stderr is None:
        raise ValueError("the optimiser's standard error is no pipe")
    words = ""
    while line := await _line(process.stderr):
        if (progress := _progress(line)) is not None:
            tell(progress)
        else:
            words = (words + line.decode(errors="replace"))[-_LAST_WORDS:]
    return words.strip()


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # A line beyond the reader's limit, of which the rest follows.
        return b"\n"


def _progress(line: bytes) -> Progress | None:
    if not line.startswith(b'{"stage"'):
        return None
    try:
        told = orjson.loads(line)
        return Progress(told["stage"], told["done"], told["total"])
    except (ValueError, KeyError):
        return None


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Its group, also where its leader is gone: as long as one of the group lives, the number is nobody else's."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.shield(process.wait())


def _why(code: int, words: str) -> str:
    """From an exit status and the last words: "headrace: ..." is what the optimiser says itself."""
    number = -code if code < 0 else code - SIGNALLED
    if number > 0:
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = "; often that is a lack of memory" if number == signal.SIGKILL else ""
        return f"the optimizer was ended by {name}{hint}"
    said = [line.partition("headrace: ")[2] for line in words.splitlines() if line.startswith("headrace: ")]
    last = words.splitlines()[-1] if words else f"exit status {code}"
    return said[-1] if said else f"the optimizer failed: {last}"
