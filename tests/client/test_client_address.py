import pytest

from headrace.client.address import is_loopback, parse_address
from headrace.errors import InvalidArgument


@pytest.mark.parametrize(
    ("url", "target", "tls"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", False),
        ("http://127.0.0.1:8080/", "127.0.0.1:8080", False),
        ("https://mesh.example", "mesh.example:443", True),
        ("http://[::1]:81", "[::1]:81", False),
        ("unix:/run/x.sock", "unix:/run/x.sock", False),
    ],
)
def test_urls(url: str, target: str, tls: bool) -> None:
    address = parse_address(url)
    assert (address.url, address.target, address.tls) == (url, target, tls)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "http://", "http://h:99999", "http://h/v2", "http://h?x=1"]
)
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(InvalidArgument, match="expected http://HOST:PORT"):
        parse_address(url)


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADRACE_URL", raising=False)
    assert parse_address(None).target == "127.0.0.1:8080"
    monkeypatch.setenv("HEADRACE_URL", "http://127.0.0.1:1")
    assert parse_address(None).target == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("h", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
