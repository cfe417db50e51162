"""`headrace compile`: TensorRT plans for the GPUs that will run a model, on a machine that need not have one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.plain_compiling import compile_and_show


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
    if code := compile_and_show(arguments, as_json):
        raise typer.Exit(code)
