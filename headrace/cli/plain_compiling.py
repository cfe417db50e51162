"""`headrace compile` without Typer, which takes longer to import than finding four plans in the cache does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from headrace.cli.printing import print_json, print_table

_MIB = 1 << 20
_VALUES = {"--target", "--out", "--engine", "--name", "--batch", "--shape", "--cache", "--cache-size"}
_FLAGS = {"--no-cache", "--verbose"}


def plain(arguments: Sequence[str]) -> tuple[list[str], bool] | None:
    """What the compiler is given, and whether JSON is wanted, of a command line that can be read in one way only.

    Returns:
        None: it asks for help, is wrong, or is written in another way than FLAG VALUE; Typer sees to it.
    """
    given: list[str] = []
    named: set[str] = set()
    sources, as_json, rest = 0, False, iter(arguments)
    for each in rest:
        if each in _VALUES:
            value = next(rest, "")
            if not value or value.startswith("-"):
                return None
            given += [each, value]
            named.add(each)
        elif each in _FLAGS:
            given.append(each)
        elif each == "--json":
            as_json = True
        elif not each or each.startswith("-"):
            return None
        else:
            given.append(each)
            sources += 1
    return (given, as_json) if sources == 1 and {"--target", "--out"} <= named else None


def compile_and_show(arguments: Sequence[str], as_json: bool) -> int:
    """Runs the compiler, which is the runner's code and not imported here; it says itself what is wrong.

    Returns:
        The exit code.
    """
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_runner.compile", *arguments], stdout=subprocess.PIPE, check=False
    )
    if done.stdout:
        _show(json.loads(done.stdout), as_json)
    return done.returncode


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
