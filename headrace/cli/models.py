"""Commands about models: deploy, list, describe, delete, apply."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import flags
from headrace.cli.printing import print_fields, print_heading, print_json, print_rows, print_table
from headrace.cli.problems import found_here
from headrace.cli.session import connect
from headrace.errors import HeadraceError
from headrace_common.identity import tenant_name
from headrace_common.quantities import format_bytes, format_millis

if TYPE_CHECKING:
    from headrace.client.messages import ModelOptions
    from headrace.v1 import mesh_pb2, models_pb2

Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def deploy(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An .onnx file or a directory in Triton's repository layout, which is uploaded; or an s3://, gs:// or "
            "https:// URL, which the mesh fetches if it is configured to.",
            show_default=False,
        ),
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name to serve it under.", show_default=False)],
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
    wait: Annotated[bool, typer.Option("--wait", help="Return once a real load has succeeded.")] = False,
) -> None:
    """Deploy a model, or a new version of one."""
    with found_here():
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
        spec = _spec(source, name, options)
    with connect(tenant) as mesh:
        model = mesh.deploy_spec(spec, wait=wait)
    _announce(model)
    if wait and _is_blocked(model):
        raise typer.Exit(1)


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
        _print_model(view)


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


def _print_model(view: dict[str, Any]) -> None:
    failure = view["last_failure"]
    print_fields(
        {
            "name": view["name"],
            "tenant": view["tenant"],
            "state": view["state"],
            "reason": view["reason"],
            "instances": f"{len(view['instances'])} (min {view['min_instances']}, max "
            f"{'by quota' if view['max_instances'] is None else view['max_instances']})",
            "batching": view["batching"],
            "response cache": _cache_words(view["spec"]),
            "instance concurrency": view["instance_concurrency"],
            "policy": _policy_words(view["spec"]),
            "cold starts": _cold_start_words(view["cold_starts"]),
            "last failure": f"{failure['at']}: {failure['reason']}" if failure else None,
        }
    )
    _print_rows("versions", view["versions"], ("version", "revision", "state", "engine", "max_batch_size"))
    for version in view["versions"]:
        for kind in ("inputs", "outputs"):
            _print_rows(f"{kind} of version {version['version']}", version[kind], ("name", "datatype", "shape"))
    _print_rows("instances", view["instances"], ("id", "state", "version", "pid", "requests", "started_at"))
    _print_enforced(view["instances"])
    phases = ("decide_ms", "place_ms", "load_ms", "warm_ms", "first_answer_ms", "total_ms")
    _print_rows("recent cold starts", view["cold_starts"]["recent"], ("at", "from_standby", *phases))
    _print_rows("decisions", view["decisions"], ("at", "current", "desired", "reason"))


def _print_enforced(instances: list[dict[str, Any]]) -> None:
    """Per instance what it may use and what holds it to that: "cpu: 1 (cgroup)"."""
    rows = [
        (
            instance["id"],
            f"{format_millis(instance['shape']['cpu_millicores'])} ({instance['enforced']['cpu']})",
            f"{format_bytes(instance['shape']['memory_bytes'])} ({instance['enforced']['memory']})",
            format_bytes(instance["private_bytes"]),
        )
        for instance in instances
        if instance["enforced"]["cpu"]
    ]
    if rows:
        print_heading("enforced")
        print_table(("ID", "CPU", "MEMORY", "MEMORY HELD"), rows)


def _cold_start_words(starts: dict[str, Any]) -> str:
    """ "7 (p95 41.5 ms)"."""
    return f"{starts['count']}" + (f" (p95 {starts['p95_ms']:g} ms)" if starts["p95_ms"] is not None else "")


def _cache_words(spec: dict[str, Any]) -> str | None:
    """ "kept for 60s, shared by all tenants"; None without a cache."""
    if not spec.get("response_cache"):
        return None
    kept = f"kept for {spec['cache_ttl']}" if "cache_ttl" in spec else "kept as long as the mesh is configured to"
    return f"{kept}, {'shared by all tenants' if spec.get('cache_shared') else 'each tenant its own'}"


def _policy_words(spec: dict[str, Any]) -> str | None:
    """ "aggressive, for spiky traffic; at least 4 from 0 8 * * 1-5; target cpu 0.7"."""
    words = [spec.get("policy") or "headrace"]
    if spec.get("traffic"):
        words[0] += f", for {spec['traffic']} traffic"
    if spec.get("cost_sensitivity"):
        words.append(f"cost sensitivity {spec['cost_sensitivity']}")
    for schedule in spec.get("schedules", ()):
        when, _, count = schedule.rpartition("=")
        words.append(f"at least {count} from {when}")
    words += [f"target {metric} {value:g}" for metric, value in sorted(spec.get("targets", {}).items())]
    if spec.get("slo_credit"):
        words.append(f"a request is worth {spec['slo_credit']}")
    return "; ".join(words)


def _print_rows(heading: str, rows: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    if rows:
        print_heading(heading)
        print_rows(rows, keys)
