"""Which call a REST path means."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Route:
    """A path that exists.

    Attributes:
        call: what it asks for.
        method: the only one it takes.
        version: "" where the path names none.
    """

    call: str
    method: str
    model: str = ""
    version: str = ""


_OF_MODEL = {"ready": "GET", "config": "GET", "stats": "GET", "infer": "POST"}
_PLAIN = {
    "/v2": Route("server", "GET"),
    "/v2/health/live": Route("live", "GET"),
    "/v2/health/ready": Route("server_ready", "GET"),
    # Shadows the metadata of a model that is called "stats", as in Triton.
    "/v2/models/stats": Route("stats", "GET"),
    "/v2/repository/index": Route("index", "POST"),
}


@lru_cache(maxsize=4096)
def find_route(path: str) -> Route | None:
    """None where there is no such path. A "/" at the end is nothing."""
    path = path.rstrip("/")
    return _PLAIN.get(path) or _of_model(path.split("/")[1:])


def _of_model(parts: list[str]) -> Route | None:
    match parts:
        case ["v2", "models", model, *rest] if model:
            return _version_and_call(model, rest)
        case ["v2", "repository", "models", model, "load" | "unload" as call] if model:
            return Route(call, "POST", model)
    return None


def _version_and_call(model: str, parts: list[str]) -> Route | None:
    version = ""
    if len(parts) >= 2 and parts[0] == "versions" and parts[1]:
        version, parts = parts[1], parts[2:]
    match parts:
        case []:
            return Route("metadata", "GET", model, version)
        case [call] if call in _OF_MODEL:
            return Route(call, _OF_MODEL[call], model, version)
    return None
