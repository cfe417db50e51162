"""Optimisations of deployed models: what a deploy asks for, how far one is, what came of it, which variant serves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import flags
from headrace.cli.printing import print_heading, print_json, print_table
from headrace.cli.problems import UsageProblem
from headrace.cli.session import connect
from headrace_common.quantities import format_bytes

if TYPE_CHECKING:
    from headrace.client.blocking import Client
    from headrace.client.messages import OptimizeOptions
    from headrace.v1 import models_pb2

    Tell = Callable[[models_pb2.OptimizeJob], None]

_POLL_S = 0.3
_PRECISIONS = ("fp32", "fp16", "int8", "int4")

_USE = "Serve this one from now on; original rolls back; auto: the mesh chooses, by what they measure where they serve."

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)]


def variants(
    name: Name,
    use: Annotated[str, typer.Option(metavar="VARIANT", help=_USE)] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="End its optimisation, if that waits or runs.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return once its optimisation has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what a model's optimisation found, and choose which variant serves."""
    if use and cancel:
        raise UsageProblem("--use and --cancel: expected one of them")
    with connect() as mesh:
        if use:
            mesh.use_variant(name, use)
        if cancel:
            mesh.cancel_optimization(name)
        listed = follow(mesh, name) if wait else mesh.variants(name)
    show(listed, as_json)
    if wait:
        end_badly_unless_chosen(listed)


@dataclass(frozen=True, slots=True)
class Asked:
    """An optimisation as a deploy asks for it."""

    samples: Path
    options: OptimizeOptions

    def start(self, mesh: Client, name: str) -> models_pb2.OptimizeJob:
        return mesh.optimize(name, self.samples, **self.options)


def asked(
    optimize: bool,
    samples: Path | None,
    labels: str,
    floor: str | None,
    latency: str | None,
    precisions: str,
    prune: str,
    keep_original: bool,
) -> Asked | None:
    """What the flags of a deploy come to; None without --optimize.

    Raises:
        UsageProblem: a flag needs another, or makes no sense.
        InvalidArgument: so does its value.
    """
    from headrace.client.artifact import samples_files

    given: dict[str, object] = {"samples": samples, "labels": labels, "floor": floor, "latency": latency}
    given |= {"precisions": precisions, "prune": prune, "keep-original": keep_original}
    if not optimize:
        lonely = [f"--{flag}" for flag, value in given.items() if value]
        if lonely:
            raise UsageProblem(f"{', '.join(lonely)}: expected --optimize as well")
        return None
    if samples is None:
        raise UsageProblem("--optimize: expected --samples FILE.npz as well, with a row per sample")
    samples_files(samples)
    wanted = tuple(each for each in precisions.split(",") if each)
    if unknown := [each for each in wanted if each not in _PRECISIONS]:
        raise UsageProblem(f"--precisions: expected some of {', '.join(_PRECISIONS)}; got {unknown[0]!r}")
    options: OptimizeOptions = {
        "labels": labels,
        "floor": None if floor is None else _share(floor, "--floor"),
        "latency": flags.duration(latency, "--latency"),
        "precisions": wanted,
        "prune": tuple(_share(each, "--prune") for each in prune.split(",") if each),
        "keep_original": keep_original,
    }
    return Asked(samples, options)


def follow(mesh: Client, name: str) -> models_pb2.ListVariantsResponse:
    """Waits until the job has ended. Standard error shows how far it is: a bar on a terminal, elsewhere a line for each
    state, stage and reason to wait."""
    from headrace.v1 import models_pb2

    with _bar() if sys.stderr.isatty() else _lines() as tell:
        while True:
            listed = mesh.variants(name)
            job = listed.job
            if job.state not in (models_pb2.JOB_STATE_QUEUED, models_pb2.JOB_STATE_RUNNING):
                return listed
            tell(job)
            time.sleep(_POLL_S)


def end_badly_unless_chosen(listed: models_pb2.ListVariantsResponse) -> None:
    """Exit code 1 where the job found nothing that fits, or has not come to an end of its own."""
    from headrace.v1 import models_pb2

    if listed.job.state != models_pb2.JOB_STATE_DONE or not listed.job.chosen:
        raise typer.Exit(1)


def show(listed: models_pb2.ListVariantsResponse, as_json: bool) -> None:
    from headrace.cli.views import variants_view

    view = variants_view(listed)
    if as_json:
        print_json(view)
        return
    found = [each for each in view["variants"] if each["verdict"] != "disqualified"]
    if found:
        quality = found[0]["quality"]
        columns = ("", "VARIANT", "SIZE", quality.upper(), "95% INTERVAL", "CPU/ROW", "P50", "VERDICT", "ENGINES")
        print_table(columns, [_cells(each) for each in found], whole=("VARIANT", "VERDICT"))
        print_heading(job_words(view["job"]))
        print(choice_words(listed.job.model, view["job"]), end="")
    else:
        print(job_words(view["job"]))
    for each in view["variants"]:
        if each["verdict"] == "disqualified":
            print(f"{each['name']}: {each['reason']}")


def job_words(job: dict[str, Any]) -> str:
    """ "running: timing, 3 of 18"."""
    words = f"optimization {job['state']}"
    if job["state"] == "running" and job["stage"]:
        words += f": {job['stage']}"
        if job["stage_total"]:
            words += f", {job['stage_done']} of {job['stage_total']}"
    elif job["reason"]:
        words += f": {' '.join(job['reason'].split())}"
    return words


def choice_words(name: str, job: dict[str, Any]) -> str:
    """Lines that say who chooses what serves, once the job is done; and why that was changed since."""
    if job["state"] != "done" or not job["chosen"]:
        return ""
    switched = f"{' '.join(job['switched'].split())}\n" if job["switched"] else ""
    if job["automatic"]:
        return f"{switched}the mesh goes on choosing, by what variants measure where they serve\n"
    return f"{switched}chosen by hand; `headrace variants {name} --use auto` has the mesh choose\n"


def _cells(variant: dict[str, Any]) -> list[str]:
    timings, share = variant["timings"], variant["share"]
    return [
        "serves" if variant["serves"] else "",
        variant["name"],
        format_bytes(variant["size_bytes"]),
        "" if share is None else f"{share:.4f}",
        "" if share is None else f"{variant['lower']:.4f}-{variant['upper']:.4f}",
        "" if variant["cpu_per_row_ms"] is None else f"{variant['cpu_per_row_ms']:.3g} ms",
        f"{timings[0]['latency_ms']:.3g} ms" if timings else "",
        "chosen" if variant["chosen"] else variant["verdict"],
        ", ".join(variant["engines"]),
    ]


@contextmanager
def _bar() -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("queued", total=None)

        def tell(job: models_pb2.OptimizeJob) -> None:
            words = job.stage or job.reason or "waits"
            bars.update(task, description=words, completed=job.stage_done, total=job.stage_total or None)

        yield tell


@contextmanager
def _lines() -> Iterator[Tell]:
    from headrace.cli.views import job_view

    last = ""

    def tell(job: models_pb2.OptimizeJob) -> None:
        nonlocal last
        line = job_words(job_view(job) | {"stage_total": 0})
        if line != last:
            print(line, file=sys.stderr, flush=True)
        last = line

    yield tell


def _share(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1.0:
        raise UsageProblem(f"{flag}: expected a share above 0 and below 1, such as 0.5; got {text!r}")
    return value
