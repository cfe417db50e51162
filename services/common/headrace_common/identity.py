"""Who is calling. The only place that decides it, for every service and both protocols.

There are no credentials yet: the mesh binds to loopback and takes the caller's word. When there are,
this is what changes.
"""

from __future__ import annotations

import re

from headrace_common.errors import InvalidArgument, Unauthenticated

TENANT_KEY = "x-headrace-tenant"
DEFAULT_TENANT = "default"
OPERATOR = "operator"
"""Owns what serves nobody in particular, such as the standby pool."""

_FORM = "expected 1 to 64 letters, digits, '.', '_' or '-' that begin and end with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


def tenant_of(claimed: str | None) -> str:
    """The tenant that a request is from, given its `x-headrace-tenant` (None: it sent none).

    Raises:
        Unauthenticated: the header does not hold a tenant's name.
    """
    if claimed is None:
        return DEFAULT_TENANT
    if not _may_be_claimed(claimed):
        raise Unauthenticated(f"{TENANT_KEY} does not name a tenant: {_FORM}; leave it out to be the tenant 'default'")
    return claimed


def tenant_name(text: str, what: str) -> str:
    """`text`, once it is known that `tenant_of` takes it; `what` is where it was given, for the error.

    Raises:
        InvalidArgument: it is no name that a caller can have.
    """
    if not isinstance(text, str) or not _may_be_claimed(text):
        why = "that is the mesh's own" if text == OPERATOR else _FORM
        raise InvalidArgument(f"{what}: {text!r} does not name a tenant: {why}")
    return text


def _may_be_claimed(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name != OPERATOR


def may_call(caller: str, owner: str, shared_with: tuple[str, ...]) -> bool:
    """Whether `caller` may infer with a model of `owner`.

    What the tenant "default" owns is open to everybody unless it is shared with somebody in
    particular: whoever names no tenant has asked for no walls.
    """
    if caller == owner or "*" in shared_with or caller in shared_with:
        return True
    return owner == DEFAULT_TENANT and not shared_with
