from __future__ import annotations

import pytest

from headrace_common.errors import InvalidArgument, Unauthenticated
from headrace_common.identity import DEFAULT_TENANT, may_call, tenant_name, tenant_of


def test_without_a_header_the_caller_is_the_default_tenant() -> None:
    assert tenant_of(None) == DEFAULT_TENANT


@pytest.mark.parametrize("name", ["acme", "a", "team-1.eu_west", "A" * 64])
def test_a_name_is_taken_at_its_word(name: str) -> None:
    assert tenant_of(name) == name
    assert tenant_name(name, "--tenant") == name


@pytest.mark.parametrize("claimed", ["", " ", "-a", "a-", "a b", "a/b", "A" * 65, "ä", "operator", "a\n"])
def test_what_is_no_name_is_refused(claimed: str) -> None:
    with pytest.raises(Unauthenticated, match="x-headrace-tenant"):
        tenant_of(claimed)
    with pytest.raises(InvalidArgument, match=r"^--tenant: .* does not name a tenant"):
        tenant_name(claimed, "--tenant")


@pytest.mark.parametrize(
    ("caller", "owner", "shared_with", "allowed"),
    [
        pytest.param("acme", "acme", (), True, id="one's own"),
        pytest.param("acme", "default", (), True, id="default's are open"),
        pytest.param("acme", "default", ("corp",), False, id="unless shared with somebody else"),
        pytest.param("acme", "corp", (), False, id="another tenant's"),
        pytest.param("default", "corp", (), False, id="default has no special rights"),
        pytest.param("acme", "corp", ("acme",), True, id="shared by name"),
        pytest.param("acme", "corp", ("*",), True, id="shared with everybody"),
    ],
)
def test_who_may_call(caller: str, owner: str, shared_with: tuple[str, ...], allowed: bool) -> None:
    assert may_call(caller, owner, shared_with) is allowed
