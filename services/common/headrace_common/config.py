"""Configuration: read once, at the top, into frozen objects.

`headrace up --config FILE` reads a YAML file with these sections and keys; what is absent has the
default below. docs/configuration.md documents every key, and a test holds it to these defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headrace_common.errors import InvalidArgument

MIB = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RouterConfig(_Section):
    """What a router process obeys. Sizes in bytes, times in seconds."""

    processes: int = Field(1, ge=1, le=64, description="Router processes on one port; about one core each.")
    max_request_bytes: int = Field(64 * MIB, ge=1024, description="Largest request, inflated.")
    max_queue_length: int = Field(10_000, ge=1, description="Requests that may wait per model and router.")
    max_queue_bytes: int = Field(512 * MIB, ge=MIB, description="Bytes that may wait per model and router.")
    max_bundle_bytes: int = Field(16 * MIB, ge=1024, description="A bundle is cut before it grows past this.")
    shared_memory_bytes: int = Field(
        64 * MIB,
        ge=0,
        le=4096 * MIB,
        description="Per runner and way, for large tensors; taken as needed. 0: all by the stream.",
    )
    shared_memory_dir: str = Field(
        "/dev/shm",  # noqa: S108 - names in it are random, and gone once the runner has the file
        description="A file system in memory that routers and runners both see.",
    )
    max_attempts: int = Field(
        3,
        ge=1,
        le=10,
        description="Sendings of a request before it is called a poison pill.",
    )
    start_timeout_s: float = Field(30.0, gt=0, description="A request waits this long for a first instance.")
    demand_period_s: float = Field(0.25, gt=0, le=10, description="Between demand reports.")
    sweep_period_s: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Between looks for expired and abandoned requests.",
    )
    drain_timeout_s: float = Field(30.0, ge=0, description="Requests in hand get this long at a stop.")
    native_ingress: bool = Field(
        True, description="Take unary gRPC inference by the short way inside Envoy; false: by ASGI, as all the rest."
    )
    trace_sample_ratio: float = Field(0.0, ge=0, le=1, description="Share of traces begun here; callers' flags count.")
    cache_url: str = Field(
        "",
        pattern=r"^$|^(redis|rediss|unix)://.",
        description="Redis that holds cached answers: redis://, rediss:// or unix://; empty: this process's memory.",
    )
    cache_bytes: int = Field(64 * MIB, ge=1024, description="Memory for cached answers, if no Redis holds them.")
    cache_entry_bytes: int = Field(MIB, ge=1, description="A larger answer is not cached.")
    cache_ttl_s: float = Field(60.0, gt=0, le=31_536_000, description="For a model that names no cache_ttl.")
    cache_timeout_s: float = Field(0.02, gt=0, le=60, description="A request waits this long for Redis at most.")
    cache_prefix: str = Field("headrace", min_length=1, description="In front of keys in Redis; one per mesh.")
    max_sequences: int = Field(10_000, ge=1, description="A tenant's open sequences per model and router.")
    max_sequence_bytes: int = Field(64 * MIB, ge=1024, description="State of a tenant's open sequences, per router.")
    max_all_sequence_bytes: int = Field(512 * MIB, ge=1024, description="The same of all tenants together.")


class AutoscalerConfig(_Section):
    """What the autoscaler obeys."""

    standby: int = Field(1, ge=0, le=1024, description="Runners kept started, without a model: at least so many.")
    standby_max: int = Field(
        4, ge=0, le=1024, description="At most so many, where more were wanted at once; `standby` if that is more."
    )
    standby_budget_per_hour: str = Field(
        "",
        pattern=r"^$|^\d+(\.\d{1,6})?$",
        description="Money per hour that runners beyond `standby` may bring the pool to; empty: no bound.",
    )
    decision_period_s: float = Field(0.25, gt=0, le=60, description="Between decisions when nothing is urgent.")
    window_s: float = Field(10.0, gt=0, le=3600, description="Demand is averaged over this.")
    cpu_overcommit: float = Field(
        4.0,
        gt=0,
        le=1000,
        description="CPUs that may be promised per CPU of the machine.",
    )
    memory_share: float = Field(
        0.9,
        gt=0,
        le=10,
        description="Share of the machine's memory that may be promised.",
    )
    load_timeout_s: float = Field(120.0, gt=0, description="A load that takes longer has failed.")
    drain_timeout_s: float = Field(30.0, ge=0, description="An instance that stops gets this long to answer.")
    artifact_ttl_s: float = Field(
        3600.0,
        gt=0,
        description="An uploaded artifact without a model lives this long.",
    )
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in the state directory.")
    source_schemes: tuple[Literal["s3", "gs", "https"], ...] = Field(
        (),
        description="URL schemes that a deploy may name for the autoscaler to fetch.",
    )
    max_artifact_bytes: int = Field(16 * 1024 * MIB, ge=MIB, description="Largest artifact.")
    price_per_cpu_hour: str = Field("0.0425", description="Money per CPU and hour of the local machine.")
    currency: str = Field("USD", description="Currency of every price.")
    cgroup: str = Field(
        "",
        pattern=r"^(|off|/.+)$",
        description="Control group (v2) that is divided among runners; empty: the autoscaler's own; off: none.",
    )
    optimize_jobs: int = Field(
        1, ge=0, le=64, description="Optimisations of models that may run at once; 0: none does."
    )
    optimize_timeout_s: float = Field(3600.0, gt=0, description="An optimisation that takes longer has failed.")
    optimize_patience_s: float = Field(
        86400.0, gt=0, description="An optimisation that gives way to serving for longer has failed."
    )
    max_samples_bytes: int = Field(
        1024 * MIB, ge=MIB, description="Largest samples of an optimisation, as a file and unpacked."
    )
    catalog: str = Field("", description="TOML file of your shapes and rates; empty: those that come with headrace.")


class RunnerConfig(_Section):
    """What a runner obeys."""

    slots: int = Field(2, ge=1, le=64, description="Bundles a router may have at one runner.")
    max_batch_size: int = Field(64, ge=1, le=65536, description="For a batchable model that names no maximum.")
    allow_fake_engine: bool = Field(False, description="Serve models of the fake engine (tests, benchmarks).")
    preload_torch: bool = Field(
        False, description="Runners in waiting have imported torch: 200 MiB each, for faster cold starts."
    )


class TelemetryConfig(_Section):
    """Where metrics, traces and logs go."""

    metrics_listen: str = Field("127.0.0.1:9464", description="Loopback address of /metrics.")
    otlp_endpoint: str = Field("", description="OTLP/gRPC endpoint for metrics and traces; empty: none.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe log line.")


class MeshConfig(_Section):
    """The whole mesh."""

    router: RouterConfig = RouterConfig()
    autoscaler: AutoscalerConfig = AutoscalerConfig()
    runner: RunnerConfig = RunnerConfig()
    telemetry: TelemetryConfig = TelemetryConfig()


class ProcessContext(_Section):
    """What the supervisor tells each process, besides the configuration.

    Attributes:
        process: name in logs and metrics: "router-0", "autoscaler", "runner-3f2a".
        state_dir: what survives a restart.
        runtime_dir: short path for unix sockets; gone with the mesh. Every process serves
            `headrace.control.v1.ProcessService` on `<runtime_dir>/<process>.sock`.
        listen: the front's host:port, for routers.
        supervisor: its process id; None: there is none, the process was started by itself.
    """

    process: str
    state_dir: Path
    runtime_dir: Path
    listen: str = "127.0.0.1:8080"
    supervisor: int | None = None
    mesh: MeshConfig = MeshConfig()

    @property
    def socket(self) -> Path:
        """This process's internal gRPC socket."""
        return self.runtime_dir / f"{self.process}.sock"

    @property
    def autoscaler_target(self) -> str:
        return f"unix:{self.runtime_dir / 'autoscaler.sock'}"

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json())


def load_context(path: Path) -> ProcessContext:
    """Reads what `ProcessContext.save` wrote."""
    return ProcessContext.model_validate_json(path.read_text())


def load_mesh_config(path: Path) -> MeshConfig:
    """Reads a configuration file.

    Raises:
        InvalidArgument: one line that names file, key, value and bound.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InvalidArgument(f"configuration {path}: cannot be read: {reason}") from None
    return parse_mesh_config({} if data is None else data, f"configuration {path}")


def parse_mesh_config(data: Any, what: str) -> MeshConfig:
    try:
        return MeshConfig.model_validate(data)
    except ValidationError as error:
        raise InvalidArgument("; ".join(f"{what}: {_line(detail)}" for detail in error.errors())) from None


def _line(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{key}: there is no such key"
    return f"{key}: {detail['msg']}; got {detail['input']!r}"
