"""What is done to a model before it is deployed, where it still is a torch module. Needs `headrace[torch]`.

Importing this package imports no torch; the first use of what it offers does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.models.exporting import Exported as Exported
    from headrace.models.exporting import export as export
    from headrace.models.pruning import Change as Change
    from headrace.models.pruning import Layer as Layer
    from headrace.models.pruning import Pruned as Pruned
    from headrace.models.pruning import prune as prune

__all__ = ["Change", "Exported", "Layer", "Pruned", "export", "prune"]

_HOMES = {
    "Change": "headrace.models.pruning",
    "Exported": "headrace.models.exporting",
    "Layer": "headrace.models.pruning",
    "Pruned": "headrace.models.pruning",
    "export": "headrace.models.exporting",
    "prune": "headrace.models.pruning",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headrace.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
