"""Commands about tenants."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from headrace.cli import flags
from headrace.cli.arguments import Json
from headrace.cli.commands import Command, Group
from headrace.cli.printing import print_fields, print_json, print_table
from headrace.cli.problems import found_here
from headrace.cli.session import connect
from headrace.errors import InvalidArgument

app = typer.Typer(cls=Group, help="Tenants and what they may use.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.", show_default=False)]


@app.command("set", cls=Command)
def set_tenant(
    name: Name,
    cpu: Annotated[str | None, typer.Option(metavar="CPUS", help="CPUs: 2, 0.5 or 500m.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="BYTES", help="Memory: 4Gi, 500M.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="GPUS", help="GPUs: 1, 0.5 or 500m.")] = None,
    gpu_memory: Annotated[str | None, typer.Option(metavar="BYTES", help="GPU memory.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=0, max=flags.MOST, metavar="N", help="Requests not yet answered.")
    ] = None,
    rps: Annotated[float | None, typer.Option(min=0, metavar="X", help="Requests per second.")] = None,
    queue_length: Annotated[
        int | None,
        typer.Option(min=0, max=flags.MOST, metavar="N", help="Requests that wait, each for a moment at least."),
    ] = None,
    queue_bytes: Annotated[str | None, typer.Option(metavar="BYTES", help="Bytes of requests that wait.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="AMOUNT/TIME", help="Money, such as 1.50/h or 200/month; repeatable.")
    ] = None,
    cohort: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Tenants of one cohort lend to each other. '': it leaves its own."),
    ] = None,
    borrow: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Most that it may borrow.")] = None,
    lend: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Most that it lends.")] = None,
    weight: Annotated[float | None, typer.Option(metavar="X", help="Share of what is contended. Default: 1.")] = None,
    at_budget: Annotated[
        str, typer.Option(metavar="ACTION", help="When a budget is spent: refuse requests (default), or queue them.")
    ] = "",
    lift: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Take away all that is set: limits, budget, borrow or lend; repeatable."),
    ] = None,
) -> None:
    """Create a tenant, or replace what is set of it: its limits, its budgets, what it may borrow and what it lends.

    Each of the four is replaced as a whole where anything of it is given, and kept where nothing is.
    """
    from headrace.v1 import resources_pb2, tenants_pb2

    with found_here():
        nominal = flags.quantities(
            "--",
            cpu=cpu,
            memory=memory,
            gpu=gpu,
            gpu_memory=gpu_memory,
            concurrency=concurrency,
            requests_per_second=rps,
            queue_length=queue_length,
            queue_bytes=queue_bytes,
        )
        parts: dict[str, Any] = {
            "nominal": resources_pb2.Quantities(**nominal) if nominal else None,
            "borrowing_limit": _quantities(borrow, "--borrow"),
            "lending_limit": _quantities(lend, "--lend"),
            "budget": resources_pb2.Budget(**flags.budget(budget)) if budget else None,
            "weight": weight,
            "budget_action": flags.budget_action(at_budget),
        }
        given = {key: value for key, value in parts.items() if value is not None} | _lifted(lift or [], parts)
    with connect() as mesh:
        mesh.set_tenant(tenants_pb2.TenantSpec(name=name, cohort=cohort, **given))
    print(f"set tenant {name}")


@app.command("list", cls=Command)
def list_tenants(as_json: Json = False) -> None:
    """List the tenants."""
    from headrace.cli.views import tenant_view

    with connect() as mesh:
        views = [tenant_view(tenant) for tenant in mesh.tenants()]
    if as_json:
        print_json(views)
        return
    rows = [(view["name"], view["spec"].get("cohort"), len(view["models"]), _nominal(view)) for view in views]
    print_table(("NAME", "COHORT", "MODELS", "NOMINAL"), rows)


@app.command("describe", cls=Command)
def describe_tenant(name: Name, as_json: Json = False) -> None:
    """Show a tenant's quotas and models."""
    from headrace.cli.views import standing_line, tenant_view

    with connect() as mesh:
        view = tenant_view(mesh.tenant(name))
    if as_json:
        print_json(view)
        return
    spec = view["spec"]
    print_fields(
        {
            "name": view["name"],
            "models": ", ".join(view["models"]),
            "nominal": _pairs(spec.get("nominal")) or "no limit",
            "borrowing limit": _pairs(spec.get("borrowing_limit")),
            "lending limit": _pairs(spec.get("lending_limit")),
            "budget": _pairs(spec.get("budget")),
            "at budget": spec.get("budget_action", "").removeprefix("BUDGET_ACTION_").lower()
            if view["budgets"]
            else "",
            **{_budget_title(each): standing_line(each) for each in view["budgets"]},
            "cohort": spec.get("cohort"),
            "weight": spec.get("weight"),
            "created": view["created_at"],
        }
    )


@app.command("delete", cls=Command)
def delete_tenant(name: Name) -> None:
    """Forget a tenant that owns no model."""
    with connect() as mesh:
        mesh.delete_tenant(name)
    print(f"deleted tenant {name}")


def _lifted(kinds: list[str], parts: dict[str, Any]) -> dict[str, Any]:
    """What stands for nothing of a kind."""
    from headrace.v1 import resources_pb2

    fields = {"limits": "nominal", "budget": "budget", "borrow": "borrowing_limit", "lend": "lending_limit"}
    for kind in kinds:
        if kind not in fields:
            raise InvalidArgument(f"--lift: expected {', '.join(fields)}; got {kind!r}")
        if parts[fields[kind]] is not None:
            raise InvalidArgument(f"--lift: {kind} is lifted and given as well; expected one of the two")
    none_of = {"budget": resources_pb2.Budget()}
    return {fields[kind]: none_of.get(kind, resources_pb2.Quantities()) for kind in kinds}


def _quantities(pairs: list[str] | None, flag: str) -> Any:
    from headrace.v1 import resources_pb2

    return resources_pb2.Quantities(**flags.quantity_pairs(pairs, flag)) if pairs else None


def _budget_title(standing: dict[str, Any]) -> str:
    """One for each: fields have no two of a name."""
    model = f" of {standing['model']}" if standing["model"] else ""
    return f"this {standing['period']}{model}"


def _nominal(view: dict[str, Any]) -> str:
    return _pairs(view["spec"].get("nominal"))


def _pairs(message: dict[str, Any] | None) -> str:
    return " ".join(f"{key}={value}" for key, value in (message or {}).items())
