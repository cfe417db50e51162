"""Commands about models that are there: list, describe, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.arguments import Json, ModelName
from headrace.cli.model_text import print_model
from headrace.cli.printing import print_json, print_table
from headrace.cli.session import connect


def list_models(
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Only this tenant's.")] = "", as_json: Json = False
) -> None:
    """List the models."""
    from headrace.cli.views import model_view

    with connect() as mesh:
        views = [model_view(model) for model in mesh.models(tenant)]
    if as_json:
        print_json(views)
        return
    rows = [
        (
            view["name"],
            view["tenant"],
            view["state"],
            ",".join(version["version"] for version in view["versions"]),
            len(view["instances"]),
            view["min_instances"],
            view["max_instances"],
            view["reason"],
        )
        for view in views
    ]
    print_table(("NAME", "TENANT", "STATE", "VERSIONS", "INSTANCES", "MIN", "MAX", "REASON"), rows)


def describe(name: ModelName, as_json: Json = False) -> None:
    """Show everything about a model: versions, instances, cold starts, decisions."""
    from headrace.cli.views import model_view

    with connect() as mesh:
        view = model_view(mesh.model(name))
    if as_json:
        print_json(view)
    else:
        print_model(view)


def delete(name: ModelName) -> None:
    """Drain, stop and forget a model."""
    with connect() as mesh:
        mesh.delete(name)
    print(f"deleted {name}")
