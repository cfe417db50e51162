"""Entry point: commands, and the one place where errors become lines and exit codes.

Exit codes: 0 done; 1 the mesh said no, or cannot be reached; 2 wrong usage or set-up; 130 Ctrl-C.
Whatever is slow to import (grpc, numpy, rich, and Typer itself) is imported by the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from headrace.cli.problems import UsageProblem
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    import typer

_COMMANDS = {
    "up": "mesh:up",
    "deploy": "deploy:deploy",
    "list": "models:list_models",
    "status": "mesh:status",
    "describe": "models:describe",
    "variants": "variants:variants",
    "explain": "explain:explain",
    "delete": "models:delete",
    "logs": "mesh:logs",
    "infer": "inference:infer",
    "usage": "mesh:usage",
    "apply": "apply:apply",
    "simulate": "simulate:simulate",
    "plan": "plan:plan",
    "compile": "compiling:compile_model",
    "doctor": "doctor:doctor",
    "optimize": "optimize:optimize",
}
"""Where each is, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; None: the process's own.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough: quietly 1, as Typer has it where a command is still printing.
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the outermost frame; no traceback ever reaches a user
        _drop_output()
        return _report(error)
    return code if isinstance(code, int) else 0


def _run(arguments: list[str]) -> Any:
    if arguments[:1] == ["compile"]:
        from headrace.cli.plain_compiling import compile_and_show, plain

        if (found := plain(arguments[1:])) is not None:
            return compile_and_show(*found)
    asked, rest, program = _asked(arguments)
    return asked(args=rest, prog_name=program, standalone_mode=False)


def _drop_output() -> None:
    """What cannot be written, and stays in the buffer: the interpreter would flush it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _asked(arguments: list[str]) -> tuple[typer.Typer, list[str], str]:
    """The command that is named, by itself: importing and preparing all of them takes longer than most take to run."""
    if arguments[:1] == ["--version"]:
        return _no_command(), arguments, "headrace"
    if not arguments or arguments[0] not in _COMMANDS:
        return _everything(), arguments, "headrace"
    import typer

    from headrace.cli.commands import Command

    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(arguments[0], cls=Command)(_command(arguments[0]))
    return alone, arguments[1:], f"headrace {arguments[0]}"


def _no_command() -> typer.Typer:
    import typer

    from headrace.cli.commands import Group, options

    app = typer.Typer(
        name="headrace",
        cls=Group,
        help="Serve machine-learning models for many tenants. HEADRACE_URL names the mesh (default "
        "http://127.0.0.1:8080).",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    return app


def _everything() -> typer.Typer:
    from headrace.cli.commands import Command

    app = _no_command()
    for name in _COMMANDS:
        app.command(name, cls=Command)(_command(name))
    app.add_typer(import_module("headrace.cli.tenants").app, name="tenant")
    return app


def _command(name: str) -> Callable[..., Any]:
    module, _, function = _COMMANDS[name].partition(":")
    found: Callable[..., Any] = getattr(import_module(f"headrace.cli.{module}"), function)
    return found


def _report(error: Exception) -> int:
    if isinstance(error, UsageProblem):
        return _say(str(error), 2)
    if isinstance(error, HeadraceError):
        return _say(_with_retry_time(error), 1)
    if isinstance(error, OSError):  # Such as a disk without room for what we print.
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", 2)
    # Typer's own usage errors: their classes moved between its versions, their shape did not.
    code, text = getattr(error, "exit_code", None), getattr(error, "format_message", None)
    if code is not None and text is not None:
        message = str(text()).strip().rstrip(".")
        return _say(f"{message}; see `headrace --help`", code) if message else code
    return _say(f"unexpected {type(error).__name__}: {error}; please report this as a bug", 1)


def _with_retry_time(error: HeadraceError) -> str:
    retry_after_s = getattr(error, "retry_after_s", None)
    # The router's refusals say it themselves.
    if retry_after_s is None or "retry in" in error.message:
        return error.message
    return f"{error.message} (try again in {_after(retry_after_s)})"


def _after(seconds: float) -> str:
    """Roughly; in the largest unit of which there are two."""
    for unit_s, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.3g} s"


def _say(message: str, code: int) -> int:
    print(f"headrace: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
