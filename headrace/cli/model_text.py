"""A model as `describe` prints it for people."""

from __future__ import annotations

from typing import Any

from headrace.cli.printing import print_fields, print_heading, print_rows, print_table
from headrace.cli.variants import job_words
from headrace_common.quantities import format_bytes, format_millis


def print_model(view: dict[str, Any]) -> None:
    """The view is `views.model_view`'s."""
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
            "variant": view["variant"],
            "optimization": job_words(view["job"]).removeprefix("optimization ") if view["job"] else None,
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
