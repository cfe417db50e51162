"""`headrace doctor`: what this machine can run, what it lacks, and the commands that help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.printing import print_fields, print_heading, print_json, print_table

_GIB = 1 << 30


def doctor(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A configuration of a mesh, which must be able to work here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at this machine: processors, GPUs, engines, and what is missing. Needs no mesh."""
    # What is looked at is the runner's, which this package does not import; it says itself what is wrong.
    arguments = ["--config", str(config)] if config else []
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_runner.doctor", *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.stdout:
        show = print_json if as_json else _show
        show(json.loads(done.stdout))
    if done.returncode:
        raise typer.Exit(done.returncode)


def _show(report: dict[str, Any]) -> None:
    machine, gpu = report["machine"], report["gpu"]
    groups = machine["control_groups"]
    print_fields(
        {
            "headrace": report["headrace"],
            "platform": f"{machine['platform']}, Python {machine['python']}",
            "processors": f"{machine['cpu_millicores'] / 1000:g}, {machine['cpu']}".removesuffix(", "),
            "memory": f"{machine['memory_bytes'] / _GIB:.1f} GiB",
            "control groups": groups["missing"] or f"{groups['group']} can be divided among runners",
            "driver": gpu["driver"],
            "GPUs": gpu["missing"] or ", ".join(_gpu(each) for each in gpu["gpus"]),
        }
    )
    print_heading("engines")
    print_table(("ENGINE", "VERSION", "STATE", "DETAIL"), _rows(report["engines"], "state", "detail"))
    print_heading("optional packages")
    print_table(("PACKAGE", "VERSION", "FOR"), _rows(report["packages"], "for"))
    adds: dict[str, list[str]] = {}
    for each in (*report["engines"], *report["packages"]):
        if each["install"]:
            adds.setdefault(each["install"], []).append(each["name"])
    if adds:
        print_heading("to add what is missing")
        print_table(("COMMAND", "ADDS"), [[command, ", ".join(names)] for command, names in adds.items()])
    for problem in report["problems"]:
        print(f"\nproblem: {problem['what']}\n   do: {problem['remedy']}")


def _rows(parts: list[dict[str, Any]], *keys: str) -> list[list[str]]:
    return [[part[key] for key in ("name", "version", *keys)] for part in parts]


def _gpu(gpu: dict[str, Any]) -> str:
    used = "" if gpu["used"] else "; not used: a mesh uses the first that CUDA_VISIBLE_DEVICES shows"
    return f"{gpu['name']} ({gpu['target']}, {gpu['memory_bytes'] / _GIB:.0f} GiB{used})"
