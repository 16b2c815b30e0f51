"""Who listens on a port: real sockets of this process, and a made /proc where others' are needed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.errors import ConfigurationError, InputError
from obcd.host.servers import ports
from obcd.host.servers.binding import check_address
from obcd.host.servers.launcher import held_ports
from obcd.host.servers.plan import HostPlan, Server, read_plan
from obcd.host.servers.ports import holder, is_foreign, listeners
from tests.golden.wording import wording

LINE = "   0: 0100007F:2CA8 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0\n"
PORT = 0x2CA8


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


class Proc:
    """A /proc with sockets and processes as a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "net").mkdir()
        (folder / "net" / "tcp").write_text("head\n")

    def socket(self, inode: int, uid: int = 997, state: str = "0A") -> None:
        with (self.folder / "net" / "tcp").open("a") as file:
            file.write(LINE.format(state=state, uid=uid, inode=inode))

    def process(self, pid: int, name: str, *inodes: int) -> None:
        (self.folder / str(pid) / "fd").mkdir(parents=True)
        (self.folder / str(pid) / "comm").write_text(f"{name}\n")
        for number, inode in enumerate(inodes):
            (self.folder / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    monkeypatch.setattr(ports, "PROC", tmp_path)
    monkeypatch.setattr(ports, "slot_of", {813: ("/run/obcd-host", "0"), 814: ("/tmp/rt", "cpu")}.get)
    return Proc(tmp_path)


def test_a_socket_of_ones_own_is_found_and_no_strangers(listening: socket.socket) -> None:
    port = int(listening.getsockname()[1])
    assert [item.uid for item in listeners(port)] == [os.getuid()]
    assert not is_foreign(os.getpid(), port)
    assert is_foreign(os.getppid(), port)
    assert holder(port).startswith(f"process {os.getpid()} (")


def test_a_port_on_which_nobody_listens_is_nobodys(proc: Proc) -> None:
    proc.process(1, "init")
    proc.socket(7, state="01")
    assert (is_foreign(1, PORT), holder(PORT)) == (False, "another process")


@pytest.mark.parametrize(
    ("pid", "words"),
    [(812, "process 812 (ollama)"), (813, wording("process-813-ollama-the-server-gpu0")),
     (814, wording("process-814-ollama-the-server-cpu"))],
)  # fmt: skip
def test_the_holder_is_named_and_what_it_is_to_obcd(proc: Proc, pid: int, words: str) -> None:
    proc.socket(5)
    proc.process(300, "other", 6)
    proc.process(pid, "ollama", 4, 5)
    assert holder(PORT) == words


def test_of_a_holder_that_does_not_show_itself_the_user_is_named(proc: Proc) -> None:
    proc.socket(5, uid=2**31 - 7)
    assert holder(PORT) == wording("a-process-of-user", 2**31 - 7)


def test_a_process_that_cannot_be_looked_at_is_not_called_a_strangers(proc: Proc) -> None:
    proc.socket(5)
    assert not is_foreign(99, PORT)


def plan_of(*numbers: int, bind: str = "127.0.0.1") -> HostPlan:
    servers = tuple(
        Server(label=str(n), pin="", gpu=n, card="", memory_bytes=0, port=port, variables={})
        for n, port in enumerate(numbers)
    )
    return HostPlan(bind=bind, name="", vendor="nvidia", ollama="", parallel=1, servers=servers)


def test_every_held_port_is_told_with_its_holder(
    listening: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obcd.host.servers.launcher.PORT_SECONDS", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        unused = int(free.getsockname()[1])
    held = int(listening.getsockname()[1])
    found = held_ports(plan_of(unused, held), tmp_path)
    assert list(found) == ["gpu1"]
    assert found["gpu1"].startswith(wording("port-meant-for-gpu-1-is", held, os.getpid()))


@pytest.mark.parametrize("bind", ["192.0.2.77", "no-such-host.invalid"])
def test_an_address_that_is_not_this_machines_is_refused(bind: str) -> None:
    with pytest.raises(ConfigurationError, match=wording("bind-is-not-an-address-of", bind)):
        check_address(bind)


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0"])
def test_an_address_of_this_machine_passes(bind: str) -> None:
    check_address(bind)
    assert bind


@pytest.mark.parametrize("bind", ["a..b", ".", 70 * "\u00fc"])
def test_a_name_that_can_be_none_is_refused_in_words(bind: str) -> None:
    with pytest.raises(ConfigurationError, match=wording("is-not-an-address-of-this")):
        check_address(bind)


@pytest.mark.parametrize("content", ["null", "[]", 100000 * "[", '{"servers": []}', '{"servers": null}'])
def test_a_plan_that_is_none_is_refused_in_words(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(InputError, match=wording("cannot-be-read")):
        read_plan(tmp_path)
