"""Commands about the mesh as a whole: up, status, logs, usage."""

from __future__ import annotations

import csv
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import flags
from headrace.cli.arguments import Json
from headrace.cli.printing import print_fields, print_heading, print_json, print_rows
from headrace.cli.problems import found_here
from headrace.cli.session import connect
from headrace.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from headrace.mesh.plan import MeshPlan
    from headrace_common.config import MeshConfig

_USAGE_COLUMNS = (
    "hour",
    "tenant",
    "model",
    "shape",
    "class",
    "instance_seconds",
    "busy_seconds",
    "requests",
    "cold_starts",
    "network_bytes",
    "storage_byte_seconds",
    "cache_byte_seconds",
    "instance_cost",
    "network_cost",
    "storage_cost",
    "cache_cost",
    "management_cost",
    "cost",
    "currency",
)
_BY_THE_HOUR = (
    "hour", "tenant", "model", "instance_seconds", "busy_seconds", "requests", "cold_starts", "cost", "currency",
)  # fmt: skip
_IN_ALL = (
    "tenant", "model", "shape", "class", "instance_seconds", "busy_seconds", "requests", "cold_starts", "instance_cost",
    "network_cost", "storage_cost", "cache_cost", "management_cost", "cost", "currency",
)  # fmt: skip


def up(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; loopback only. Port 0 is any free one.")
    ] = "127.0.0.1:8080",
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What survives a restart. Default: ~/.local/state/headrace."),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration, YAML.")] = None,
    standby: Annotated[
        int | None, typer.Option(min=0, max=1024, metavar="N", help="Runners kept started. Default: 1.")
    ] = None,
    routers: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="Router processes. Default: 1.")
    ] = None,
) -> None:
    """Run the mesh on this machine until Ctrl-C. Prints "ready URL" once it serves; logs go to standard error."""
    from headrace.mesh.supervisor import run_mesh

    with found_here():
        run_mesh(plan_from_flags(listen, state, config, standby, routers), _announce)


def plan_from_flags(
    listen: str, state: Path | None, config: Path | None, standby: int | None, routers: int | None
) -> MeshPlan:
    """What `up` runs. Flags go before the configuration file.

    Raises:
        InvalidArgument: the file cannot be read, or names file, key, value and bound.
    """
    from headrace.mesh.plan import MeshPlan
    from headrace.mesh.state_directory import default_state_dir
    from headrace_common.config import MeshConfig

    mesh = MeshConfig() if config is None else _read_config(config)
    if standby is not None:
        mesh = mesh.model_copy(update={"autoscaler": mesh.autoscaler.model_copy(update={"standby": standby})})
    if routers is not None:
        mesh = mesh.model_copy(update={"router": mesh.router.model_copy(update={"processes": routers})})
    return MeshPlan(
        listen=listen,
        state_dir=(state or default_state_dir()).absolute(),
        mesh=mesh,
        metrics_required="metrics_listen" in mesh.telemetry.model_fields_set,
    )


def _read_config(path: Path) -> MeshConfig:
    from headrace_common.config import load_mesh_config

    try:
        return load_mesh_config(path)
    except InvalidArgument as error:
        # YAML's name for what it does not read from a file itself.
        raise InvalidArgument(error.message.replace('"<unicode string>"', f'"{path}"')) from None


def status(as_json: Json = False) -> None:
    """Show what runs."""
    from headrace.cli.views import standing_line, status_view

    with connect() as mesh:
        view = status_view(mesh.status())
    if as_json:
        print_json(view)
        return
    target = view["standby_target"]
    wanted = f" (of {target['runners']}: {target['reason']})" if target["reason"] else ""
    standing = f"{len(view['standby'])}{wanted}"
    print_fields({"version": view["version"], "uptime": f"{view['uptime_s']:.0f} s", "standby": standing})
    print_fields({f"{name} enforced by": how for name, how in view["enforced"].items()})
    if view["budgets"]:
        print_heading("budgets")
        for each in view["budgets"]:
            whose = f"{each['tenant']}/{each['model']}" if each["model"] else each["tenant"]
            print(f"{whose}: {standing_line(each)}")
    print_heading("routers")
    print_rows(view["routers"], ("id", "queued", "in_flight", "requests", "refused"))
    print_heading("models")
    print_rows(view["models"], ("name", "tenant", "state", "instances", "queued", "in_flight", "requests"))


def logs(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only lines about this model.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option(min=1, metavar="N", help="This many of the newest lines.")] = 200,
) -> None:
    """Print the services' logs, JSON lines, oldest first."""
    with connect() as mesh:
        count = 0
        for count, line in enumerate(mesh.logs(name, follow=follow, tail=tail), start=1):  # noqa: B007
            print(line, flush=follow)
    if name and not count and not follow:
        raise NotFound(f"no log line names a model {name!r}; `headrace list` shows the models")


def usage(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only this tenant's.")] = "",
    since: Annotated[str, typer.Option(metavar="TIME", help="How far back, such as 90m or 24h.")] = "24h",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Show who used what by the hour and in all, and what it cost."""
    from headrace.cli.usage_views import usage_by_hour, usage_totals, usage_view

    with found_here():
        span = timedelta(seconds=flags.seconds(since, "--since") or 0)
    with connect() as mesh:
        rows = mesh.usage(tenant, datetime.now(UTC) - span)
    if as_json:
        print_json([usage_view(row) for row in rows])
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, _USAGE_COLUMNS)
        writer.writeheader()
        writer.writerows(usage_view(row) for row in rows)
    else:
        hours = [{**view, "hour": _to_the_minute(view["hour"])} for view in usage_by_hour(rows)]
        print_rows(hours, _BY_THE_HOUR, whole=("hour",))
        print_heading("in all")
        print_rows(usage_totals(rows), _IN_ALL)


def _to_the_minute(moment: str | None) -> str:
    """RFC 3339 in UTC, as "2026-11-21 23:00"."""
    return (moment or "")[:16].replace("T", " ")


def _announce(url: str) -> None:
    # Nobody may be reading any more; the mesh serves all the same.
    with suppress(OSError):
        print(f"ready {url}", flush=True)
