import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.mesh.listening import ListenAddress, check_free, hold_port, parse_listen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("localhost:0", "http://127.0.0.1:0"),
        ("[::1]:80", "http://[::1]:80"),
        ("127.1.2.3:65535", "http://127.1.2.3:65535"),
    ],
)
def test_loopback_addresses(text: str, shown: str) -> None:
    assert parse_listen(text, "--listen").url == shown


@pytest.mark.parametrize("text", ["8080", ":8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", "127.0.0.1:-1", ""])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--listen: expected HOST:PORT"):
        parse_listen(text, "--listen")


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:8080", "192.168.0.1:80", "example.org:80"])
def test_anything_but_loopback_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not loopback, and the mesh has no credentials"):
        parse_listen(text, "--listen")


@pytest.fixture(params=[False, True], ids=["plain", "sharing its port"])
def taken(request: pytest.FixtureRequest) -> Iterator[ListenAddress]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(request.param))
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield ListenAddress("127.0.0.1", listener.getsockname()[1])


def test_a_port_in_use_is_found_even_where_it_is_shared(taken: ListenAddress) -> None:
    with pytest.raises(FailedPrecondition, match=f"port {taken.port} of 127.0.0.1 is in use"):
        hold_port(taken, "--listen")


def test_a_held_port_takes_routers_and_no_connections() -> None:
    with closing(hold_port(ListenAddress("127.0.0.1", 0), "--listen")) as held:
        assert held.address.port > 0
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", held.address.port)) != 0
        with socket.socket() as router:
            router.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            router.bind(("127.0.0.1", held.address.port))
            router.listen()
            with socket.create_connection(("127.0.0.1", held.address.port), timeout=5):
                connection, _ = router.accept()
                connection.close()


def test_a_port_held_by_another_mesh_is_in_use() -> None:
    with (
        closing(hold_port(ListenAddress("127.0.0.1", 0), "--listen")) as held,
        pytest.raises(FailedPrecondition, match="is in use"),
    ):
        check_free(held.address, "--listen")


def test_a_port_that_was_just_closed_is_free() -> None:
    with closing(hold_port(ListenAddress("127.0.0.1", 0), "--listen")) as held:
        address = held.address
    check_free(address, "--listen")
