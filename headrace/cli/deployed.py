"""What `deploy` and `apply` check before they send a model, and say afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.v1 import models_pb2


def check_source(source: str, name: str) -> None:
    """Finds out before anything is sent whether there is something to send."""
    from headrace.client.artifact import artifact_files, is_url

    if not is_url(source):
        artifact_files(Path(source), name)


def print_deployed(model: models_pb2.Model) -> None:
    from headrace.cli.views import state_word

    version = "".join(f" version {version.version}" for version in model.versions[-1:])
    reason = f": {' '.join(model.reason.split())}" if model.reason else ""
    print(f"deployed {model.name}{version} for tenant {model.tenant}: {state_word(model.state)}{reason}")


def is_blocked(model: models_pb2.Model) -> bool:
    from headrace.v1 import models_pb2

    return model.state == models_pb2.MODEL_STATE_BLOCKED
