"""Under which name what TensorRT-RTX compiled on a GPU is kept: it holds for one GPU, driver, library and plan."""

from __future__ import annotations

import hashlib
import json

from headrace_runner.core.plan_fitness import MachineFacts
from headrace_runner.core.plan_manifest import Manifest


def runtime_cache_name(manifest: Manifest, facts: MachineFacts) -> str:
    """A file's name. The library refuses a cache of another environment by itself; the name keeps two from overwriting
    each other's in turn.
    """
    gpu, build = facts.gpu, manifest.request.build
    told = [manifest.plan_sha256, build.engine, build.version, build.cuda, facts.driver, facts.platform]
    told += [gpu.name, gpu.capability] if gpu is not None else []
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
