"""TensorRT's builder: an ONNX file in, plans out. The only module here that calls the library.

API references are to https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace_common.errors import FailedPrecondition, InvalidArgument
from headrace_common.gpu_facts import target_name
from headrace_runner.compile.atomic import write_atomically
from headrace_runner.compile.errors import BuildFailed, ParseFailed
from headrace_runner.core.plan_manifest import PlanTensor
from headrace_runner.core.shape_ranges import Profile
from headrace_runner.engines import trt_library

_DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "BOOL": "BOOL",
}
"""tensorrt.DataType to Open Inference names; the others (FP8, INT4, FP4) have none."""
Log = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what the network that it was built from takes and gives."""

    plan: memoryview
    inputs: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]


class PlanBuilder:
    """A parsed model, from which a plan is built for one target after another.

    Args:
        trt: the library, by `trt_library.load`.
        log: takes severity and text of what the library says.

    Raises:
        ParseFailed
    """

    def __init__(self, engine: str, trt: Any, model: Path, log: Log) -> None:
        self._engine = engine
        self._trt = trt
        self._said: list[str] = []
        self._log = log
        self._logger = trt_library.make_logger(trt, self._hear)
        self._builder = trt.Builder(self._logger)
        # Strongly typed: the plan keeps the types of the model (INetworkDefinition, "Strongly Typed Networks").
        flags = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        self._network = self._builder.create_network(0 if flags is None else 1 << int(flags))
        self._parser = trt.OnnxParser(self._network, self._logger)
        # By file, so that external data is found beside it.
        if not self._parser.parse_from_file(str(model)):
            errors = [str(self._parser.get_error(index)) for index in range(self._parser.num_errors)]
            raise ParseFailed("\n".join(errors or self._said) or "the parser gives no reason")

    def build(self, target: int, profile: Profile, timing_cache: Path | None = None) -> Built:
        """Builds for one target.

        Args:
            target: compute capability.
            profile: of every input of the network.
            timing_cache: for `tensorrt`: read if it is there, and written.

        Raises:
            InvalidArgument: this library does not build for that GPU, or the profile is not for this network.
            BuildFailed: it tried and could not.
        """
        self._said.clear()
        config = self._builder.create_builder_config()
        self._set_target(config, target)
        self._set_profile(config, profile)
        cache = self._set_timing_cache(config, timing_cache)
        plan = self._builder.build_serialized_network(self._network, config)
        if plan is None:
            raise BuildFailed("\n".join(dict.fromkeys(self._said)) or "the builder gives no reason")
        if cache is not None and timing_cache is not None:
            write_atomically(timing_cache, bytes(cache.serialize()))
        network = self._network
        return Built(
            memoryview(plan),
            tuple(self._describe(network.get_input(index)) for index in range(network.num_inputs)),
            tuple(self._describe(network.get_output(index)) for index in range(network.num_outputs)),
        )

    def _hear(self, severity: str, text: str) -> None:
        self._log(severity, text)
        if severity in trt_library.ERRORS:
            self._said.append(text)

    def _set_target(self, config: Any, target: int) -> None:
        if self._engine == trt_library.TENSORRT:
            # It times kernels on the GPU that is there, which `check_builds_here` has found to be the target. The plan
            # may then run on every GPU of that capability.
            config.hardware_compatibility_level = self._trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY
            return
        offered = rtx_targets(self._trt)
        if target not in offered:
            names = ", ".join(target_name(each) for each in offered)
            raise InvalidArgument(
                f"{self._engine} does not build for {target_name(target)}; it builds for: {names}. Data-centre GPUs "
                "are for --engine tensorrt, on a machine with one"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(self._trt.ComputeCapability, f"SM{target}"), 0)

    def _set_profile(self, config: Any, profile: Profile) -> None:
        varying = self._builder.create_optimization_profile()
        any_varies = False
        for index in range(self._network.num_inputs):
            tensor = self._network.get_input(index)
            if tensor.is_shape_tensor:
                raise InvalidArgument(
                    f"input {tensor.name!r} holds the sizes of other tensors (a shape tensor), which is not supported: "
                    "export the model with these sizes as constants or as dimensions"
                )
            shapes = profile.get(tensor.name)
            if shapes is None:
                raise InvalidArgument(f"input {tensor.name!r} of the parsed network is not in the profile")
            if -1 in tuple(tensor.shape):
                varying.set_shape(tensor.name, shapes.smallest, shapes.optimal, shapes.largest)
                any_varies = True
        if any_varies and config.add_optimization_profile(varying) < 0:
            raise BuildFailed("\n".join(dict.fromkeys(self._said)))

    def _set_timing_cache(self, config: Any, path: Path | None) -> Any:
        # TensorRT-RTX times nothing when it builds; a cache has no effect there and makes it ask for a GPU.
        if self._engine != trt_library.TENSORRT or path is None:
            return None
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        # Not to ignore a mismatch: times of another GPU are no times of this one.
        if cache is None or not config.set_timing_cache(cache, False):
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        return cache

    def _describe(self, tensor: Any) -> PlanTensor:
        datatype = _DATATYPES.get(tensor.dtype.name)
        if datatype is None:
            raise InvalidArgument(f"{tensor.name!r} is {tensor.dtype.name}, which the protocol cannot carry")
        return PlanTensor(tensor.name, datatype, tuple(tensor.shape))


def rtx_targets(trt: Any) -> tuple[int, ...]:
    """The compute capabilities that TensorRT-RTX builds for."""
    names = (name.removeprefix("SM") for name in trt.ComputeCapability.__members__)
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def check_builds_here(engine: str, targets: tuple[int, ...], capability: int | None) -> None:
    """`tensorrt` builds only for the GPU that it builds on.

    Args:
        capability: of this machine's GPU; None: there is none.

    Raises:
        FailedPrecondition: with what builds elsewhere.
    """
    others = [target_name(target) for target in targets if target != capability]
    if engine != trt_library.TENSORRT or not others:
        return
    here = "this machine has no GPU" if capability is None else f"this machine's is {target_name(capability)}"
    raise FailedPrecondition(
        f"tensorrt builds only for the GPU of the machine that it runs on, and {here}: run this for "
        f"{', '.join(others)} where there is one, or use --engine tensorrt-rtx, which builds without a GPU"
    )
