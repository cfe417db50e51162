"""What the catalogue and the data plane know, in the protocol's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from headrace.oip import inference_pb2 as pb
from headrace.oip import model_config_pb2 as config_pb
from headrace_router.domain import RevisionEntry, SequenceRules, TensorSpec
from headrace_router.oip.datatypes import DATATYPES
from headrace_router.ports import Statistics

SERVER_NAME = "headrace"
EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
)
READY, UNAVAILABLE = "READY", "UNAVAILABLE"


def server_metadata() -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=SERVER_NAME, version=version("headrace"), extensions=EXTENSIONS)


def model_metadata(entry: RevisionEntry, versions: Iterable[RevisionEntry]) -> pb.ModelMetadataResponse:
    """Shapes hold the batch dimension, as -1."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=entry.model,
        versions=[known.version for known in versions],
        platform=entry.platform,
        inputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in entry.inputs],
        outputs=[tensor(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in entry.outputs],
    )


def model_config(entry: RevisionEntry) -> config_pb.ModelConfig:
    """The model's config.pbtxt, completed with what was found out when it was deployed."""
    config = config_pb.ModelConfig.FromString(entry.model_config)
    config.name = entry.model
    config.platform = config.platform or entry.platform
    config.backend = config.backend or config.platform.removesuffix("_onnx")
    # In Triton's words a model that is not batchable has a maximum of 0, and dims leave out the batch.
    config.max_batch_size = entry.max_batch_size if entry.batchable else 0
    given_inputs = {tensor.name for tensor in config.input}
    for spec in _missing(entry.inputs, given_inputs):
        config.input.add(optional=spec.optional, **_tensor(spec, entry.batchable))
    given_outputs = {tensor.name for tensor in config.output}
    for spec in _missing(entry.outputs, given_outputs):
        config.output.add(**_tensor(spec, entry.batchable))
    if entry.sequences is not None:
        _add_sequences(config.sequence_batching, entry.sequences, entry.batchable)
    return config


def _add_sequences(batching: config_pb.ModelSequenceBatching, rules: SequenceRules, batchable: bool) -> None:
    """What the configuration does not say: of a model that was declared stateful without one, everything.

    It takes the place of dynamic_batching there, beside which the format has no room for it.
    """
    batching.max_sequence_idle_microseconds = round(rules.max_idle_s * 1e6)
    given = {state.input_name for state in batching.state}
    for state in rules.states:
        if state.input not in given:
            batching.state.add(
                input_name=state.input,
                output_name=state.output,
                data_type=DATATYPES[state.datatype].config,
                dims=state.shape[1:] if batchable else state.shape,
            )


def model_statistics(entry: RevisionEntry, counted: Statistics) -> pb.ModelStatistics:
    """Copying tensors in and out is part of compute_infer. As in Triton, what was answered without an
    execution is a success, and no part of the other counts."""
    requests = counted.requests
    spared = counted.cache_hits + counted.coalesced
    spared_ns = counted.cache_hit_ns + counted.coalesced_ns
    return pb.ModelStatistics(
        name=entry.model,
        version=entry.version,
        last_inference=counted.last_inference_unix_ms,
        inference_count=counted.rows,
        execution_count=counted.bundles,
        inference_stats=pb.InferStatistics(
            success=pb.StatisticDuration(count=requests + spared, ns=counted.request_ns + spared_ns),
            fail=pb.StatisticDuration(count=counted.failures, ns=counted.failure_ns),
            queue=pb.StatisticDuration(count=requests, ns=counted.queue_ns),
            compute_infer=pb.StatisticDuration(count=requests, ns=counted.compute_ns),
            cache_hit=pb.StatisticDuration(count=counted.cache_hits, ns=counted.cache_hit_ns),
            cache_miss=pb.StatisticDuration(count=counted.cache_misses, ns=counted.cache_miss_ns),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=pb.StatisticDuration(count=count, ns=ns))
            for size, (count, ns) in sorted(counted.batches.items())
        ],
    )


def model_index(entry: RevisionEntry, ready: bool) -> pb.RepositoryIndexResponse.ModelIndex:
    reason = "" if ready else entry.blocked_reason or "its first load is under way"
    state = READY if ready else UNAVAILABLE
    return pb.RepositoryIndexResponse.ModelIndex(name=entry.model, version=entry.version, state=state, reason=reason)


def _missing(specs: Sequence[TensorSpec], given: set[str]) -> list[TensorSpec]:
    return [spec for spec in specs if spec.name not in given]


def _tensor(spec: TensorSpec, batchable: bool) -> dict[str, object]:
    return {
        "name": spec.name,
        "data_type": DATATYPES[spec.datatype].config,
        "dims": spec.shape[1:] if batchable else spec.shape,
    }
