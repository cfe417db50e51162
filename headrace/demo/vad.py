"""`python -m headrace.demo.vad`: silero-vad listens to many streams at once, through the mesh, and is checked.

Each stream is a sequence; its state is kept by the mesh. The package's own class then listens to each stream alone, and
the largest difference is shown. Exits 1 if it is above 1e-5.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from headrace import AsyncClient, Client
from headrace.demo.audio import Samples, recordings, streams
from headrace.demo.mesh import running_mesh
from headrace.demo.vad_stream import CHUNK, SAMPLE_RATE, STATES

MODEL = "silero-vad"
TOLERANCE = 1e-5
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of all streams.

    Attributes:
        probabilities: of speech, by stream and chunk.
        took_s: for all of them.
        latencies_s: of each chunk's answer, by stream.
    """

    probabilities: list[Probabilities]
    took_s: float
    latencies_s: list[list[float]]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    console = Console()
    if missing := [name for name in ("silero_vad", "torch", "onnx") if find_spec(name) is None]:
        console.print(f"[red]{', '.join(missing)}: not installed[/]; `make setup-tests` installs all that this needs")
        return 2
    url = asked.url or os.environ.get("HEADRACE_URL")
    sounds = streams(recordings(asked.audio, SAMPLE_RATE), asked.streams, asked.seconds, SAMPLE_RATE)
    with nullcontext(url) if url else running_mesh() as mesh:
        deploy(mesh)
        heard = asyncio.run(listen(mesh, sounds, live=asked.live))
    alone = listen_alone(sounds)
    console.print(table(heard, alone))
    audio_s = asked.streams * asked.seconds
    worst = max(float(np.abs(a - b).max()) for a, b in zip(heard.probabilities, alone.probabilities, strict=True))
    console.print(
        f"{asked.streams} streams of {asked.seconds:g} s through the mesh: {heard.took_s:.1f} s, "
        f"{audio_s / heard.took_s:.0f} times real time. The package itself, one stream after the other, in process: "
        f"{alone.took_s:.1f} s. Largest difference: {worst:g}."
    )
    half, most = np.percentile(np.concatenate(heard.latencies_s), (50, 99)) * 1000
    console.print(f"Answers came after {half:.1f} ms (median) and {most:.1f} ms (99 of 100).")
    return 0 if worst <= TOLERANCE else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headrace.demo.vad", description=__doc__)
    parser.add_argument("--url", help="A mesh that runs; HEADRACE_URL, or one of the demo's own, if not given.")
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="Of audio, for each stream.")
    parser.add_argument("--live", action="store_true", help="Send each chunk when a microphone would have it.")
    parser.add_argument("--audio", type=Path, nargs="+", default=[], metavar="FILE.wav", help="16-bit PCM.")
    return parser


def deploy(url: str) -> None:
    """With the states that make the model remember."""
    from headrace.demo.vad_model import write_model

    with tempfile.TemporaryDirectory() as folder, Client(url) as client:
        path = Path(folder, "silero_vad.onnx")
        write_model(path)
        client.deploy(path, name=MODEL, states=STATES, wait=True)


async def listen(url: str, sounds: Sequence[Samples], *, live: bool = False) -> Heard:
    """All streams at once; each sends a chunk when it has the answer to the one before.

    Args:
        live: and not before its last sample could have been spoken.
    """
    async with AsyncClient(url) as client:
        started = time.perf_counter()
        every_s = CHUNK / SAMPLE_RATE if live else 0.0
        heard = await asyncio.gather(*(_follow(client, f"stream-{n}", each, every_s) for n, each in enumerate(sounds)))
        probabilities, latencies_s = zip(*heard, strict=True)
        return Heard(list(probabilities), time.perf_counter() - started, list(latencies_s))


async def _follow(client: AsyncClient, name: str, sound: Samples, every_s: float) -> tuple[Probabilities, list[float]]:
    parts = chunks(sound)
    found: list[float] = []
    latencies_s: list[float] = []
    # Microphones are not in step with each other.
    begun = time.perf_counter() + every_s * (zlib.crc32(name.encode()) % 97 / 97)
    for index, chunk in enumerate(parts):
        if every_s:
            await asyncio.sleep(begun + every_s * (index + 1) - time.perf_counter())
        sent = time.perf_counter()
        answer = await client.infer(
            MODEL,
            {"audio": chunk},
            sequence_id=name,
            sequence_start=index == 0,
            sequence_end=index == len(parts) - 1,
        )
        latencies_s.append(time.perf_counter() - sent)
        found.append(answer["output"][0, 0])
    return np.array(found, np.float32), latencies_s


def listen_alone(sounds: Sequence[Samples]) -> Heard:
    """By the package's own class, one stream after the other."""
    import torch
    from silero_vad import load_silero_vad  # type: ignore[import-untyped]

    model = load_silero_vad(onnx=True)
    found = []
    started = time.perf_counter()
    for sound in sounds:
        model.reset_states()
        heard = [float(model(torch.from_numpy(chunk), SAMPLE_RATE)[0, 0]) for chunk in chunks(sound)]
        found.append(np.array(heard, np.float32))
    return Heard(found, time.perf_counter() - started, [])


def chunks(sound: Samples) -> list[Samples]:
    """Of [1, 512] each; what is left over at the end is not heard."""
    count = len(sound) // CHUNK
    return list(sound[: count * CHUNK].reshape(count, 1, CHUNK))


def table(heard: Heard, alone: Heard) -> Table:
    made = Table("stream", "chunks", "speech", "highest", "largest difference", box=None, pad_edge=False)
    for number, (ours, theirs) in enumerate(zip(heard.probabilities, alone.probabilities, strict=True)):
        share = f"{float((ours >= 0.5).mean()):.0%}"
        made.add_row(str(number), str(len(ours)), share, f"{ours.max():.3f}", f"{np.abs(ours - theirs).max():g}")
    return made


if __name__ == "__main__":
    sys.exit(main())
