"""Domain types to JSON documents and back.

Fields that a document lacks take the domain's defaults; fields that the domain no longer has are ignored.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter

from headrace_autoscaler.core.jobs import Job
from headrace_autoscaler.core.promises import Promise
from headrace_autoscaler.domain import ModelSpec, Revision, Tenant

T = TypeVar("T")

# bytes fields (warm-up tensors, a serialised configuration) are base64 in JSON; infinity is a word, as in Python.
CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants", extra="ignore")


class Document(Generic[T]):
    """JSON text of one domain type."""

    def __init__(self, adapter: TypeAdapter[tuple[T]]) -> None:
        self._adapter = adapter

    def dump(self, value: T) -> str:
        return self._adapter.dump_json((value,)).decode()

    def load(self, text: str) -> T:
        return self._adapter.validate_json(text)[0]


# A dataclass takes no configuration directly, but inherits that of what holds it: hence the tuples.
SPEC: Document[ModelSpec] = Document(TypeAdapter(tuple[ModelSpec], config=CONFIG))
REVISION: Document[Revision] = Document(TypeAdapter(tuple[Revision], config=CONFIG))
TENANT: Document[Tenant] = Document(TypeAdapter(tuple[Tenant], config=CONFIG))
PROMISE: Document[Promise] = Document(TypeAdapter(tuple[Promise], config=CONFIG))
JOB: Document[Job] = Document(TypeAdapter(tuple[Job], config=CONFIG))
