"""headrace: a mesh that serves machine-learning models for many tenants.

    from headrace import Client

    with Client() as mesh:
        outputs = mesh.infer("iris", {"x": numpy.zeros((1, 4), numpy.float32)})

Importing this package imports neither grpc nor numpy; the first use of `Client` does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace import errors as errors
    from headrace.client.aio import AsyncClient as AsyncClient
    from headrace.client.blocking import Client as Client
    from headrace.client.inference import Step as Step
    from headrace.client.retry import RetryPolicy as RetryPolicy
    from headrace.client.tensors import Tensor as Tensor

    __version__: str

__all__ = ["AsyncClient", "Client", "RetryPolicy", "Step", "Tensor", "__version__", "errors"]

_HOMES = {
    "AsyncClient": "headrace.client.aio",
    "Client": "headrace.client.blocking",
    "RetryPolicy": "headrace.client.retry",
    "Step": "headrace.client.inference",
    "Tensor": "headrace.client.tensors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "errors":
        return import_module("headrace.errors")
    if name == "__version__":
        return import_module("importlib.metadata").version("headrace")
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
