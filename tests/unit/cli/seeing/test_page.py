from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from obcd.cli.seeing.page import page
from obcd.errors import UsageError
from obcd.host.supervisord.up_programs import page_port, page_program
from obcd.serving.server import need_web
from tests.support import SOURCES, wait_until
from tests.unit.page.made import make_view, place


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(
        prefix="obcd-"
    ) as folder:  # short: the path of a unix socket has at most 107 bytes
        yield Path(folder) / "root"


def ask(listener: Path, host: str = "localhost") -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(listener))
        client.sendall(f"GET /state.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_page_listens_on_a_closed_socket_and_not_on_tcp_and_ends_in_order(root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES), "XDG_RUNTIME_DIR": str(root.parent)}
    listener = root.parent / "page.sock"
    command = [sys.executable, "-m", "obcd", "page", "--root", str(root), "--socket", str(listener)]
    os.environ["XDG_RUNTIME_DIR"], before = str(root.parent), os.environ.get("XDG_RUNTIME_DIR")
    try:
        place(root, make_view(1, 2), lines=0)
    finally:
        os.environ.pop("XDG_RUNTIME_DIR") if before is None else os.environ.update(XDG_RUNTIME_DIR=before)

    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(listener.exists, timeout=60, what="the page listens")
        mode = stat.S_IMODE(listener.lstat().st_mode)
        answered, refused = ask(listener), ask(listener, "evil.example")
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]

    assert process.returncode == 0
    assert answered.startswith(b"HTTP/1.1 200")
    assert b"clinical-visits" in answered
    assert refused.startswith(b"HTTP/1.1 421")
    assert mode in {0o600, 0o660}
    assert not listener.exists()
    assert re.findall(r"http://\S+", said) == []


def test_page_without_its_packages_says_what_to_install() -> None:
    with pytest.raises(UsageError, match=re.escape("obcd[web]")):
        need_web("no_such_package")


def test_address_without_a_port_is_refused() -> None:
    result = CliRunner().invoke(page, ["--bind", "0.0.0.0"])

    assert isinstance(result.exception, UsageError)


def test_program_of_the_page_stops_before_the_coordinator() -> None:
    program = page_program(Path("/etc/obcd.toml"), Path("/srv/obcd"), 8620)

    assert program.command[3:] == ("page", "--config", "/etc/obcd.toml", "--root", "/srv/obcd", "--port", "8620")
    assert program.priority > 200


def test_usual_port_in_use_gives_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        port = page_port(number)

    assert port != number
    assert page_port(number) == number
