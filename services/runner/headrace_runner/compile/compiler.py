"""Plans for one model and several targets: from the cache, or built."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace_common.gpu_facts import target_name
from headrace_runner.compile.errors import BuildFailed
from headrace_runner.compile.plan_files import Plan, PlanCache, write_plan
from headrace_runner.compile.source import Source
from headrace_runner.core.plan_manifest import EngineBuild, Manifest, PlanRequest
from headrace_runner.core.shape_ranges import Profile
from headrace_runner.engines import trt_library

if TYPE_CHECKING:
    from headrace_runner.compile.builder import Built, PlanBuilder

Log = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of one target.

    Attributes:
        cached: it was built before.
        error: why there is no plan, in TensorRT's words, a line for each thing it said; "": there is one.
    """

    target: int
    path: Path | None = None
    manifest: Manifest | None = None
    cached: bool = False
    error: str = ""


class Compiler:
    """Compiles one model.

    Args:
        cache: None: everything is built, and nothing kept.
        log: takes severity and text of what the library says.
    """

    def __init__(self, build: EngineBuild, source: Source, name: str, cache: PlanCache | None, log: Log) -> None:
        self._build = build
        self._source = source
        self._name = name
        self._cache = cache
        self._log = log
        self._builder: PlanBuilder | None = None

    def compile(self, targets: Sequence[int], profile: Profile, out: Path) -> Iterator[Compiled]:
        """Yields as each target is done; one that fails does not keep the others from being built.

        Raises:
            InvalidArgument: a target, an input or the profile cannot be had of this library.
            FailedPrecondition: the library cannot be loaded, or needs another machine.
            ParseFailed
            OSError: a file cannot be written.
        """
        requests = [self._request(target, profile) for target in targets]
        found = [self._cache.find(request) if self._cache else None for request in requests]
        missing = tuple(request.target for request, hit in zip(requests, found, strict=True) if hit is None)
        self._check_targets(missing)
        for request, hit in zip(requests, found, strict=True):
            if hit is None:
                yield self._build_one(request, out)
            else:
                yield Compiled(request.target, write_plan(hit, out), hit.manifest, cached=True)

    def _request(self, target: int, profile: Profile) -> PlanRequest:
        source = self._source
        return PlanRequest(self._name, source.sha256, self._build, target, source.graph.precision, profile)

    def _check_targets(self, targets: tuple[int, ...]) -> None:
        if targets and self._build.engine == trt_library.TENSORRT:
            from headrace_common.gpus import find_gpus, own_gpu
            from headrace_runner.compile.builder import check_builds_here

            gpu = own_gpu(find_gpus())
            check_builds_here(self._build.engine, targets, gpu.capability if gpu is not None else None)

    def _build_one(self, request: PlanRequest, out: Path) -> Compiled:
        start = time.monotonic()
        try:
            built = self._parsed().build(request.target, request.profile, self._timing_cache(request))
        except BuildFailed as error:
            return Compiled(request.target, error=str(error))
        plan = Plan(_manifest(request, built, time.monotonic() - start), built.plan)
        if self._cache is not None:
            plan = self._cache.store(plan)
        return Compiled(request.target, write_plan(plan, out), plan.manifest)

    def _parsed(self) -> PlanBuilder:
        """Once for all targets, and only where something must be built."""
        if self._builder is None:
            # Here, because what is in the cache needs none of it.
            from headrace_runner.compile.builder import PlanBuilder

            engine = self._build.engine
            self._builder = PlanBuilder(engine, trt_library.load(engine), self._source.path, self._log)
        return self._builder

    def _timing_cache(self, request: PlanRequest) -> Path | None:
        if self._cache is None:
            return None
        return self._cache.timing_path(f"{request.build.engine}-{request.build.version}-{target_name(request.target)}")


def _manifest(request: PlanRequest, built: Built, build_s: float) -> Manifest:
    digest = hashlib.sha256(built.plan).hexdigest()
    return Manifest(request, built.inputs, built.outputs, digest, built.plan.nbytes, build_s)
