"""`headrace compile`: TensorRT plans for the GPUs that will run a model, on a machine that need not have one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.printing import print_json, print_table

_MIB = 1 << 20


def compile_model(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="An .onnx or .pt2 file.")],
    target: Annotated[
        str, typer.Option(metavar="SM[,SM...]", help="Compute capabilities of GPUs: sm_75,sm_86. One plan for each.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where NAME.TARGET.plan and its manifest go.")],
    engine: Annotated[
        str, typer.Option(metavar="E", help="tensorrt-rtx, or tensorrt, which needs the GPU that it builds for.")
    ] = "tensorrt-rtx",
    name: Annotated[
        str, typer.Option(metavar="NAME", help="Of the plans. Default: the file's, without its ending.")
    ] = "",
    batch: Annotated[
        str,
        typer.Option(metavar="MIN[:OPT]:MAX", help="Rows that a batch may have. OPT, where it is fastest, is MAX."),
    ] = "1:64",
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="INPUT=MIN[:OPT]:MAX", help="Shapes of an input, 1x3x224x224:8x3x640x640; repeatable."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of plans built before. Default: ~/.cache/headrace/plans.")
    ] = None,
    cache_size: Annotated[
        str, typer.Option(metavar="BYTES", help="Of the cache, at most; plans used longest ago go first. Default: 4Gi.")
    ] = "",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Build, and keep nothing but what is asked for.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show all that TensorRT says.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compile a model to TensorRT plans. Needs no mesh, and with tensorrt-rtx no GPU."""
    arguments = [str(source), "--target", target, "--out", str(out), "--engine", engine, "--batch", batch]
    arguments += [text for each in shape or [] for text in ("--shape", each)]
    arguments += [
        text
        for flag, value in (("--name", name), ("--cache", cache), ("--cache-size", cache_size))
        if value
        for text in (flag, str(value))
    ]
    arguments += [flag for flag, given in (("--no-cache", no_cache), ("--verbose", verbose)) if given]
    # The compiler is the runner's code, which this package does not import; it says itself what is wrong.
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_runner.compile", *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.stdout:
        _show(json.loads(done.stdout), as_json)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _show(plans: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(plans)
        return
    columns = ("TARGET", "PLAN", "MIB", "PRECISION", "BUILT")
    print_table(columns, [_row(plan) for plan in plans], whole=("PLAN",))


def _row(plan: dict[str, Any]) -> list[str]:
    if "error" in plan:
        return [plan["target"], "", "", "", "refused, see above"]
    manifest = plan["manifest"]
    built = "from the cache" if plan["cached"] else f"in {manifest['build_s']:.2f} s"
    size = f"{manifest['plan']['bytes'] / _MIB:.2f}"
    return [plan["target"], plan["path"], size, manifest["precision"], built]
