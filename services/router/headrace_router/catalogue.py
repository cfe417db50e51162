"""Models as the autoscaler last described them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headrace.control.v1 import control_pb2
from headrace.v1 import models_pb2
from headrace_common.errors import NotFound, PermissionDenied, Unavailable
from headrace_common.identity import may_call
from headrace_router.domain import (
    Batching,
    RevisionEntry,
    SequenceRules,
    SignalSpec,
    SpentBudget,
    StateSpec,
    TensorSpec,
)

_SIGNALS = {
    control_pb2.SEQUENCE_SIGNAL_KIND_START: "start",
    control_pb2.SEQUENCE_SIGNAL_KIND_END: "end",
    control_pb2.SEQUENCE_SIGNAL_KIND_READY: "ready",
    control_pb2.SEQUENCE_SIGNAL_KIND_ID: "id",
}


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    owner: str
    shared_with: tuple[str, ...]
    revisions: tuple[RevisionEntry, ...]
    current: RevisionEntry | None
    by_version: dict[str, RevisionEntry]


class LiveCatalogue:
    """Implements `ports.Catalogue` over the state updates that `apply` is given."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._ready = False

    @property
    def ready(self) -> bool:
        return self._ready

    def apply(self, update: control_pb2.StateUpdate) -> None:
        """A full update replaces all; a delta replaces the models it names. Takes effect at once, as one."""
        models = {} if update.full else dict(self._models)
        for name in update.removed_models:
            models.pop(name, None)
        for entry in update.models:
            models[entry.name] = _model(entry)
        self._models = models
        self._ready = self._ready or update.full

    def entries(self) -> Iterable[RevisionEntry]:
        """Every revision of every model, retiring and loading ones too."""
        for model in self._models.values():
            yield from model.revisions

    def entry(self, model: str, revision: int) -> RevisionEntry | None:
        known = self._models.get(model)
        if known is None:
            return None
        return next((entry for entry in known.revisions if entry.revision == revision), None)

    def resolve(self, caller: str, model: str, version: str) -> RevisionEntry:
        """See `ports.Catalogue.resolve`."""
        known = self._visible(caller, model)
        entry = known.by_version.get(version) if version else known.current
        if entry is None:
            raise self._missing(known, version)
        if entry.loading:
            raise _loading(model)
        return entry

    def versions(self, caller: str, model: str) -> tuple[RevisionEntry, ...]:
        """See `ports.Catalogue.versions`."""
        known = self._visible(caller, model)
        callable_ones = [entry for entry in known.by_version.values() if not entry.loading]
        if not callable_ones:
            raise self._missing(known, "")
        return tuple(sorted(callable_ones, key=lambda entry: (_version_order(entry.version), entry.revision)))

    def visible(self, caller: str) -> tuple[RevisionEntry, ...]:
        """See `ports.Catalogue.visible`."""
        return tuple(
            model.current
            for _, model in sorted(self._models.items())
            if model.current is not None and may_call(caller, model.owner, model.shared_with)
        )

    def is_ready(self, entry: RevisionEntry) -> bool:
        """See `ports.Catalogue.is_ready`."""
        now = self.entry(entry.model, entry.revision)
        return now is not None and not (now.loading or now.retiring or now.blocked_reason)

    def _visible(self, caller: str, model: str) -> _Model:
        known = self._models.get(model)
        if known is None:
            if not self._ready:
                raise Unavailable("the router has not been told yet which models there are; retry in a moment")
            raise NotFound(f"there is no model {model!r}")
        if not may_call(caller, known.owner, known.shared_with):
            raise PermissionDenied(f"model {model!r} is not shared with tenant {caller!r}")
        return known

    def _missing(self, known: _Model, version: str) -> NotFound | Unavailable:
        if any(entry.loading for entry in known.revisions) and not version:
            return _loading(known.name)
        if not version:
            return NotFound(f"model {known.name!r} serves no version")
        there_are = ", ".join(sorted(known.by_version)) or "none"
        return NotFound(f"model {known.name!r} has no version {version!r}; there are: {there_are}")


def _loading(model: str) -> Unavailable:
    return Unavailable(f"model {model!r} is being loaded for the first time; retry in a moment")


def _version_order(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (1 << 62, version)


def _model(entry: control_pb2.ModelEntry) -> _Model:
    revisions = tuple(_revision(entry, revision) for revision in entry.revisions)
    serving = [revision for revision in revisions if not revision.retiring]
    # Of two revisions of one version the current one answers, then the newest.
    by_version = {
        revision.version: revision for revision in sorted(serving, key=lambda item: (item.current, item.revision))
    }
    current = next((revision for revision in serving if revision.current), None)
    return _Model(entry.name, entry.tenant, tuple(entry.shared_with), revisions, current, by_version)


def _revision(model: control_pb2.ModelEntry, revision: control_pb2.Revision) -> RevisionEntry:
    return RevisionEntry(
        model=model.name,
        owner=model.tenant,
        revision=revision.revision,
        version=revision.version,
        inputs=_specs(revision.signature.inputs),
        outputs=_specs(revision.signature.outputs),
        batchable=revision.signature.batchable,
        max_batch_size=max(1, revision.max_batch_size),
        platform=revision.platform,
        batching=_batching(revision.batching),
        model_config=revision.model_config,
        slo_s=model.slo.ToNanoseconds() / 1e9 if model.HasField("slo") else None,
        response_cache=model.response_cache,
        cache_shared=model.cache_shared,
        cache_ttl_s=model.cache_ttl.ToNanoseconds() / 1e9 if model.HasField("cache_ttl") else None,
        created_us=model.created_at.ToMicroseconds(),
        blocked_reason=revision.blocked_reason,
        loading=revision.loading,
        retiring=revision.retiring,
        current=revision.current,
        instance_concurrency=revision.instance_concurrency,
        budget=SpentBudget(model.budget_subject, model.budget_reason, model.budget_returns_at.ToNanoseconds() / 1e9)
        if model.budget_reason
        else None,
        sequences=_sequences(revision.sequences) if revision.HasField("sequences") else None,
    )


def _sequences(rules: control_pb2.SequenceRules) -> SequenceRules:
    return SequenceRules(
        tuple(
            StateSpec(
                state.input,
                state.output,
                state.datatype,
                tuple(state.shape),
                state.initial or bytes(state.size_bytes),
            )
            for state in rules.states
        ),
        tuple(
            SignalSpec(each.input, _SIGNALS[each.kind], each.datatype, tuple(each.shape), each.off, each.on)
            for each in rules.signals
        ),
        rules.max_idle_us / 1e6,
    )


def _specs(tensors: Iterable[models_pb2.TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(item.name, item.datatype, tuple(item.shape), item.optional) for item in tensors)


def _batching(policy: control_pb2.BatchingPolicy) -> Batching:
    return Batching(
        preferred_batch_sizes=tuple(policy.preferred_batch_sizes),
        max_queue_delay_s=policy.max_queue_delay_us / 1e6,
        priority_levels=policy.priority_levels,
        default_priority_level=policy.default_priority_level,
        max_queue_size=policy.max_queue_size,
        default_timeout_s=policy.default_timeout_us / 1e6,
        padding=tuple(sorted(policy.pad.items())),
    )
