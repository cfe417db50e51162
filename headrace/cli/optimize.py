"""`headrace optimize`: variants of a model that cost less, measured, and the cheapest one that is good enough."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.printing import print_heading, print_json, print_table

_NOTHING_FITS = 1


def optimize(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="An .onnx or .pt2 file, or a Triton model directory.")
    ],
    samples: Annotated[
        Path, typer.Option(metavar="FILE.npz", help="Arrays by the names of the model's inputs, a row per sample.")
    ],
    labels: Annotated[
        str | None, typer.Option(metavar="KEY", help="Array of the samples with right answers: measures accuracy.")
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Compare with the model's own answers. This is the default.")
    ] = False,
    floor: Annotated[str, typer.Option(metavar="SHARE", help="Least share of right answers to keep.")] = "0.99",
    latency: Annotated[str | None, typer.Option(metavar="TIME", help="Most that a batch may take.")] = None,
    precisions: Annotated[
        str, typer.Option(metavar="P[,P...]", help="Of fp32, fp16, int8, int4.")
    ] = "fp32,fp16,int8,int4",
    prune: Annotated[
        str | None, typer.Option(metavar="SHARE[,SHARE...]", help="Of each layer's weights, to become zero.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A variant made elsewhere, for the same callers. Repeat for more."),
    ] = None,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Compare this output only.")] = None,
    compare: Annotated[
        str, typer.Option(metavar="HOW", help="Floats: argmax, close, or auto: argmax where a row is a vector.")
    ] = "auto",
    tolerance: Annotated[
        float, typer.Option(metavar="SHARE", help="How far apart floats may be, of the output's range.")
    ] = 0.01,
    batches: Annotated[str, typer.Option(metavar="N[,N...]", help="Rows per batch, to time.")] = "1,8,32",
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of the engine.")] = 1,
    time: Annotated[str, typer.Option(metavar="TIME", help="About how long to time the variants.")] = "20s",
    max_samples: Annotated[
        str, typer.Option(metavar="BYTES", help="Of the samples, unpacked, at most; 0: any number.")
    ] = "1Gi",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep variants, manifest.json, report.md and a plot here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a model cheaper and measure what that costs. Needs no mesh. Exit code 1: nothing is good enough."""
    given = {name: value for name, value in locals().items() if name not in ("source", "agreement", "as_json")}
    lists = {name: value if isinstance(value, list) else [value] for name, value in given.items() if value is not None}
    # Joined by "=", so that no value is taken for a flag.
    arguments = [f"--{name.replace('_', '-')}={each}" for name, values in lists.items() for each in values]
    found, code = _optimized([*arguments, *(["--agreement"] if agreement else []), "--", str(source)])
    if as_json:
        print_json(found)
    else:
        _show(found, out)
    if code:
        raise typer.Exit(code)


def _optimized(arguments: list[str]) -> tuple[dict[str, Any], int]:
    """The optimiser is the runner's code, which this package does not import; it says itself what is wrong."""
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_runner.optimizer", *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.returncode not in (0, _NOTHING_FITS) or not done.stdout:
        raise typer.Exit(done.returncode or 1)
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.returncode


def _show(found: dict[str, Any], out: Path | None) -> None:
    variants = [each for each in found["variants"] if each["verdict"] != "disqualified"]
    sizes = [each["rows"] for each in variants[0]["timings"]] if variants else []
    columns = ["", "VARIANT", "SIZE", found["quality"].upper(), "95% INTERVAL", "CPU/ROW"]
    columns += [f"P50 AT {rows}" for rows in sizes] + [f"ROWS/S AT {rows}" for rows in sizes] + ["VERDICT"]
    print_table(columns, [_cells(each, found, variants[0]) for each in variants], whole=("VARIANT", "VERDICT"))
    samples = found["samples"]
    print_heading(found["reason"])
    print(f"{samples['calibrating']} samples calibrated, {samples['measuring']} others measured")
    for note in found["notes"]:
        print(note)
    for each in found["variants"]:
        if each["verdict"] == "disqualified":
            print(f"{each['name']}: {each['reason']}")
    if out is not None:
        print(f"see {out / 'report.md'}")


def _cells(variant: dict[str, Any], found: dict[str, Any], base: dict[str, Any]) -> list[str]:
    quality, timings, cpu_s = variant["quality"], variant["timings"], variant["cpu_s_per_row"]
    return [
        "*" if variant["name"] == found["chosen"] else "+" if variant["on_front"] else "",
        variant["name"],
        f"{variant['size_bytes'] / base['size_bytes']:.2f}",
        f"{quality['share']:.4f}",
        f"{quality['lower']:.4f}-{quality['upper']:.4f}",
        "" if cpu_s is None else f"{cpu_s * 1e3:.3g} ms",
        *(f"{each['latency_s'] * 1e3:.3g} ms" for each in timings),
        *(f"{each['rows_per_s']:,.0f}" for each in timings),
        variant["verdict"],
    ]
