"""Commands about models: deploy, list, describe, delete, apply."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli import flags, variants
from headrace.cli.model_text import print_model
from headrace.cli.printing import print_json, print_table
from headrace.cli.problems import UsageProblem, found_here
from headrace.cli.session import connect
from headrace.errors import HeadraceError
from headrace_common.identity import tenant_name

if TYPE_CHECKING:
    from headrace.client.blocking import Client
    from headrace.client.messages import ModelOptions
    from headrace.v1 import mesh_pb2, models_pb2

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


_OF_JOBS = frozenset(
    {"source", "optimize", "samples", "labels", "floor", "latency", "precisions", "prune", "keep_original", "wait"}
    | {"as_json"}
)
"""Parameters of a deploy that has a deployed model optimised, and changes nothing else of it."""


def deploy(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An .onnx, .pt2 or .plan file, a directory of one model's plans or in Triton's repository layout, "
            "which is uploaded; or an s3://, gs:// or https:// URL, which the mesh fetches if it is configured to. "
            "With --optimize and without --name: a model that is deployed already, by its name.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name to serve it under.")] = "",
    tenant: Annotated[str, typer.Option(metavar="NAME", help="Who owns it and pays for it.")] = "default",
    min_instances: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Instances always kept. Default: 0.")
    ] = None,
    max_instances: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Default: what the quota allows.")
    ] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Idle this long, it goes to zero. Default: learnt.")
    ] = None,
    slo: Annotated[
        str | None, typer.Option(metavar="TIME", help="Latency to scale for, such as 100ms; drops nothing.")
    ] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, metavar="N", help="Rows per batch at most.")] = None,
    cpu: Annotated[
        str | None, typer.Option(metavar="CPUS", help="CPUs of one instance: 2, 0.5 or 500m. Default: 1.")
    ] = None,
    max_cpu: Annotated[
        str | None,
        typer.Option(metavar="CPUS", help="With it, an instance has --cpu to --max-cpu, as measurements say."),
    ] = None,
    memory: Annotated[str | None, typer.Option(metavar="BYTES", help="Memory of one instance. Default: 1Gi.")] = None,
    gpu: Annotated[str | None, typer.Option(metavar="GPUS", help="GPUs of one instance: 1, 0.5 or 500m.")] = None,
    gpu_memory: Annotated[str | None, typer.Option(metavar="BYTES", help="GPU memory of one instance.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Limit: requests not yet answered.")
    ] = None,
    rps: Annotated[float | None, typer.Option(min=0, metavar="X", help="Limit: requests per second.")] = None,
    queue_length: Annotated[int | None, typer.Option(min=0, metavar="N", help="Limit: requests that wait.")] = None,
    queue_bytes: Annotated[
        str | None, typer.Option(metavar="BYTES", help="Limit: bytes of requests that wait.")
    ] = None,
    instance_concurrency: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Requests at one instance at once; others wait.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Limit of all its instances and requests together, by the names of `tenant set`, such as cpu=2, "
            "memory=4Gi or rps=500; repeatable.",
        ),
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="AMOUNT/TIME", help="Limit: money, such as 1.50/h or 200/month.")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="ENGINE", help="Engine; by the file's kind if not given.")] = "",
    engine_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the engine, such as intra_op_threads=2; repeatable."),
    ] = None,
    share_with: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another tenant that may call it; * is all; repeatable. Replaces what was shared before.",
        ),
    ] = None,
    response_cache: Annotated[bool | None, typer.Option(help="Answer repeated requests from a cache.")] = None,
    cache_ttl: Annotated[
        str | None, typer.Option(metavar="TIME", help="The cache keeps an answer this long, such as 60s.")
    ] = None,
    cache_shared: Annotated[
        bool, typer.Option("--cache-shared", help="One cache for all tenants; otherwise one for each.")
    ] = False,
    pad: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INPUT=VALUE",
            help="Fill this input's free dimensions up with the value, so that unlike shapes share a batch; "
            "repeatable. For models whose answers it does not change.",
        ),
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTPUT=INPUT",
            help="Stateful: what this output gives, the next request of its sequence gets by the input; repeatable.",
        ),
    ] = None,
    sequence_idle: Annotated[
        str | None, typer.Option(metavar="TIME", help="A sequence without a request for so long is over. Default: 60s.")
    ] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Its instances may be on spot nodes.")] = False,
    spread: Annotated[
        int,
        typer.Option(
            min=1, max=64, metavar="N", help="Spread its instances over N failure domains, where there are several."
        ),
    ] = 1,
    gpu_architecture: Annotated[
        list[str] | None,
        typer.Option(metavar="SM", help="A GPU that its engine was built for, such as sm_86; repeatable."),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(metavar="NAME", help="Who decides how many: headrace, conservative, kpa, ... Default: headrace."),
    ] = "",
    traffic: Annotated[
        str, typer.Option(metavar="KIND", help="spiky, steady or variable; chooses a policy where none is named.")
    ] = "",
    cost_sensitivity: Annotated[
        str, typer.Option(metavar="HOW", help="high, normal or low; adjusts the policy, or chooses one.")
    ] = "",
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CRON=N",
            help='At least N instances from then on, such as "0 8 * * 1-5 Europe/Paris=4"; repeatable.',
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=VALUE",
            help="Instances that keep concurrency, queue-wait, latency, rate, cpu or gpu-memory there; repeatable.",
        ),
    ] = None,
    slo_credit: Annotated[
        str | None, typer.Option(metavar="MONEY", help="Worth of a request inside --slo; instances may not cost more.")
    ] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Let a job find a cheaper variant, and serve that once it is found.")
    ] = False,
    samples: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="For --optimize: arrays by the names of the inputs, a row per sample."),
    ] = None,
    labels: Annotated[
        str, typer.Option(metavar="KEY", help="For --optimize: array of the samples with right answers.")
    ] = "",
    floor: Annotated[
        str | None, typer.Option(metavar="SHARE", help="For --optimize: least share of right answers. Default: 0.99.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="For --optimize: most that a batch may take.")
    ] = None,
    precisions: Annotated[
        str, typer.Option(metavar="P[,P...]", help="For --optimize: of fp32, fp16, int8, int4. Default: all.")
    ] = "",
    prune: Annotated[
        str, typer.Option(metavar="SHARE[,SHARE...]", help="For --optimize: of each layer's weights, to become zero.")
    ] = "",
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="For --optimize: list what was found, and serve the original on.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return once a real load has succeeded, and the job of --optimize has ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Deploy a model, or a new version of one."""
    with found_here():
        wanted = variants.asked(optimize, samples, labels, floor, latency, precisions, prune, keep_original)
        deployed = not name and wanted is not None
        if not name and not deployed:
            raise UsageProblem("Missing option '--name'; see `headrace --help`")
        if deployed:
            _check_is_deployed(context, source)
        options: ModelOptions = {
            "tenant": tenant,
            "min_instances": min_instances,
            "max_instances": max_instances,
            "idle_timeout": flags.duration(idle_timeout, "--idle-timeout"),
            "slo": flags.duration(slo, "--slo"),
            "max_batch_size": max_batch,
            "resources": flags.quantities("--", cpu=cpu, memory=memory, gpu=gpu, gpu_memory=gpu_memory),
            "limits": flags.limits(
                limit or (),
                concurrency=concurrency,
                requests_per_second=rps,
                queue_length=queue_length,
                queue_bytes=queue_bytes,
            ),
            "budget": flags.budget(budget or ()),
            "engine": engine,
            "engine_options": flags.engine_options(engine_option or ()),
            "shared_with": share_with or (),
            "response_cache": response_cache,
            "cache_ttl": flags.duration(cache_ttl, "--cache-ttl"),
            "cache_shared": cache_shared,
            "instance_concurrency": instance_concurrency,
            "padding": flags.padding(pad or ()),
            "states": flags.states(state or ()),
            "sequence_idle": flags.duration(sequence_idle, "--sequence-idle"),
            "tolerates_spot": spot,
            "spread": spread if spread > 1 else 0,
            "gpu_architectures": gpu_architecture or (),
            "policy": policy,
            "traffic": traffic,
            "cost_sensitivity": cost_sensitivity,
            "schedules": schedule or (),
            "targets": flags.targets(target or ()),
            "slo_credit": flags.money(slo_credit, "--slo-credit"),
            "max_cpu": flags.cpus(max_cpu, "--max-cpu"),
        }
        tenant_name(tenant, "--tenant")
        spec = None if deployed else _spec(source, name, options)
    # Who changes a model that is there need not say whose it is.
    with connect("" if spec is None else tenant) as mesh:
        model = mesh.model(source) if spec is None else mesh.deploy_spec(spec, wait=wait or wanted is not None)
        if spec is not None and not as_json:
            _announce(model)
        if wanted is not None:
            _optimize(mesh, model.name, wanted, wait, as_json)
        elif as_json:
            _print_json_model(model)
    if wait and _is_blocked(model):
        raise typer.Exit(1)


def _check_is_deployed(context: typer.Context, source: str) -> None:
    """A model's name alone: what else is said would be of no effect."""
    if "/" in source:
        raise UsageProblem(f"{source}: expected the name of a deployed model, or --name NAME for the new one")
    sources = {each: context.get_parameter_source(str(each.name)) for each in context.command.params}
    given = [
        each.opts[0]
        for each, found in sources.items()
        if each.name not in _OF_JOBS and found is not None and found.name == "COMMANDLINE"
    ]
    if given:
        raise UsageProblem(
            f"{', '.join(given)}: a model that is deployed is optimized as it is; expected --name and its files as well"
        )


def _optimize(mesh: Client, name: str, wanted: variants.Asked, wait: bool, as_json: bool) -> None:
    wanted.start(mesh, name)
    if not wait and not as_json:
        print(f"optimizing {name}: see `headrace variants {name}`")
        return
    listed = variants.follow(mesh, name) if wait else mesh.variants(name)
    variants.show(listed, as_json)
    if wait:
        variants.end_badly_unless_chosen(listed)


def _print_json_model(model: models_pb2.Model) -> None:
    from headrace.cli.views import model_view

    print_json(model_view(model))


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


def describe(name: Name, as_json: Json = False) -> None:
    """Show everything about a model: versions, instances, cold starts, decisions."""
    from headrace.cli.views import model_view

    with connect() as mesh:
        view = model_view(mesh.model(name))
    if as_json:
        print_json(view)
    else:
        print_model(view)


def delete(name: Name) -> None:
    """Drain, stop and forget a model."""
    with connect() as mesh:
        mesh.delete(name)
    print(f"deleted {name}")


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


def _apply_one(manifest: mesh_pb2.Manifest, wait: bool) -> bool:
    """Whether it is a model that is blocked now."""
    if manifest.WhichOneof("resource") == "tenant":
        with connect() as mesh:
            print(f"set tenant {mesh.set_tenant(manifest.tenant).name}")
        return False
    with connect(manifest.model.tenant) as mesh:
        model = mesh.deploy_spec(manifest.model, wait=wait)
    _announce(model)
    return _is_blocked(model)


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Says of an error which document of a file it is about."""
    try:
        yield
    except HeadraceError as error:
        error.args = (f"{where}: {error.message}", *error.args[1:])
        raise


def _check_model(model: models_pb2.ModelSpec) -> None:
    if model.tenant:
        tenant_name(model.tenant, "tenant")
    if model.source:
        _check_source(model.source, model.name)


def _spec(source: str, name: str, options: ModelOptions) -> models_pb2.ModelSpec:
    from headrace.client.messages import model_spec

    spec = model_spec(name, options)
    _check_source(source, name)
    spec.source = source
    return spec


def _check_source(source: str, name: str) -> None:
    """Finds out before anything is sent whether there is something to send."""
    from headrace.client.artifact import artifact_files, is_url

    if not is_url(source):
        artifact_files(Path(source), name)


def _announce(model: models_pb2.Model) -> None:
    from headrace.cli.views import state_word

    version = "".join(f" version {version.version}" for version in model.versions[-1:])
    reason = f": {' '.join(model.reason.split())}" if model.reason else ""
    print(f"deployed {model.name}{version} for tenant {model.tenant}: {state_word(model.state)}{reason}")


def _is_blocked(model: models_pb2.Model) -> bool:
    from headrace.v1 import models_pb2

    return model.state == models_pb2.MODEL_STATE_BLOCKED
