"""What is known of a compiled plan: the manifest that lies beside it, and the key under which it is cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace_common.errors import InvalidArgument
from headrace_common.gpu_facts import target_name
from headrace_runner.core.shape_ranges import Profile, ShapeRange

SCHEMA = 1
"""Of the manifest. A change that an older runner would misread gets the next number."""
MINIMUM_DRIVER = {12: 535, 13: 580}
"""Branch of NVIDIA's Linux driver that TensorRT needs, by the major version of CUDA it was built with
(https://docs.nvidia.com/deeplearning/tensorrt/latest/installing-tensorrt/prerequisites.html)."""


@dataclass(frozen=True, slots=True)
class EngineBuild:
    """Which library compiles.

    Attributes:
        engine: "tensorrt" or "tensorrt-rtx".
        version: of the library, whole: plans are bound to it.
        cuda: major version that the library was built with.
        platform: "linux-x86_64".
    """

    engine: str
    version: str
    cuda: int
    platform: str


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """An input or output of a plan. Datatype is the Open Inference name; -1 in the shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """All that a plan depends on.

    Attributes:
        model: its name, for file names and messages; no part of the key.
        model_sha256: of its files.
        target: compute capability of the GPU.
        precision: of the model's weights, which the plan keeps: networks are strongly typed.
    """

    model: str
    model_sha256: str
    build: EngineBuild
    target: int
    precision: str
    profile: Profile

    @property
    def key(self) -> str:
        """Of the cache: equal for equal plans, 64 hexadecimal digits."""
        told = [SCHEMA, self.model_sha256, _plain_build(self.build), self.target, self.precision]
        text = json.dumps([*told, _plain_profile(self.profile)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def file_name(self) -> str:
        return f"{self.model}.{target_name(self.target)}.plan"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Beside a plan, in a file with the plan's name and ".json".

    Attributes:
        plan_sha256, plan_bytes: of the plan's file, which is not loaded if it is another.
        build_s: what building took.
    """

    request: PlanRequest
    inputs: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    plan_sha256: str
    plan_bytes: int
    build_s: float

    @property
    def minimum_driver(self) -> int:
        return MINIMUM_DRIVER.get(self.request.build.cuda, max(MINIMUM_DRIVER.values()))

    def to_json(self) -> str:
        return json.dumps(self.plain(), indent=2) + "\n"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        request = self.request
        return {
            "schema": SCHEMA,
            "key": request.key,
            "model": {"name": request.model, "sha256": request.model_sha256},
            "plan": {"file": request.file_name, "sha256": self.plan_sha256, "bytes": self.plan_bytes},
            **_plain_build(request.build),
            "minimum_driver": self.minimum_driver,
            "target": target_name(request.target),
            "precision": request.precision,
            "profile": _plain_profile(request.profile),
            "inputs": [_plain_tensor(tensor) for tensor in self.inputs],
            "outputs": [_plain_tensor(tensor) for tensor in self.outputs],
            "build_s": round(self.build_s, 3),
        }


def read_manifest(text: str | bytes, what: str) -> Manifest:
    """A manifest from its JSON.

    Args:
        what: the file's name, for messages.

    Raises:
        InvalidArgument: it is not one, or its parts do not belong together.
    """
    try:
        plain = json.loads(text)
        if plain["schema"] != SCHEMA:
            raise InvalidArgument(
                f"{what}: its schema is {plain['schema']!r}, and this headrace reads {SCHEMA}; compile it again"
            )
        manifest = _from_plain(plain)
        complete = plain["key"] == manifest.request.key and plain["plan"]["file"] == manifest.request.file_name
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidArgument(
            f"{what}: it is not the manifest of a plan ({type(error).__name__}: {error}); compile it again"
        ) from None
    if not complete:
        raise InvalidArgument(f"{what}: its parts do not belong together: it was changed by hand; compile it again")
    return manifest


def _from_plain(plain: Mapping[str, Any]) -> Manifest:
    target = str(plain["target"])
    request = PlanRequest(
        model=str(plain["model"]["name"]),
        model_sha256=str(plain["model"]["sha256"]),
        build=EngineBuild(str(plain["engine"]), str(plain["version"]), int(plain["cuda"]), str(plain["platform"])),
        target=int(target.removeprefix("sm_")),
        precision=str(plain["precision"]),
        profile={
            name: ShapeRange(*(tuple(map(int, shapes[edge])) for edge in ("min", "opt", "max")))
            for name, shapes in plain["profile"].items()
        },
    )
    return Manifest(
        request,
        tuple(_tensor(each) for each in plain["inputs"]),
        tuple(_tensor(each) for each in plain["outputs"]),
        str(plain["plan"]["sha256"]),
        int(plain["plan"]["bytes"]),
        float(plain["build_s"]),
    )


def _tensor(plain: Mapping[str, Any]) -> PlanTensor:
    return PlanTensor(str(plain["name"]), str(plain["datatype"]), tuple(map(int, plain["shape"])))


def _plain_tensor(tensor: PlanTensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _plain_build(build: EngineBuild) -> dict[str, Any]:
    return {"engine": build.engine, "version": build.version, "cuda": build.cuda, "platform": build.platform}


def _plain_profile(profile: Profile) -> dict[str, Any]:
    return {
        name: {"min": list(shapes.smallest), "opt": list(shapes.optimal), "max": list(shapes.largest)}
        for name, shapes in profile.items()
    }
