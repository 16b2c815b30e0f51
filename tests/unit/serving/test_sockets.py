from __future__ import annotations

import grp
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError, InputError
from obcd.serving.sockets import bind_tcp, bind_unix, url_of


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="obcd-"
    ) as folder:  # short: the path of a unix socket has at most 107 bytes
        yield Path(folder) / "page.sock"


def own_group() -> str:
    return grp.getgrgid(os.getegid()).gr_name


def test_socket_of_a_group_has_mode_0660_and_takes_connections(place: Path) -> None:
    listener, is_shared = bind_unix(place, own_group())

    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        status = place.lstat()
    assert is_shared
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, os.getegid())
    assert os.listdir(place.parent) == ["page.sock"]


def test_socket_without_the_group_is_for_its_user_alone(place: Path) -> None:
    listener, is_shared = bind_unix(place, "no-such-group")

    listener.close()
    assert not is_shared
    assert stat.S_IMODE(place.lstat().st_mode) == 0o600


def test_socket_of_a_server_that_ended_is_replaced(place: Path) -> None:
    bind_unix(place, own_group())[0].close()

    listener, _ = bind_unix(place, own_group())

    with listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_socket_in_use_and_foreign_files_stay(place: Path) -> None:
    listener, _ = bind_unix(place, own_group())
    with listener, pytest.raises(AlreadyRunningError):
        bind_unix(place, own_group())
    place.unlink()
    place.write_text("mine")

    with pytest.raises(InputError):
        bind_unix(place, own_group())
    assert place.read_text() == "mine"


def test_path_that_a_socket_cannot_have_is_refused(place: Path) -> None:
    with pytest.raises(InputError):
        bind_unix(place.parent / ("x" * 104), own_group())
    with pytest.raises(InputError):
        bind_unix(place.parent / "nowhere" / "page.sock", own_group())


def test_tcp_says_its_address_and_refuses_a_taken_port() -> None:
    with bind_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of("127.0.0.1", port) == f"http://127.0.0.1:{port}/"
        assert url_of("::1", port) == f"http://[::1]:{port}/"
        with pytest.raises(AlreadyRunningError):
            bind_tcp("127.0.0.1", port)


@pytest.mark.parametrize("address", ["no such name", "192.0.2.7", "x" * 300, ""])
def test_address_of_another_machine_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        bind_tcp(address, 0)
