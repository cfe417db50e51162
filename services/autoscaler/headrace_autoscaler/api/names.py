"""Names of models and tenants, refused with a sentence; the rules in the protos would answer with a pattern."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.message import Message

from headrace.v1 import models_pb2, tenants_pb2
from headrace_common.errors import InvalidArgument

_MODEL_CHARACTERS = 128
_TENANT_CHARACTERS = 64
_SHOWN = 160
"""Of a wrong name."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


def check_names(request: Message) -> None:
    """Raises InvalidArgument for a model or tenant that is deployed or set under an impossible name."""
    for what, name, longest in _names(request):
        if len(name) > longest or not _NAME.fullmatch(name):
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
            raise InvalidArgument(
                f"{what} {shown!r}: expected 1 to {longest} letters, digits, '.', '_' or '-' that begin and end with "
                "a letter or digit"
            )


def _names(request: Message) -> Iterator[tuple[str, str, int]]:
    """What it is the name of, the name, and how long it may be."""
    if isinstance(request, models_pb2.DeployModelRequest):
        yield "model name", request.model.name, _MODEL_CHARACTERS
        if request.model.tenant:
            yield "tenant name", request.model.tenant, _TENANT_CHARACTERS
    elif isinstance(request, tenants_pb2.SetTenantRequest):
        yield "tenant name", request.tenant.name, _TENANT_CHARACTERS
