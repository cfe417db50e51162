"""`headrace plan`: what a model costs on every shape, how to pay for it, and what would save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli import flags, plan_variants
from headrace.cli.problems import UsageProblem, found_here
from headrace.cli.session import connect
from headrace.errors import FailedPrecondition
from headrace_common.quantities import format_millis

if TYPE_CHECKING:
    from headrace.v1 import models_pb2

_ENOUGH_REQUESTS = 100


def plan(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A model of the mesh, with what was measured of it.")
    ] = "",
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of a model: its measurements, JSON. See docs/cost-advisor.md."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0, metavar="RPS", help="Requests per second to serve. Default: the busiest minute's."),
    ] = None,
    mean_rate: Annotated[
        float | None, typer.Option(min=0, metavar="RPS", help="On average. Default: what came since the first one.")
    ] = None,
    slo: Annotated[str | None, typer.Option(metavar="TIME", help="Latency objective. Default: the model's.")] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A deployed model that is a cheaper variant of it; repeatable."),
    ] = None,
    variants: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="What `headrace optimize --out DIR` has measured; with neither NAME nor --profile, all."
        ),
    ] = None,
    hit_rate: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Of a response cache. Default: as observed.")
    ] = None,
    spot: Annotated[bool | None, typer.Option("--spot", help="Consider spot nodes.")] = None,
    catalog: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your shapes and prices, over those that come with headrace.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Shapes to show.")] = 8,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw cost by rate: .svg, .html, or .png (needs matplotlib).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Advise on cost: which shape, how many, serverless or reserved, and what batching, caching or a variant saves."""
    if name and profile is not None:
        raise UsageProblem("plan: expected the NAME of a model or --profile FILE, one of the two")
    if not name and profile is None and variants is None:
        raise UsageProblem("plan: expected the NAME of a model, --profile FILE, or --variants DIR alone")
    if variant and not name:
        raise UsageProblem("plan: --variant names a model of the mesh that is a variant of NAME, which is missing")
    with found_here():
        flags.duration(slo, "--slo")
    question = _read(profile) if profile else _of_mesh(name, variant or [], variants is None) if name else {}
    served, known = question.get("rate") if rate is None else rate, question.get("mean_rate")
    if (name or rate is not None) and isinstance(served, int | float) and isinstance(known, int | float):
        # What was measured on average is no more than what is to be served.
        question["mean_rate"] = min(served, known)
    given = {"rate": rate, "mean_rate": mean_rate, "slo": slo, "hit_rate": hit_rate, "tolerates_spot": spot}
    question |= {key: value for key, value in given.items() if value is not None}
    what = str(profile) if profile else f"model {name!r}" if name else f"--variants {variants}"
    arguments = [f"--what={what}", f"--top={top}"]
    files = (("--catalog", catalog), ("--plot", plot), ("--variants", variants))
    arguments += [f"{flag}={path}" for flag, path in files if path]
    # The advisor is the autoscaler's code, which this package does not import; it says itself what is wrong.
    done = subprocess.run(  # noqa: S603 - the program is ours
        [sys.executable, "-m", "headrace_autoscaler.advisor", *arguments, *(["--json"] if as_json else [])],
        input=json.dumps(question),
        text=True,
        stdout=subprocess.PIPE,
        check=False,
    )
    sys.stdout.write(done.stdout)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _read(path: Path) -> dict[str, Any]:
    try:
        question = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageProblem(f"--profile {path}: cannot be read: {error}") from None
    if not isinstance(question, dict):
        raise UsageProblem(f"--profile {path}: expected an object with ways and rate; got {type(question).__name__}")
    return question


def _of_mesh(name: str, variants: list[str], optimised: bool) -> dict[str, Any]:
    """Args:
    optimised: with the variants that a job of the mesh has measured, where there was one.
    """
    with connect() as mesh:
        model = mesh.model(name)
        cheaper = [mesh.model(each) for each in variants]
        listed = mesh.variants(name) if optimised and model.HasField("job") else None
    traffic, spec = model.traffic, model.spec
    question: dict[str, Any] = {
        "model": name,
        "ways": [_way(model), *_larger_ways(model)],
        "variants": [_way(each) | {"engine": _serving(each).engine} for each in cheaper],
        "min_instances": spec.min_instances,
        "engine": _serving(model).engine,
        "gpu_architectures": list(spec.gpu_architectures),
        "tolerates_spot": spec.tolerates_spot,
        "caches": spec.response_cache,
    }
    if spec.HasField("idle_timeout"):
        question["keep_warm"] = f"{spec.idle_timeout.ToNanoseconds() / 1e9:.6f}s"
    found = {} if listed is None else plan_variants.measured(listed, spec.resources.memory)
    question["variants"] += found.pop("variants", [])
    question |= found
    if spec.HasField("slo"):
        question["slo"] = f"{spec.slo.ToNanoseconds() / 1e9:.6f}s"
    if traffic.requests:
        question |= {"rate": traffic.busiest_rate, "mean_rate": traffic.mean_rate}
        if spec.response_cache:
            question["hit_rate"] = min(1.0, traffic.cache_hits / traffic.requests)
    return question


def _way(model: models_pb2.Model) -> dict[str, Any]:
    version = _serving(model)
    held = model.spec.resources
    if not version.profile_us:
        raise FailedPrecondition(f"model '{model.name}' has no measured profile yet: it is measured when it is loaded")
    latency_us = dict(version.profile_us)
    traffic = model.traffic
    if (
        not model.spec.HasField("max_cpu")
        and traffic.requests - traffic.cache_hits >= _ENOUGH_REQUESTS
        and traffic.mean_batch
    ):
        # Many executions say more than the one that a load times, on a machine that may have been busy.
        latency_us[max(1, round(traffic.mean_batch))] = max(1, traffic.mean_execution.ToMicroseconds())
    way: dict[str, Any] = {
        "name": model.name,
        "latency_us": {str(rows): latency_us[rows] for rows in sorted(latency_us)},
    }
    fields = ("cpu", "memory", "gpu", "gpu_memory")
    return way | {field: getattr(held, field) for field in fields if held.HasField(field)}


def _larger_ways(model: models_pb2.Model) -> list[dict[str, Any]]:
    """Shapes other than the smallest that instances have now, as their loads measured them."""
    serving, least = _serving(model), _way(model)
    found: dict[str, dict[str, Any]] = {}
    for instance in model.instances:
        cpu = format_millis(instance.shape.cpu_millicores)
        if instance.revision == serving.revision and instance.profile_us and cpu != least.get("cpu", "1"):
            latency_us = {str(rows): instance.profile_us[rows] for rows in sorted(instance.profile_us)}
            found[cpu] = {**least, "name": f"{model.name} with {cpu} CPUs", "cpu": cpu, "latency_us": latency_us}
    return list(found.values())


def _serving(model: models_pb2.Model) -> models_pb2.ModelVersion:
    from headrace.v1 import models_pb2

    serving = [each for each in model.versions if each.state == models_pb2.VERSION_STATE_SERVING]
    if not serving:
        raise FailedPrecondition(f"model '{model.name}' serves no version: `headrace describe {model.name}` shows why")
    return serving[-1]
