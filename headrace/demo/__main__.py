"""`make demo`: brings up a mesh, deploys magika's model, identifies real files, and checks every label.

Exits 1 if one label differs from the magika package's own answer.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from headrace import Client
from headrace.demo.files import choose
from headrace.demo.magika_codec import Answer, MagikaCodec
from headrace.demo.mesh import running_mesh
from headrace.demo.rest import RestClient
from headrace.v1 import models_pb2

MODEL = "magika"
AT_MOST = 80
AT_LEAST_FILES, AT_LEAST_KINDS = 40, 12
IDLE_TIMEOUT = "1s"
IDLE_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One file: what the mesh said by either protocol, and what the package says."""

    path: Path
    grpc: Answer
    grpc_ms: float
    rest: Answer
    rest_ms: float
    expected: str

    @property
    def agrees(self) -> bool:
        return self.grpc.label == self.rest.label == self.expected


def main() -> int:
    console = Console()
    codec = MagikaCodec()
    started = time.perf_counter()
    with running_mesh() as url:
        console.print(f"[bold]1. The mesh[/] is up at {url} after {time.perf_counter() - started:.1f} s")
        with Client(url) as client, RestClient(url) as rest:
            deploy(console, client, codec)
            rows = identify(console, client, rest, codec)
            console.print(table(rows))
            show_cold_start(console, client, codec)
    return verdict(console, rows)


def deploy(console: Console, client: Client, codec: MagikaCodec) -> None:
    started = time.perf_counter()
    client.deploy(codec.model_path, name=MODEL, idle_timeout=IDLE_TIMEOUT, wait=True)
    [version] = client.model(MODEL).versions
    console.print(
        f"[bold]2. The model[/] from the magika package was uploaded, loaded and probed in "
        f"{time.perf_counter() - started:.1f} s; {version.batching}"
    )


def identify(console: Console, client: Client, rest: RestClient, codec: MagikaCodec) -> list[Row]:
    console.print("[bold]3. Real files[/] of this folder and of the Python installation, by gRPC and by REST")
    import magika  # after the mesh is up: it loads a session of its own

    package = magika.Magika()
    rows = []
    for path in track(choose(Path.cwd(), AT_MOST), "identifying", console=console, transient=True):
        content = path.read_bytes()
        features = codec.features(content)
        if features is None:
            continue
        t0 = time.perf_counter()
        by_grpc = client.infer(MODEL, {"bytes": features})["target_label"]
        t1 = time.perf_counter()
        by_rest = rest.infer(MODEL, "bytes", features)
        t2 = time.perf_counter()
        expected = str(package.identify_bytes(content).output.label)
        answers = codec.answer(by_grpc[0]), codec.answer(by_rest[0])
        rows.append(Row(path, answers[0], 1000 * (t1 - t0), answers[1], 1000 * (t2 - t1), expected))
    return rows


def table(rows: list[Row]) -> Table:
    made = Table("file", "label", "score", "gRPC ms", "REST ms", "magika says", box=None, pad_edge=False)
    for row in rows:
        mark = "[green]same[/]" if row.agrees else f"[red]{row.expected}[/]"
        score = f"{row.grpc.score:.3f}"
        made.add_row(row.path.name, row.grpc.label, score, f"{row.grpc_ms:.1f}", f"{row.rest_ms:.1f}", mark)
    return made


def show_cold_start(console: Console, client: Client, codec: MagikaCodec) -> None:
    console.print(f"[bold]4. To zero and back.[/] Idle for {IDLE_TIMEOUT}, the model goes to zero instances...")
    give_up = time.monotonic() + IDLE_WITHIN_S
    while client.model(MODEL).instances or not client.status().standby:
        if time.monotonic() > give_up:
            raise RuntimeError(f"the model did not go to zero within {IDLE_WITHIN_S} s")
        time.sleep(0.1)
    features = codec.features(b"import sys\nprint(sys.argv)\n" * 3)
    assert features is not None
    started = time.perf_counter()
    client.infer(MODEL, {"bytes": features})
    console.print(f"   ...and the next request was answered after {1000 * (time.perf_counter() - started):.0f} ms:")
    # The router reports the last phase with its next demand report.
    while not (recent := client.model(MODEL).cold_starts.recent) or not recent[-1].first_answer.ToNanoseconds():
        if time.monotonic() > give_up:
            raise RuntimeError("the cold start was not recorded")
        time.sleep(0.05)
    console.print(phases(recent[-1]))


def phases(cold_start: models_pb2.ColdStart) -> Table:
    made = Table("phase", "ms", box=None, pad_edge=False)
    for phase in ("decide", "place", "load", "warm", "first_answer", "total"):
        made.add_row(phase.replace("_", " "), f"{getattr(cold_start, phase).ToMicroseconds() / 1000:.1f}")
    return made


def verdict(console: Console, rows: list[Row]) -> int:
    kinds = {row.grpc.label for row in rows}
    wrong = [row for row in rows if not row.agrees]
    if wrong:
        console.print(f"[red]{len(wrong)} of {len(rows)} labels differ from the magika package's[/]")
        return 1
    if len(rows) < AT_LEAST_FILES or len(kinds) < AT_LEAST_KINDS:
        console.print(f"[red]only {len(rows)} files of {len(kinds)} kinds were found; that proves too little[/]")
        return 1
    console.print(f"[green]All {len(rows)} labels, of {len(kinds)} kinds, are those of the magika package.[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
