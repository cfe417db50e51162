"""`headrace apply`: what a YAML file says of tenants and models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.deployed import check_source, is_blocked, print_deployed
from headrace.cli.problems import found_here
from headrace.cli.session import connect
from headrace.errors import HeadraceError
from headrace_common.identity import tenant_name

if TYPE_CHECKING:
    from headrace.v1 import mesh_pb2, models_pb2


def apply(
    file: Annotated[Path, typer.Option("-f", "--file", metavar="FILE.yaml", help="What to set.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", help="Return once a real load of every model has succeeded.")] = False,
) -> None:
    """Set tenants and deploy models as a YAML file says; every document is `model:` or `tenant:`."""
    from headrace.cli.manifest import read_manifests

    with found_here():
        documents = read_manifests(file)
        for document in documents:
            with _naming(document.where):
                _check_model(document.manifest.model)
    # Tenants first, whatever the order in the file: models belong to them.
    documents.sort(key=lambda document: document.manifest.WhichOneof("resource") == "model")
    blocked = False
    for document in documents:
        with _naming(document.where):
            blocked |= _apply_one(document.manifest, wait)
    if wait and blocked:
        raise typer.Exit(1)


def _check_model(model: models_pb2.ModelSpec) -> None:
    if model.tenant:
        tenant_name(model.tenant, "tenant")
    if model.source:
        check_source(model.source, model.name)


def _apply_one(manifest: mesh_pb2.Manifest, wait: bool) -> bool:
    """Whether it is a model that is blocked now."""
    if manifest.WhichOneof("resource") == "tenant":
        with connect() as mesh:
            print(f"set tenant {mesh.set_tenant(manifest.tenant).name}")
        return False
    with connect(manifest.model.tenant) as mesh:
        model = mesh.deploy_spec(manifest.model, wait=wait)
    print_deployed(model)
    return is_blocked(model)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Says of an error which document of a file it is about."""
    try:
        yield
    except HeadraceError as error:
        error.args = (f"{where}: {error.message}", *error.args[1:])
        raise
