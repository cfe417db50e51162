"""What a deploy asks for and which revisions it comes to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headrace_autoscaler.core.jobs import Job, serving_variant
from headrace_autoscaler.core.policies.choose import policy_name
from headrace_autoscaler.core.policies.schedules import parse_schedule
from headrace_autoscaler.core.policies.targets import parse_target
from headrace_autoscaler.core.room import never_fits
from headrace_autoscaler.domain import Limits, Model, ModelFile, ModelSpec, Revision, RevisionState, Tenant
from headrace_autoscaler.repository import Candidate, Settings
from headrace_autoscaler.repository.plans import loads
from headrace_autoscaler.sequences import settled_sequences
from headrace_common.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from headrace_common.identity import OPERATOR
from headrace_common.quantities import format_millis

NO_LIMITS = Limits()
_TENSORRT = frozenset({"tensorrt", "tensorrt_rtx"})
_ENGINES = frozenset({"onnxruntime", "torch"})
_THREADS = "intra_op_threads"


@dataclass(frozen=True, slots=True)
class Offer:
    """What this mesh has for models.

    Attributes:
        capacity: what the machine may promise.
        fake_engine: the fake engine may be asked for.
        gpu_architecture: of the GPU that runners use, such as "sm_86"; "": there is none.
    """

    capacity: Limits = NO_LIMITS
    fake_engine: bool = False
    gpu_architecture: str = ""

    @property
    def engines(self) -> str:
        """Those that a refusal offers in place of the fake one."""
        gpu = _TENSORRT if self.gpu_architecture else frozenset()
        return ", ".join(sorted(_ENGINES | gpu))


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """A deploy as the user asked for it.

    Attributes:
        spec: with defaults settled.
        artifact: what an upload answered; empty with a source, and for a change of nothing but the spec.
        response_cache: None: as config.pbtxt says.
        replaces: artifact that has to be the current one still when the deploy has its turn. Then nothing but the files
            changes: the spec is the one that stands at that time, and the version keeps its name. Empty: the deploy
            says all there is to say.
        original_engine: that of the model as it was deployed, where the files may be a variant's: what the spec says of
            an engine is for that one. Empty: the files are those that the spec speaks of.
    """

    spec: ModelSpec
    artifact: str = ""
    response_cache: bool | None = None
    replaces: str = ""
    original_engine: str = ""

    @property
    def url(self) -> str:
        """What to fetch; empty: nothing, also where the spec says where files that are here came from."""
        return "" if self.artifact else self.spec.source

    def speaks_of(self, engine: str) -> bool:
        """Whether the spec's engine and options are for files of this engine: a variant on another has none."""
        return self.original_engine in ("", engine)


def check_request(request: DeployRequest, offer: Offer) -> None:
    """What can be told without looking at anything but the request.

    Raises:
        InvalidArgument, PermissionDenied: names the field, what was expected, what came.
    """
    spec = request.spec
    if spec.tenant == OPERATOR:
        raise PermissionDenied(f"tenant: {OPERATOR!r} is the mesh's own and owns no models; name another tenant")
    if spec.max_instances is not None and spec.min_instances > spec.max_instances:
        raise InvalidArgument(
            f"min_instances: expected at most max_instances ({spec.max_instances}), got {spec.min_instances}"
        )
    _check_shapes(spec)
    policy_name(spec.policy, spec.traffic, spec.cost_sensitivity)
    for schedule in spec.schedules:
        parse_schedule(schedule, "schedules")
    for metric, value in spec.targets:
        parse_target(metric, value, "targets")
    if spec.engine == "fake" and not offer.fake_engine:
        raise InvalidArgument(
            f"engine: {spec.engine!r} is not available in this mesh; expected {offer.engines} or none"
        )
    if spec.source and request.artifact and not request.replaces:
        raise InvalidArgument("source and artifact: expected one of them, got both")


def _check_shapes(spec: ModelSpec) -> None:
    least, most = spec.resources.cpu_millicores, spec.max_cpu_millicores
    if most is not None and most < least:
        raise InvalidArgument(
            f"max_cpu: expected at least resources.cpu ({format_millis(least)}), got {format_millis(most)}"
        )
    if most is not None and _THREADS in dict(spec.engine_options):
        raise InvalidArgument(
            f"max_cpu: engine_options set {_THREADS}, so that more CPUs would change nothing; expected one of the two"
        )
    if spec.spread > 1:
        raise InvalidArgument(
            f"spread: this mesh is one machine, which is one failure domain; expected 1, got {spec.spread}"
        )


def check_fits(spec: ModelSpec, tenants: Iterable[Tenant], offer: Offer) -> None:
    """Whether one instance could run if nothing else did.

    Args:
        tenants: all; the model's is new and has no limits if it is not among them.

    Raises:
        FailedPrecondition: says whose limit it is, how much there is, how much was asked for, and what to do.
    """
    if reason := never_fits(spec, tenants, offer.capacity):
        raise FailedPrecondition(reason)


def check_owner(spec: ModelSpec, model: Model | None) -> None:
    """Whether this spec may replace what the model is now.

    Raises:
        PermissionDenied: the model is another tenant's; an owner never changes.
        FailedPrecondition: it is being deleted.
    """
    if model is None:
        return
    if model.spec.tenant != spec.tenant:
        raise PermissionDenied(
            f"model {spec.name!r} belongs to tenant {model.spec.tenant!r} and its owner never changes; deploy it as "
            f"that tenant, or under another name than {spec.name!r}"
        )
    if model.deleting:
        raise FailedPrecondition(f"model {spec.name!r} is being deleted; deploy again once it is gone")


def check_replaces(request: DeployRequest, model: Model | None) -> None:
    """Raises FailedPrecondition where something else was deployed since the request was made."""
    current = model.current if model else None
    if request.replaces and (current is None or current.artifact != request.replaces):
        raise FailedPrecondition(
            f"model {request.spec.name!r}: another version was deployed meanwhile, and it serves; look at it first "
            f"(`headrace describe {request.spec.name}`)"
        )


def as_it_stands(request: DeployRequest, model: Model | None, job: Job | None) -> DeployRequest:
    """What a deploy leaves unsaid, as it is when the deploy has its turn.

    Of other files alone, the spec; and where a variant serves, or is to, the engine that the spec speaks of.

    Args:
        job: the model's, by whose variants it is known what serves.

    Raises:
        InvalidArgument: a change of nothing but the spec names an engine that is not the original's.
    """
    if model is None:
        return request
    if request.replaces:
        request = replace(request, spec=model.spec, response_cache=model.spec.response_cache)
    elif request.artifact or request.url:
        return request
    if job is None or not serving_variant(job, model):
        return request
    asked = request.spec.engine
    if asked and job.engine and not loads(asked, job.engine):
        raise InvalidArgument(
            f"engine: {asked!r} cannot load model {model.spec.name!r} as it was deployed, which is for {job.engine!r}; "
            "expected that or none: a variant has its own"
        )
    return replace(request, original_engine=job.engine)


def settled_spec(request: DeployRequest, settings: Settings) -> ModelSpec:
    """The spec with what config.pbtxt says where the request says nothing.

    Raises:
        InvalidArgument: it says how to keep answers, and not that they are to be kept.
    """
    cache = request.response_cache if request.response_cache is not None else settings.response_cache
    if not cache and (request.spec.cache_shared or request.spec.cache_ttl_s is not None):
        field = "cache_shared" if request.spec.cache_shared else "cache_ttl"
        raise InvalidArgument(f"{field}: the model has no response cache; expected response_cache as well")
    if cache and settled_sequences(request.spec, settings.sequences) is not None:
        raise InvalidArgument(
            "response_cache: the model is stateful, so equal requests have unlike answers; expected none of the two"
        )
    return replace(request.spec, response_cache=bool(cache))


def plan_revisions(
    model: Model | None,
    request: DeployRequest,
    artifact: str,
    candidates: Sequence[Candidate],
    settings: Settings,
    now: float,
) -> tuple[Revision, ...]:
    """The revisions that are to serve after the deploy. The request's spec is the settled one.

    A version that already serves with the same files and settings is kept, under its number and from the
    new artifact's directory; every other one is new: LOADING, with the number 0 until the store gives one.
    """
    planned = []
    for candidate in candidates:
        wanted = _revision(request, artifact, candidate, settings, now)
        wanted = replace(wanted, version=candidate.version or _version(model, request))
        kept = _serving_alike(model, wanted, any_version=candidate.version is None)
        planned.append(wanted if kept is None else replace(kept, artifact=artifact))
    return tuple(planned)


def is_new(revision: Revision) -> bool:
    return revision.revision == 0


def _revision(request: DeployRequest, artifact: str, candidate: Candidate, settings: Settings, now: float) -> Revision:
    """Without the name of its version."""
    spec = request.spec
    options = dict(settings.engine_options)
    if request.speaks_of(candidate.engine):
        options |= dict(spec.engine_options)
    return Revision(
        model=spec.name,
        revision=0,
        version="",
        state=RevisionState.LOADING,
        artifact=artifact,
        files=_by_path(candidate.files),
        entry_point=candidate.entry_point,
        engine=_engine(request, candidate, settings),
        engine_options=tuple(sorted(options.items())),
        max_batch_size=spec.max_batch_size if spec.max_batch_size is not None else settings.max_batch_size,
        slots=settings.slots,
        batching=replace(settings.batching, padding=spec.padding),
        warmup=settings.warmup,
        model_config=settings.model_config,
        deployed_at=now,
        sequences=settled_sequences(spec, settings.sequences),
    )


def _engine(request: DeployRequest, candidate: Candidate, settings: Settings) -> str:
    asked = request.spec.engine if request.speaks_of(candidate.engine) else ""
    asked = asked or settings.engine or candidate.engine
    if not loads(asked, candidate.engine):
        raise InvalidArgument(
            f"engine: {asked!r} cannot load {candidate.entry_point!r}, which is for {candidate.engine!r}"
        )
    return candidate.engine


def _by_path(files: Sequence[ModelFile]) -> tuple[ModelFile, ...]:
    return tuple(sorted(files, key=lambda file: file.path))


def _version(model: Model | None, request: DeployRequest) -> str:
    """Name for a single file: the next, but that of what it is another form of, so that who asks by it goes on."""
    if model is None:
        return "1"
    if request.replaces and model.current is not None:
        return model.current.version
    return str(max((int(revision.version) for revision in model.revisions), default=0) + 1)


def _serving_alike(model: Model | None, wanted: Revision, *, any_version: bool) -> Revision | None:
    """The SERVING revision that differs from the wanted one in nothing that a load would show."""
    if model is None:
        return None
    if any_version:
        serving = [model.current] if model.current else []
    else:
        serving = [r for r in model.revisions if r.state is RevisionState.SERVING and r.version == wanted.version]
    return next((revision for revision in serving if _essence(revision) == _essence(wanted)), None)


def _essence(revision: Revision) -> Revision:
    return replace(
        revision,
        revision=0,
        version="",
        state=RevisionState.LOADING,
        artifact="",
        deployed_at=0.0,
        loaded=None,
        profiles=(),
    )
