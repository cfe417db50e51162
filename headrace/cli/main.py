"""Entry point: commands, and the one place where errors become lines and exit codes.

Exit codes: 0 done; 1 the mesh said no, or cannot be reached; 2 wrong usage or set-up; 130 Ctrl-C.
Whatever is slow to import (grpc, numpy, rich) is imported by the command that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from headrace.cli import compiling, doctor, explain, inference, mesh, models, optimize, simulate, tenants, variants
from headrace.cli import plan as planning
from headrace.cli.commands import Command, Group
from headrace.cli.problems import UsageProblem
from headrace.errors import HeadraceError

app = typer.Typer(
    name="headrace",
    cls=Group,
    help="Serve machine-learning models for many tenants. HEADRACE_URL names the mesh (default http://127.0.0.1:8080).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up", cls=Command)(mesh.up)
app.command("deploy", cls=Command)(models.deploy)
app.command("list", cls=Command)(models.list_models)
app.command("status", cls=Command)(mesh.status)
app.command("describe", cls=Command)(models.describe)
app.command("variants", cls=Command)(variants.variants)
app.command("explain", cls=Command)(explain.explain)
app.command("delete", cls=Command)(models.delete)
app.command("logs", cls=Command)(mesh.logs)
app.command("infer", cls=Command)(inference.infer)
app.add_typer(tenants.app, name="tenant")
app.command("usage", cls=Command)(mesh.usage)
app.command("apply", cls=Command)(models.apply)
app.command("simulate", cls=Command)(simulate.simulate)
app.command("plan", cls=Command)(planning.plan)
app.command("compile", cls=Command)(compiling.compile_model)
app.command("doctor", cls=Command)(doctor.doctor)
app.command("optimize", cls=Command)(optimize.optimize)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: without the program's name; None: the process's own.

    Returns:
        The exit code.
    """
    asked, rest, program = _asked(list(sys.argv[1:] if arguments is None else arguments))
    try:
        code = asked(args=rest, prog_name=program, standalone_mode=False)
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


def _drop_output() -> None:
    """What cannot be written, and stays in the buffer: the interpreter would flush it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _asked(arguments: list[str]) -> tuple[typer.Typer, list[str], str]:
    """The command that is named, by itself: preparing all of them takes longer than most take to run."""
    named = [each for each in app.registered_commands if each.name == (arguments or [""])[0]]
    if not named:
        return app, arguments, "headrace"
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.registered_commands = named
    return alone, arguments[1:], f"headrace {arguments[0]}"


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
    return f"{error.message} (try again in {retry_after_s:.3g} s)"


def _say(message: str, code: int) -> int:
    print(f"headrace: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
