"""`python -m headrace_runner.compile SOURCE --target SM,... --out DIR`: prints what was made, as JSON.

Exit status: 0 a plan for every target; 1 TensorRT refuses the model, or a target of it; 2 something given is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_common.gpu_facts import target_name
from headrace_common.quantities import parse_bytes
from headrace_runner.cache_directory import MOST_BYTES, cache_root
from headrace_runner.compile.compiler import Compiled, Compiler
from headrace_runner.compile.errors import ParseFailed
from headrace_runner.compile.plan_files import PlanCache, manifest_path
from headrace_runner.compile.source import read_source
from headrace_runner.core.gpu_targets import parse_targets
from headrace_runner.core.shape_ranges import DEFAULT_BATCH, make_profile, parse_batch, parse_shape
from headrace_runner.engines import trt_library

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LOGGED = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        done = list(_compile(options))
    except (InvalidArgument, FailedPrecondition) as error:
        _say(f"headrace: {error.message}")
        return 2
    except ParseFailed as error:
        _say(f"headrace: TensorRT cannot parse {options.source}:\n{_indented(str(error))}")
        return 1
    except OSError as error:
        _say(f"headrace: {error.filename}: {error.strerror}")
        return 2
    except KeyboardInterrupt:
        return 130
    print(json.dumps([_plain(each) for each in done], indent=2))  # noqa: T201 - a program for people
    return 1 if any(each.error for each in done) else 0


def _compile(options: argparse.Namespace) -> Sequence[Compiled]:
    targets = parse_targets(options.target)
    batch, shapes = parse_batch(options.batch), dict(parse_shape(text) for text in options.shape)
    build = trt_library.require(options.engine)
    name = options.name or options.source.stem
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"--name: expected letters, digits, '.', '_' and '-'; got {name!r}")
    source = read_source(options.source)
    profile = make_profile(source.graph.inputs, batch, shapes)
    most_bytes = parse_bytes(options.cache_size, "--cache-size")
    cache = None if options.no_cache else PlanCache(options.cache or cache_root() / "plans", most_bytes)
    done = []
    compiler = Compiler(build, source, name, cache, _log if options.verbose else _drop)
    for each in compiler.compile(targets, profile, options.out):
        _say(_line(each))
        done.append(each)
    return done


def _line(done: Compiled) -> str:
    name = target_name(done.target)
    if done.manifest is None:
        return f"{name}: TensorRT refuses:\n{_indented(done.error)}"
    return f"{name}: from the cache" if done.cached else f"{name}: built in {done.manifest.build_s:.2f} s"


def _indented(text: str) -> str:
    return "  " + text.replace("\n", "\n  ")


def _plain(done: Compiled) -> dict[str, Any]:
    plain: dict[str, Any] = {"target": target_name(done.target)}
    if done.manifest is None or done.path is None:
        return plain | {"error": done.error}
    files = {"path": str(done.path), "manifest_path": str(manifest_path(done.path))}
    return plain | {"cached": done.cached, **files, "manifest": done.manifest.plain()}


def _log(severity: str, text: str) -> None:
    if severity in _LOGGED:
        _say(f"[{severity}] {text}")


def _drop(_severity: str, _text: str) -> None:
    """Errors are kept by who builds, and the rest is chatter."""


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - as above


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m headrace_runner.compile", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--target", required=True, metavar="SM[,SM...]")
    parser.add_argument("--engine", choices=trt_library.ENGINES, default=trt_library.TENSORRT_RTX)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--name", default="", metavar="NAME")
    parser.add_argument("--batch", default=DEFAULT_BATCH, metavar="MIN[:OPT]:MAX")
    parser.add_argument("--shape", action="append", default=[], metavar="INPUT=MIN[:OPT]:MAX")
    parser.add_argument("--cache", type=Path, metavar="DIR")
    parser.add_argument("--cache-size", default=str(MOST_BYTES), metavar="BYTES")
    parser.add_argument("--no-cache", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
