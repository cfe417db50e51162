"""`python -m headrace_runner.optimizer`: optimises, and prints JSON. `headrace optimize` is the same for people."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from headrace_common.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace_common.quantities import parse_bytes, parse_seconds
from headrace_runner.optimizer.core.choice import Demand
from headrace_runner.optimizer.core.comparing import Comparison
from headrace_runner.optimizer.core.recipes import ORIGINAL, PRECISIONS, Recipe, plan

_LIBRARIES = ("onnx", "onnxslim", "onnx_ir")
# It is a file's name too. "+" stands between a variant's name and what is made of it.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 where a variant was chosen, 1 where none fits, 2 where something given is wrong."""
    options = _parser().parse_args(arguments)
    try:
        _check_libraries()
        found = _optimize(options)
    except HeadraceError as error:
        sys.stderr.write(f"headrace: {error.message}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"headrace: {error.filename or tempfile.gettempdir()}: {error.strerror or error}\n")
        return 2
    except MemoryError:
        sys.stderr.write(
            "headrace: this takes more memory than there is; bring fewer samples, or compare fewer outputs (--output)\n"
        )
        return 2
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0 if found["chosen"] else 1


def _optimize(options: argparse.Namespace) -> dict[str, object]:
    recipes, demand = _recipes(options), _demand(options)
    # These import the libraries, which are an extra.
    from headrace_runner.optimizer import folder
    from headrace_runner.optimizer.run import Question, open_optimization

    if options.out:
        folder.check_folder(options.out)
    question = Question(
        source=options.source,
        samples=options.samples,
        demand=demand,
        recipes=recipes,
        variants=_variants(options.variant, recipes),
        labels=options.labels,
        output=options.output,
        comparison=Comparison(options.compare),
        tolerance=options.tolerance,
        sizes=tuple(sorted(set(options.batches))),
        threads=options.threads,
        budget_s=parse_seconds(options.time, "--time"),
        max_samples_bytes=parse_bytes(options.max_samples, "--max-samples"),
    )
    optimization = open_optimization(question)
    with tempfile.TemporaryDirectory(prefix="headrace-optimize-") as built, _shown(options) as stage:
        result = optimization.run(Path(built), stage)
        return (folder.keep(result, Path(built), options.out) if options.out else result).plain()


def _recipes(options: argparse.Namespace) -> tuple[Recipe, ...]:
    wanted = [each for each in options.precisions.split(",") if each]
    for each in wanted:
        if each not in PRECISIONS:
            raise InvalidArgument(f"--precisions: expected some of {', '.join(PRECISIONS)}; got {each!r}")
    pruned = [_share(text, "--prune") for text in options.prune.split(",") if text]
    recipes = plan(wanted, pruned)
    if not recipes and not options.variant:
        raise InvalidArgument("--precisions: expected one at least, or a --variant")
    return recipes


def _variants(given: Sequence[str], recipes: Sequence[Recipe]) -> tuple[tuple[str, Path], ...]:
    taken = {ORIGINAL: "the model as it came"} | {each.name: "a variant that is made here" for each in recipes}
    variants = []
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or not path or not _NAME.fullmatch(name):
            raise InvalidArgument(
                f"--variant: expected NAME=FILE with a name of letters, digits, '.', '_' and '-'; got {text!r}"
            )
        if name in taken:
            raise InvalidArgument(f"--variant {name}: is {taken[name]}; give it another name")
        taken[name] = "there already"
        variants.append((name, Path(path)))
    return tuple(variants)


def _demand(options: argparse.Namespace) -> Demand:
    latency_s = parse_seconds(options.latency, "--latency") if options.latency else None
    return Demand(_share(options.floor, "--floor"), latency_s, "agreement" if options.labels is None else "accuracy")


def _share(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 < value < 1.0:
        hint = "; no number of samples shows 1" if flag == "--floor" and value == 1.0 else ""
        raise InvalidArgument(f"{flag}: expected a share above 0 and below 1, such as 0.5; got {text!r}{hint}")
    return value


def _check_libraries() -> None:
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise FailedPrecondition(
            f"optimize needs {', '.join(missing)}, which is not installed here; pip install 'headrace[optimize]'"
        )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], contextlib.AbstractContextManager[Callable[[int, int], None]]]]:
    """Bars on standard error where that is a terminal. They are drawn only when something is done: a thread that
    redraws them would be timed with the models.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bars = Progress(console=console, auto_refresh=False, disable=not console.is_terminal)

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[Callable[[int, int], None]]:
        task = bars.add_task(name, total=None)
        bars.refresh()

        def tell(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)
            bars.refresh()

        yield tell

    with bars:
        yield stage


@contextlib.contextmanager
def _lines() -> Iterator[Callable[[str], contextlib.AbstractContextManager[Callable[[int, int], None]]]]:
    """Progress for programs: a line of JSON on standard error for each step."""

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[Callable[[int, int], None]]:
        def tell(done: int, total: int) -> None:
            sys.stderr.write(json.dumps({"stage": name, "done": done, "total": total}) + "\n")
            sys.stderr.flush()

        tell(0, 0)
        yield tell

    yield stage


def _shown(
    options: argparse.Namespace,
) -> contextlib.AbstractContextManager[Callable[[str], contextlib.AbstractContextManager[Callable[[int, int], None]]]]:
    return _lines() if options.progress_lines else _progress()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as `headrace` has it."""
        self.exit(2, f"headrace: optimize: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="headrace_runner.optimizer", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE")
    parser.add_argument("--samples", type=Path, required=True, metavar="FILE.npz")
    quality = parser.add_mutually_exclusive_group()
    quality.add_argument("--labels", metavar="KEY")
    quality.add_argument("--agreement", action="store_true")
    parser.add_argument("--floor", default="0.99", metavar="SHARE")
    parser.add_argument("--latency", default="", metavar="TIME")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), metavar="P[,P...]")
    parser.add_argument("--prune", default="", metavar="SHARE[,SHARE...]")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--output", default="", metavar="NAME")
    parser.add_argument("--compare", default="auto", choices=[each.value for each in Comparison])
    parser.add_argument("--tolerance", type=_positive, default=0.01, metavar="SHARE")
    parser.add_argument("--batches", type=_sizes, default=(1, 8, 32), metavar="N[,N...]")
    parser.add_argument("--threads", type=_whole, default=1, metavar="N")
    parser.add_argument("--time", default="20s", metavar="TIME")
    parser.add_argument("--max-samples", default="1Gi", metavar="BYTES")
    parser.add_argument("--progress-lines", action="store_true")
    parser.add_argument("--out", type=Path, metavar="DIR")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected more than 0; got {text}")
    return value


def _whole(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"expected 1 to 256; got {text}")
    return value


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_whole(each) for each in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
