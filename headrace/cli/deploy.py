"""`headrace deploy`: a model, or a new version of one, and the job that optimizes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from headrace.cli import deploy_flags, flags, variants
from headrace.cli.arguments import Json
from headrace.cli.deployed import check_source, is_blocked, print_deployed
from headrace.cli.printing import print_json
from headrace.cli.problems import UsageProblem, found_here
from headrace.cli.session import connect
from headrace_common.identity import tenant_name

if TYPE_CHECKING:
    from headrace.client.blocking import Client
    from headrace.client.messages import ModelOptions
    from headrace.v1 import models_pb2

_OF_JOBS = frozenset(
    {"source", "optimize", "samples", "labels", "floor", "latency", "precisions", "prune", "keep_original", "wait"}
    | {"as_json"}
)
"""Parameters of a deploy that has a deployed model optimised, and changes nothing else of it."""


def deploy(
    context: typer.Context,
    source: deploy_flags.Source,
    name: deploy_flags.Name = "",
    tenant: deploy_flags.Tenant = "default",
    min_instances: deploy_flags.MinInstances = None,
    max_instances: deploy_flags.MaxInstances = None,
    idle_timeout: deploy_flags.IdleTimeout = None,
    slo: deploy_flags.Slo = None,
    max_batch: deploy_flags.MaxBatch = None,
    cpu: deploy_flags.Cpu = None,
    max_cpu: deploy_flags.MaxCpu = None,
    memory: deploy_flags.Memory = None,
    gpu: deploy_flags.Gpu = None,
    gpu_memory: deploy_flags.GpuMemory = None,
    concurrency: deploy_flags.Concurrency = None,
    rps: deploy_flags.Rps = None,
    queue_length: deploy_flags.QueueLength = None,
    queue_bytes: deploy_flags.QueueBytes = None,
    instance_concurrency: deploy_flags.InstanceConcurrency = None,
    limit: deploy_flags.Limit = None,
    budget: deploy_flags.Budget = None,
    engine: deploy_flags.Engine = "",
    engine_option: deploy_flags.EngineOption = None,
    share_with: deploy_flags.ShareWith = None,
    response_cache: deploy_flags.ResponseCache = None,
    cache_ttl: deploy_flags.CacheTtl = None,
    cache_shared: deploy_flags.CacheShared = False,
    pad: deploy_flags.Pad = None,
    state: deploy_flags.State = None,
    sequence_idle: deploy_flags.SequenceIdle = None,
    spot: deploy_flags.Spot = False,
    spread: deploy_flags.Spread = 1,
    gpu_architecture: deploy_flags.GpuArchitecture = None,
    policy: deploy_flags.Policy = "",
    traffic: deploy_flags.Traffic = "",
    cost_sensitivity: deploy_flags.CostSensitivity = "",
    schedule: deploy_flags.Schedule = None,
    target: deploy_flags.Target = None,
    slo_credit: deploy_flags.SloCredit = None,
    optimize: deploy_flags.Optimize = False,
    samples: deploy_flags.Samples = None,
    labels: deploy_flags.Labels = "",
    floor: deploy_flags.Floor = None,
    latency: deploy_flags.Latency = None,
    precisions: deploy_flags.Precisions = "",
    prune: deploy_flags.Prune = "",
    keep_original: deploy_flags.KeepOriginal = False,
    wait: deploy_flags.Wait = False,
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
            print_deployed(model)
        if wanted is not None:
            _optimize(mesh, model.name, wanted, wait, as_json)
        elif as_json:
            _print_json_model(model)
    if wait and is_blocked(model):
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


def _spec(source: str, name: str, options: ModelOptions) -> models_pb2.ModelSpec:
    from headrace.client.messages import model_spec

    spec = model_spec(name, options)
    check_source(source, name)
    spec.source = source
    return spec


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
