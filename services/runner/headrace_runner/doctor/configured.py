"""What a configuration asks of this machine that it cannot give."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from headrace_common.config import MeshConfig
from headrace_common.control_groups import why_not_divisible
from headrace_common.embedding import check_embeddable
from headrace_common.errors import FailedPrecondition
from headrace_runner.core.diagnosis import Finding, Problem, pip

PACKAGES = {
    "redis": ("redis", "cached answers in Redis (router.cache_url)"),
    "psycopg": ("postgres", "the mesh's state in PostgreSQL (autoscaler.database_url)"),
    "s3fs": ("remote", "models from s3:// (autoscaler.source_schemes)"),
    "gcsfs": ("remote", "models from gs://"),
    "aiohttp": ("remote", "models from https://"),
    "cuda-bindings": ("tensorrt-rtx", "executing TensorRT plans"),
    "nvidia-ml-py": (
        "tensorrt-rtx",
        "GPUs and the memory that runners hold of them (else nvidia-smi, without the latter)",
    ),
}
"""Optional packages: headrace's extra, and what each is for."""
_SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp"}


def mesh_problems(mesh: MeshConfig, envoy: Finding) -> list[Problem]:
    """What would keep a mesh of this configuration from working here."""
    return [*_embedding(envoy), *_packages(mesh), *_places(mesh)]


def _embedding(envoy: Finding) -> Iterator[Problem]:
    if not envoy.installed or envoy.error:
        yield Problem(f"pyvoy, which puts the router into Envoy: {envoy.error or 'not installed'}", "pip install pyvoy")
        return
    try:
        check_embeddable(envoy.facts["environment"])
    except FailedPrecondition as error:
        what, _, remedy = error.message.partition(": ")
        yield Problem(what, remedy)


def _packages(mesh: MeshConfig) -> Iterator[Problem]:
    wanted = {}
    if mesh.router.cache_url:
        wanted["redis"] = "router.cache_url"
    if mesh.autoscaler.database_url.startswith("postgres"):
        wanted["psycopg"] = "autoscaler.database_url"
    for scheme in mesh.autoscaler.source_schemes:
        wanted[_SCHEMES[scheme]] = f"autoscaler.source_schemes ({scheme})"
    for package, key in wanted.items():
        if find_spec(package) is None:
            yield Problem(f"{key} needs the package {package}, which is not installed", pip(PACKAGES[package][0]))


def _places(mesh: MeshConfig) -> Iterator[Problem]:
    memory, catalog, group = mesh.router.shared_memory_dir, mesh.autoscaler.catalog, mesh.autoscaler.cgroup
    if mesh.router.shared_memory_bytes and not os.access(memory, os.W_OK | os.X_OK):
        yield Problem(f"router.shared_memory_dir: {memory} is no directory that can be written", "name one that is")
    if catalog and not os.access(catalog, os.R_OK):
        yield Problem(f"autoscaler.catalog: {catalog} cannot be read", "name a file of shapes and rates")
    if group.startswith("/"):
        try:
            reason = why_not_divisible(Path(group))
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}"
        if reason:
            what, _, remedy = reason.partition("; ")
            yield Problem(f"autoscaler.cgroup: {what}", remedy or "name a group of its own, or off")
