"""Variants of deployed models in use: with which files, engine and settings they serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import grpc
import pytest

from headrace.v1 import models_pb2 as pb
from headrace_common.config import AutoscalerConfig
from tests.autoscaler_api.optimizations import OnnxModel, Optimized, current, finds, refused

Code = grpc.StatusCode


async def found(api: Any, content: bytes, **asked: Any) -> Optimized:
    """The model `m`, once its optimisation is done; what it found has this content."""
    api.optimizer.answers = [finds(content)]
    api.optimizer.gate.set()
    optimized = Optimized(api)
    await optimized.start(**asked)
    await optimized.until(pb.JOB_STATE_DONE)
    return optimized


async def files_of(api: Any, optimized: Optimized, variant: str = "int8") -> list[str]:
    [listed] = [each for each in (await optimized.listed()).variants if each.name == variant]
    return [file.path for file in (await api.artifacts.find(listed.artifact)).files]


async def test_a_variant_of_a_repository_keeps_its_configuration_and_all_versions_that_serve(
    api: Any, onnx_model: OnnxModel
) -> None:
    config = b"max_batch_size: 4\nversion_policy { specific { versions: [1, 3] } }\n"
    versions = {f"{version}/model.onnx": onnx_model(float(version)) for version in (1, 2, 3)}
    await api.deploy("m", {"config.pbtxt": config, **versions, "1/weights": b"w", "3/weights": b"w", "notes": b"n"})
    optimized = await found(api, onnx_model(7.0))
    described = await api.describe("m")
    assert (described.variant, current(described).version) == ("int8", "3")
    assert await files_of(api, optimized) == ["1/model.onnx", "1/weights", "3/model.onnx", "config.pbtxt"]
    assert await api.artifacts.read(current(described).artifact, "3/model.onnx") == onnx_model(7.0)
    assert api.fleet.verified == [("m", 1, "1"), ("m", 2, "3"), ("m", 3, "3")], "version 1 serves on and was not loaded"
    await optimized.use("original")
    assert [each.version for each in (await api.describe("m")).versions if each.state == pb.VERSION_STATE_SERVING] == [
        "1",
        "3",
    ]


async def test_versions_that_do_not_serve_are_not_in_a_variant(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {f"{version}/model.onnx": onnx_model(float(version)) for version in (1, 2, 3)})
    assert await files_of(api, await found(api, onnx_model(7.0))) == ["3/model.onnx"]


@pytest.mark.parametrize("folder", ["", "net.pt2/"], ids=["a file", "a file in a folder of its name"])
async def test_other_versions_of_a_torch_program_serve_on_beside_a_variant_of_the_last(
    api: Any, onnx_model: OnnxModel, folder: str
) -> None:
    config = b'backend: "pytorch" default_model_filename: "net.pt2" version_policy { all {} }'
    programs = {f"{version}/{folder}net.pt2": onnx_model(float(version)) for version in (1, 2)}
    await api.deploy("m", {"config.pbtxt": config, **programs})
    optimized = await found(api, onnx_model(7.0))
    described = await api.describe("m")
    serving = [each for each in described.versions if each.state == pb.VERSION_STATE_SERVING]
    assert (described.variant, [(each.version, each.engine) for each in serving]) == (
        "int8",
        [("1", "torch"), ("2", "onnxruntime")],
    )
    assert await files_of(api, optimized) == ["1/model.pt2", "2/model.onnx", "config.pbtxt"]


async def test_a_variant_has_the_name_that_the_configuration_says(api: Any, onnx_model: OnnxModel) -> None:
    config = b'default_model_filename: "net.v2.onnx"'
    await api.deploy("m", {"config.pbtxt": config, "1/net.v2.onnx": onnx_model(2.0)})
    listed = await (await found(api, onnx_model(3.0))).listed()
    assert [each.name for each in listed.variants if each.serves] == ["int8"]


async def test_a_variant_of_a_torch_program_is_served_by_another_engine(api: Any, onnx_model: OnnxModel) -> None:
    config = b'backend: "pytorch" max_batch_size: 4 default_model_filename: "net.pt2"'
    await api.deploy("m", {"config.pbtxt": config, "1/net.pt2": onnx_model(2.0)})
    optimized = await found(api, onnx_model(3.0))
    assert (await api.describe("m")).variant == "int8"
    served = current(await api.describe("m"))
    assert (served.engine, served.max_batch_size) == ("onnxruntime", 4)
    assert current(await optimized.use("original")).engine == "torch"


async def test_a_variant_of_a_single_file_leaves_its_weights_and_keeps_the_states_it_begins_with(
    api: Any, onnx_model: OnnxModel
) -> None:
    files = {"config.pbtxt": b"max_batch_size: 4", "initial_state/h": b"1234", "weights/w": b"w", "notes": b"n"}
    await api.deploy("m", {"model.onnx": onnx_model(2.0), **files})
    listed = await (await found(api, onnx_model(3.0))).listed()
    artifact = await api.artifacts.find(listed.variants[1].artifact)
    assert [file.path for file in artifact.files] == ["config.pbtxt", "initial_state/h", "model.onnx"]


def served_options(api: Any) -> tuple[str, dict[str, str]]:
    revision = api.catalogue.model("m").current
    return revision.engine, dict(revision.engine_options)


async def test_options_of_the_engine_that_they_were_given_for_come_back_with_it(
    api: Any, onnx_model: OnnxModel
) -> None:
    options = {"device": "cpu", "intra_op_threads": "2"}
    await api.deploy("m", {"model.pt2": onnx_model(2.0)}, engine="torch", engine_options=options)
    before = (await api.describe("m")).spec
    optimized = await found(api, onnx_model(3.0))
    assert served_options(api) == ("onnxruntime", {}), "a variant on another engine starts without them"
    assert (await api.describe("m")).spec == before, "what was asked for is still said"
    await optimized.use("original")
    assert served_options(api) == ("torch", options)


async def test_a_variant_on_the_same_engine_keeps_the_options(api: Any, onnx_model: OnnxModel) -> None:
    await api.deploy("m", {"model.onnx": onnx_model(2.0)}, engine_options={"intra_op_threads": "2"})
    await found(api, onnx_model(3.0))
    assert (await api.describe("m")).variant == "int8"
    assert served_options(api) == ("onnxruntime", {"intra_op_threads": "2"})


async def test_settings_alone_that_are_deployed_while_a_variant_serves_speak_of_the_original(
    api: Any, onnx_model: OnnxModel
) -> None:
    await api.deploy("m", {"model.pt2": onnx_model(2.0)}, engine="torch")
    optimized = await found(api, onnx_model(3.0))
    await api.deploy("m", engine="torch", engine_options={"device": "cpu"}, max_batch_size=4)
    assert (await api.describe("m")).variant == "int8"
    assert served_options(api) == ("onnxruntime", {})
    assert current(await api.describe("m")).max_batch_size == 4
    code, said = await refused(api.deploy("m", engine="onnxruntime"))
    assert (code, said.partition(";")[0]) == (
        Code.INVALID_ARGUMENT,
        "engine: 'onnxruntime' cannot load model 'm' as it was deployed, which is for 'torch'",
    )
    await optimized.use("original")
    assert served_options(api) == ("torch", {"device": "cpu"})


@pytest.fixture
def bucket(onnx_model: OnnxModel) -> Iterator[fsspec.AbstractFileSystem]:
    """Holds b/model.onnx; fsspec's in-memory file system stands in for a bucket."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/b/model.onnx": onnx_model(2.0)})
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture
async def fetched(api_of: Any, bucket: fsspec.AbstractFileSystem) -> Any:
    """The model `m`, which the mesh fetched from the bucket and optimised; a variant serves."""
    api = await api_of(AutoscalerConfig().model_copy(update={"source_schemes": ("memory",)}))
    await api.deploy("m", source="memory://b/model.onnx", engine="onnxruntime")
    return api


async def test_after_going_there_and_back_all_is_said_as_if_it_had_never_been_switched(
    fetched: Any, onnx_model: OnnxModel, bucket: fsspec.AbstractFileSystem
) -> None:
    def shown(model: pb.Model) -> tuple[Any, ...]:
        serving = current(model)
        return model.spec, serving.version, serving.artifact, serving.engine, model.state, model.last_failure

    before = shown(await fetched.describe("m"))
    optimized = await found(fetched, onnx_model(3.0))
    switched = await fetched.describe("m")
    assert (switched.variant, switched.spec, current(switched).version) == ("int8", before[0], "1")
    bucket.store.clear()
    await optimized.use("original")
    assert shown(await fetched.describe("m")) == before, "and nothing was fetched anew"
    [listed] = (await fetched.models.ListModels(pb.ListModelsRequest())).models
    assert shown(listed) == before


async def test_the_same_source_deployed_again_after_a_rollback_loads_nothing_and_a_new_one_is_the_next_version(
    fetched: Any, onnx_model: OnnxModel, bucket: fsspec.AbstractFileSystem
) -> None:
    optimized = await found(fetched, onnx_model(3.0))
    await optimized.use("original")
    loads = len(fetched.fleet.verified)
    await fetched.deploy("m", source="memory://b/model.onnx", engine="onnxruntime")
    assert (len(fetched.fleet.verified), (await fetched.describe("m")).variant) == (loads, "original")
    bucket.pipe({"/b/model.onnx": onnx_model(5.0)})
    deployed = await fetched.deploy("m", source="memory://b/model.onnx", engine="onnxruntime")
    assert current(deployed).version == "2"


async def test_the_same_source_deployed_while_a_variant_serves_puts_the_original_back(
    fetched: Any, onnx_model: OnnxModel
) -> None:
    await found(fetched, onnx_model(3.0))
    deployed = await fetched.deploy("m", source="memory://b/model.onnx", engine="onnxruntime")
    assert (deployed.variant, deployed.spec.source) == ("original", "memory://b/model.onnx")
