"""Which versions an artifact holds, and what config.pbtxt says: honoured or refused by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.oip import model_config_pb2 as pb
from headrace_autoscaler.domain import Batching, ModelFile, Signature, TensorSpec
from headrace_autoscaler.repository import Settings, candidates, parse_config, settings_of, tensor_mismatches
from headrace_autoscaler.repository.layout import VersionPolicy
from headrace_common.errors import InvalidArgument


def files(*paths: str) -> tuple[ModelFile, ...]:
    return tuple(ModelFile(path, "0" * 64, 1) for path in paths)


def settings(text: str, model: str = "ocr") -> Settings:
    return settings_of(parse_config(text.encode()), model)


# Layout.

ALL = VersionPolicy(latest=None)


@pytest.mark.parametrize(
    ("paths", "policy", "name", "expected"),
    [
        (["m.onnx"], None, "", [(None, "m.onnx", "onnxruntime", 1)]),
        (["m.onnx", "m.onnx.data", "w/b.bin"], None, "", [(None, "m.onnx", "onnxruntime", 3)]),
        (["m.onnx", "config.pbtxt"], None, "", [(None, "m.onnx", "onnxruntime", 1)]),
        (["a.onnx", "b.onnx", "config.pbtxt"], None, "b.onnx", [(None, "b.onnx", "onnxruntime", 2)]),
        (["echo.fake.json"], None, "", [(None, "echo.fake.json", "fake", 1)]),
        (["m.sm_86.plan", "m.sm_86.plan.json"], None, "", [(None, "m.sm_86.plan", "tensorrt", 2)]),
        (["m.sm_89.plan", "m.sm_86.plan", "config.pbtxt"], None, "", [(None, "m.sm_86.plan", "tensorrt", 2)]),
        (["1/model.plan", "1/model.plan.json"], None, "", [("1", "1/model.plan", "tensorrt", 2)]),
        (["1/m.sm_89.plan", "1/m.sm_86.plan"], None, "", [("1", "1/m.sm_86.plan", "tensorrt", 2)]),
        (["m.pt2"], None, "", [(None, "m.pt2", "torch", 1)]),
        (["1/model.pt2"], None, "", [("1", "1/model.pt2", "torch", 1)]),
        (["1/model.onnx"], None, "", [("1", "1/model.onnx", "onnxruntime", 1)]),
        (["1/model.onnx", "1/model.onnx.data"], None, "", [("1", "1/model.onnx", "onnxruntime", 2)]),
        (["1/model.fake.json"], None, "", [("1", "1/model.fake.json", "fake", 1)]),
        (["1/model.onnx/model.onnx", "1/model.onnx/w"], None, "", [("1", "1/model.onnx/model.onnx", "onnxruntime", 2)]),
        (["9/model.onnx", "10/model.onnx"], None, "", [("10", "10/model.onnx", "onnxruntime", 1)]),
        (
            ["labels.txt", "01/model.onnx", "docs/x", "2/model.onnx"],
            None,
            "",
            [("2", "2/model.onnx", "onnxruntime", 1)],
        ),
        (["1/m.onnx", "1/model.onnx"], None, "m.onnx", [("1", "1/m.onnx", "onnxruntime", 2)]),
        (
            ["1/model.onnx", "2/model.onnx", "10/model.onnx"],
            VersionPolicy(latest=2),
            "",
            [("2", "2/model.onnx", "onnxruntime", 1), ("10", "10/model.onnx", "onnxruntime", 1)],
        ),
        (
            ["2/model.onnx", "1/model.fake.json"],
            ALL,
            "",
            [("1", "1/model.fake.json", "fake", 1), ("2", "2/model.onnx", "onnxruntime", 1)],
        ),
        (
            ["1/model.onnx", "2/model.onnx", "3/model.onnx"],
            VersionPolicy(specific=(3, 1, 3)),
            "",
            [("1", "1/model.onnx", "onnxruntime", 1), ("3", "3/model.onnx", "onnxruntime", 1)],
        ),
    ],
    ids=[
        "one ONNX file",
        "its external data comes along",
        "the configuration is no part of the model",
        "a configured name among several",
        "the fake engine's file",
        "a plan with its manifest",
        "plans of one model for several GPUs",
        "Triton's layout with a plan",
        "plans by the compiler's names in a version",
        "an exported program",
        "a version of one",
        "Triton's layout without configuration",
        "external data in a version",
        "a fake version",
        "a model directory, as Triton takes it",
        "newest by number, not by text",
        "what is no version is left alone",
        "a configured name in a version",
        "the latest two",
        "all, oldest first",
        "specific ones, each once",
    ],
)
def test_versions_of_an_artifact(
    paths: list[str], policy: VersionPolicy | None, name: str, expected: list[tuple[str | None, str, str, int]]
) -> None:
    found = candidates(files(*paths), policy or VersionPolicy(), name)
    assert [(c.version, c.entry_point, c.engine, len(c.files)) for c in found] == expected


@pytest.mark.parametrize(
    ("paths", "policy", "name", "message"),
    [
        (["readme.md"], None, "", "found no model: expected an .onnx, .pt2 or .plan file.*; got readme.md"),
        (["m.pt"], None, "", "m.pt: a pickle, or TorchScript: .*; export the module with headrace.models.export.*"),
        (["1/model.pth"], None, "", "1/model.pth: a pickle, or TorchScript: .*"),
        (["a.onnx", "b.onnx"], None, "", "expected one model file, got a.onnx, b.onnx"),
        (["ocr/1/model.onnx"], None, "", "this is a repository of models; deploy the model's own directory, 'ocr'"),
        (["1/m.onnx"], None, "", "version 1: expected 1/model.onnx or 1/model.pt2 or 1/model.plan; has 1/m.onnx"),
        (["1/model.onnx"], None, "m.onnx", "version 1: expected 1/m.onnx; has 1/model.onnx"),
        (["1/model.onnx"], VersionPolicy(specific=(1, 7)), "", "names version 7; the repository has 1"),
        (["model.engine"], None, "", "found no model"),
    ],
    ids=[
        "no model",
        "a pickle",
        "a version of pickles",
        "two models",
        "one level too high",
        "wrong name",
        "not as configured",
        "missing version",
        "unknown kind",
    ],
)
def test_artifacts_without_a_clear_model_are_refused(
    paths: list[str], policy: VersionPolicy | None, name: str, message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        candidates(files(*paths), policy or VersionPolicy(), name)


@given(st.sets(st.integers(1, 10**6), min_size=1, max_size=8), st.integers(1, 10))
def test_the_latest_are_the_highest_numbers(versions: set[int], latest: int) -> None:
    found = candidates(files(*(f"{version}/model.onnx" for version in versions)), VersionPolicy(latest=latest))
    assert [int(c.version or 0) for c in found] == sorted(versions)[-latest:]


# config.pbtxt.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Settings(max_batch_size=1)),
        ("# only a comment", Settings(max_batch_size=1)),
        ('name: "ocr" max_batch_size: 8', Settings(max_batch_size=8)),
        ('platform: "onnxruntime_onnx"', Settings(engine="onnxruntime", max_batch_size=1)),
        ('backend: "onnxruntime"', Settings(engine="onnxruntime", max_batch_size=1)),
        ('platform: "torch_export"', Settings(engine="torch", max_batch_size=1)),
        ('backend: "pytorch"', Settings(engine="torch", max_batch_size=1)),
        ('backend: "fake"', Settings(engine="fake", max_batch_size=1)),
        ("version_policy { latest { num_versions: 3 } }", Settings(version_policy=VersionPolicy(3), max_batch_size=1)),
        ("version_policy { all {} }", Settings(version_policy=ALL, max_batch_size=1)),
        (
            "version_policy { specific { versions: [1, 4] } }",
            Settings(version_policy=VersionPolicy(specific=(1, 4)), max_batch_size=1),
        ),
        ("instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_AUTO } ]", Settings(slots=3, max_batch_size=1)),
        ("response_cache { enable: true }", Settings(response_cache=True, max_batch_size=1)),
        ("response_cache { enable: false }", Settings(response_cache=False, max_batch_size=1)),
        ('default_model_filename: "m.onnx"', Settings(default_filename="m.onnx", max_batch_size=1)),
        (
            'parameters { key: "intra_op_thread_count" value { string_value: "2" } }',
            Settings(engine_options=(("intra_op_threads", "2"),), max_batch_size=1),
        ),
        ("dynamic_batching { }", Settings(max_batch_size=1)),
        (
            """
            max_batch_size: 16
            dynamic_batching {
              preferred_batch_size: [4, 16]
              max_queue_delay_microseconds: 500
              priority_levels: 3
              default_priority_level: 2
              default_queue_policy {
                timeout_action: REJECT
                default_timeout_microseconds: 7000
                allow_timeout_override: true
                max_queue_size: 9
              }
            }
            """,
            Settings(max_batch_size=16, batching=Batching((4, 16), 500, 3, 2, 9, 7000)),
        ),
        (
            """
            input [ { name: "x" data_type: TYPE_FP32 dims: [-1, 3] optional: true } ]
            output [ { name: "y" data_type: TYPE_STRING dims: 1 } ]
            """,
            Settings(max_batch_size=1),
        ),
    ],
    ids=[
        "empty",
        "comment",
        "its own name and batch",
        "platform",
        "backend",
        "platform of exported programs",
        "backend of torch",
        "fake backend",
        "latest",
        "all",
        "specific",
        "instance groups add up to slots",
        "response cache on",
        "response cache off",
        "default file name",
        "a known parameter",
        "dynamic batching as it is by default",
        "dynamic batching in full",
        "tensors",
    ],
)
def test_what_is_supported_is_honoured(text: str, expected: Settings) -> None:
    found = settings(text)
    whole = parse_config(text.encode()).SerializeToString(deterministic=True)
    assert found.model_config == whole
    assert found == Settings(**{**_fields(expected), "model_config": whole})


def _fields(value: Settings) -> dict[str, object]:
    return {name: getattr(value, name) for name in Settings.__dataclass_fields__}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name: "other"', "name: expected 'ocr', which it is deployed as, or none; got 'other'"),
        ("max_batch_size: -1", "max_batch_size: expected at least 0, got -1"),
        (
            'platform: "tensorflow_graphdef"',
            r"not supported: platform 'tensorflow_graphdef' \(expected onn",
        ),
        ('backend: "python"', "not supported: backend 'python'"),
        (
            "instance_group { kind: KIND_GPU }",
            r"instance_group\[0\].kind KIND_GPU \(only TensorRT plans run",
        ),
        (
            'platform: "tensorrt_plan" instance_group { kind: KIND_CPU }',
            r"KIND_CPU \(TensorRT plans run on a GPU; expected KIND_GPU",
        ),
        ("instance_group { count: 1 gpus: [0] }", r"not supported: instance_group\[0\].gpus$"),
        ("instance_group { count: 65 }", "instance_group: expected counts of 1 to 64"),
        ("instance_group { passive: true }", r"instance_group\[0\].passive"),
        ("sequence_batching { }", r"not supported: sequence_batching without state \(an engine here keeps none"),
        (
            "sequence_batching { oldest { max_candidate_sequences: 4 } }",
            "not supported: sequence_batching.oldest.max_candidate_sequences",
        ),
        (
            'sequence_batching { state { input_name: "s" output_name: "t" use_growable_memory: true } }',
            r"not supported: sequence_batching.state\[0\].use_growable_memory",
        ),
        (
            'sequence_batching { state { input_name: "s" } }',
            r"sequence_batching.state\[0\] \(expected input_name and output_name\)",
        ),
        (
            'sequence_batching { control_input { name: "S" control { kind: CONTROL_SEQUENCE_START } } }',
            r"control_input\[0\].control\[0\] \(expected one of int32_false_true, fp32_false_true, bool_false_true",
        ),
        (
            'sequence_batching { control_input { name: "I" control { kind: CONTROL_SEQUENCE_CORRID } } }',
            r"control_input\[0\].control\[0\].data_type \(expected TYPE_STRING",
        ),
        (
            "sequence_batching { state { initial_state { data_file: '../s' } } }",
            r"data_file '../s' \(expected the name of a file in initial_state/\)",
        ),
        ('ensemble_scheduling { step { model_name: "a" } }', "not supported: ensemble_scheduling"),
        ("optimization { graph { level: 1 } }", "not supported: optimization"),
        ("model_transaction_policy { decoupled: true }", "not supported: model_transaction_policy"),
        ('input { name: "x" reshape { shape: [1] } }', r"not supported: input\[0\].reshape"),
        ('input { name: "x" format: FORMAT_NCHW }', r"not supported: input\[0\].format"),
        ('output { name: "y" label_filename: "l" }', r"not supported: output\[0\].label_filename"),
        ('input { name: "x" dims: [0] }', r"input 'x': dims \[0\]: expected sizes of at least 1, or -1"),
        ("input { dims: [1] }", r"input\[0\].name: expected the tensor's name"),
        ('input { name: "x" data_type: 99 }', "input 'x': data_type 99: expected one such as TYPE_FP32"),
        ("dynamic_batching { preserve_ordering: true }", "not supported: dynamic_batching.preserve_ordering"),
        (
            "dynamic_batching { priority_queue_policy { key: 1 value { } } }",
            "not supported: dynamic_batching.priority_queue_policy",
        ),
        (
            "dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
            "not supported: dynamic_batching.default_queue_policy.timeout_action DELAY",
        ),
        ("dynamic_batching { preferred_batch_size: 2 }", r"preferred_batch_size: expected 1 to max_batch_size \(0\)"),
        (
            "dynamic_batching { priority_levels: 2 }",
            r"default_priority_level: expected 1 to priority_levels \(2\), got 0",
        ),
        ("version_policy { specific { versions: [0] } }", "version_policy.specific: expected versions of at least 1"),
        ("version_policy { specific { } }", "version_policy.specific: expected at least one"),
        ('parameters { key: "x" value { string_value: "1" } }', r"not supported: parameters\['x'\] \(known: intra_op"),
        ('default_model_filename: "model.engine"', "default_model_filename: expected a name that ends in .onnx"),
        ('metric_tags { key: "a" value: "b" }', "not supported: metric_tags"),
        (
            'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 input_data_file: "f" } } }',
            r"model_warmup\[0\].inputs\['x'\].input_data_file \(only zero_data and random_data\)",
        ),
        (
            'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: -1 zero_data: true } } }',
            r"model_warmup\[0\].inputs\['x'\].dims \[-1\]",
        ),
        (
            'model_warmup { inputs { key: "x" value { dims: 1 zero_data: true } } }',
            r"model_warmup\[0\].inputs\['x'\].data_type",
        ),
        (
            'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 1 } } }',
            r"model_warmup\[0\].inputs\['x'\] \(expected zero_data: true or random_data: true\)",
        ),
        ("max_batch_size: 4 model_warmup { batch_size: 5 }", r"model_warmup\[0\].batch_size 5 \(max_batch_size is 4\)"),
        (
            'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 dims: 9999999 zero_data: true } } }',
            "model_warmup of 39999996 bytes in all",
        ),
        ("model_warmup { count: 4294967295 }", "model_warmup of 4294967295 batches in all"),
        (
            'model_warmup { count: 999999 inputs { key: "x" value { data_type: TYPE_BOOL dims: 1 zero_data: true } } }',
            "model_warmup of 999999 batches in all",
        ),
        pytest.param(
            'model_warmup { inputs { key: "x" value { data_type: TYPE_FP32 zero_data: true dims: ['
            + ",".join(["9223372036854775807"] * 400)
            + "] } } }",
            "dims of 400 sizes",
            id="a shape of more bytes than there are digits for",
        ),
        (
            "dynamic_batching { priority_levels: 18446744073709551615 default_priority_level: 1 }",
            "dynamic_batching.priority_levels: expected at most 100",
        ),
    ],
)
def test_what_is_wrong_or_not_supported_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as refused:
        settings(text)
    assert str(refused.value).startswith("config.pbtxt: ")


def test_one_message_lists_all_that_is_wrong() -> None:
    with pytest.raises(InvalidArgument) as refused:
        settings('name: "x" ensemble_scheduling {} optimization { eager_batching: true } instance_group { gpus: 1 }')
    assert str(refused.value) == (
        "config.pbtxt: name: expected 'ocr', which it is deployed as, or none; got 'x'; "
        "not supported: instance_group[0].gpus, optimization, ensemble_scheduling"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"max_batch_size: 1\nno_such_key: 1\n", r'config.pbtxt: line 2:1 : .*no field named "no_such_key"'),
        (b"max_batch_size: many", "config.pbtxt: line 1:17"),
        (b"input { name: 'x'", "config.pbtxt: line 1"),
        (b"input { data_type: TYPE_FLOAT }", "TYPE_FLOAT"),
        (b"\xff\xfe", "expected text in UTF-8"),
        (b"#" * ((1 << 20) + 1), "expected at most 1048576"),
    ],
    ids=["unknown key", "not a number", "cut off", "unknown type", "not text", "too large"],
)
def test_text_that_cannot_be_read_says_where(text: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        parse_config(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        config = parse_config(text)
    except InvalidArgument:
        return
    assert isinstance(config, pb.ModelConfig)


def test_warmup_data_has_the_shape_and_bytes_that_the_configuration_says() -> None:
    text = """
        max_batch_size: 4
        model_warmup {
          name: "two" batch_size: 2 count: 2
          inputs { key: "x" value { data_type: TYPE_FP32 dims: [3] zero_data: true } }
          inputs { key: "ids" value { data_type: TYPE_INT64 dims: [5] random_data: true } }
          inputs { key: "text" value { data_type: TYPE_STRING dims: [1] random_data: true } }
        }
        model_warmup { name: "one" inputs { key: "b" value { data_type: TYPE_BF16 dims: [2] random_data: true } } }
    """
    twice, again, one = settings(text).warmup
    assert twice == again
    assert (twice.name, twice.batch_size, one.batch_size) == ("two", 2, 1)
    ids, string, x = twice.inputs
    assert (x.name, x.datatype, x.shape, x.data) == ("x", "FP32", (2, 3), bytes(24))
    assert (ids.datatype, ids.shape, len(ids.data)) == ("INT64", (2, 5), 80)
    assert all(0 <= value < 100 for value in struct.unpack("<10q", ids.data))
    assert len(set(struct.unpack("<10q", ids.data))) > 1
    assert (string.datatype, string.shape) == ("BYTES", (2, 1))
    assert [struct.unpack("<I", string.data[at : at + 4])[0] for at in (0, 5)] == [1, 1]
    assert len(one.inputs[0].data) == 4
    assert settings(text) == settings(text)


@pytest.mark.parametrize("name", sorted(set(pb.DataType.keys()) - {"TYPE_INVALID"}))
def test_every_datatype_can_be_warmed_up_with(name: str) -> None:
    for kind in ("zero_data", "random_data"):
        text = f'model_warmup {{ inputs {{ key: "x" value {{ data_type: {name} dims: [2, 2] {kind}: true }} }} }}'
        (sample,) = settings(text).warmup
        assert sample.inputs[0].shape == (2, 2)
        assert len(sample.inputs[0].data) >= 4


# Tensors against the model.

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 3, -1)), TensorSpec("mask", "BOOL", (-1, 1), optional=True)),
    (TensorSpec("y", "BYTES", (-1, 2)),),
    batchable=True,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ('max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [3, 7] }', []),
        ('max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [3, -1] }', []),
        ('input { name: "x" data_type: TYPE_FP32 dims: [4, 3, 7] }', []),
        ('input { name: "x" } output { name: "y" data_type: TYPE_STRING dims: [-1, 2] }', []),
        (
            'max_batch_size: 8 input { name: "x" data_type: TYPE_INT32 dims: [3, 7] }',
            ["input 'x': expected INT32, the model has FP32"],
        ),
        (
            'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4, 7] }',
            ["input 'x': expected shape [-1, 4, 7], the model has [-1, 3, -1]"],
        ),
        (
            'input { name: "x" data_type: TYPE_FP32 dims: [3, 7] }',
            ["input 'x': expected shape [3, 7], the model has [-1, 3, -1]"],
        ),
        (
            'max_batch_size: 8 output { name: "y" dims: [-1] }',
            ["output 'y': expected shape [-1, -1], the model has [-1, 2]"],
        ),
        (
            'input { name: "z" }',
            [
                "input 'z': expected in the model, whose inputs are x, mask",
                "input 'x': expected in the configuration, which does not name it",
            ],
        ),
        ('output { name: "z" }', ["output 'z': expected in the model, whose outputs are y"]),
    ],
    ids=[
        "nothing said",
        "batch left out of dims",
        "any size",
        "no batching: dims are whole",
        "no type, no dims",
        "wrong type",
        "wrong size",
        "batch missing without batching",
        "any size where the model fixes it",
        "unknown input",
        "unknown output",
    ],
)
def test_tensors_that_the_model_contradicts_are_named(text: str, expected: list[str]) -> None:
    assert list(tensor_mismatches(parse_config(text.encode()), SIGNATURE)) == expected


def test_a_batched_configuration_of_a_model_with_fixed_rows_is_contradicted() -> None:
    fixed = Signature((TensorSpec("x", "FP32", (1, 3)),), (), batchable=False)
    config = parse_config(b'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [3] }')
    assert tensor_mismatches(config, fixed) == ("input 'x': expected shape [-1, 3], the model has [1, 3]",)
