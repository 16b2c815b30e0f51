"""supervisord's socket commands whatever runs under it: nobody else on the machine may open it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from obcd.host.supervisord.configuration import SOCKET_NAME
from tests.acceptance.test_commands import Up
from tests.integration.test_host import Host
from tests.support import Running, wait_until

pytestmark = pytest.mark.integration

#: An id that no account has.
STRANGER = 54321
#: Becomes a user, then says for each path whether it could be opened; root is 0.
TRY = """
import os, socket, sys
uid, *paths = sys.argv[1:]
if int(uid):
    os.setgroups([]), os.setgid(int(uid)), os.setuid(int(uid))
for path in paths:
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path).close()
        print("open")
    except PermissionError:
        print("denied")
"""

Start = Callable[[], Path]


def open_as(uid: int, *paths: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TRY, str(uid), *map(str, paths)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.split()


@pytest.fixture(params=["up", "host"])
def control(
    request: pytest.FixtureRequest, environment: dict[str, str], runtime: Path, tmp_path: Path, started: list[Running]
) -> Iterator[Path]:
    """Yield the runtime folder of a running `obcd up` and of a running `obcd host`."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    if request.param == "up":
        started.append(Up(environment, tmp_path / "root"))
        (socket,) = runtime.glob(f"obcd-*/{SOCKET_NAME}")
        yield socket.parent
    else:
        host = Host(runtime / "host", 1)
        started.append(host.process)
        wait_until((host.runtime / SOCKET_NAME).exists, what=host.text)
        yield host.runtime
        host.stop()
        host.process.wait()


@pytest.mark.case("F18")
def test_another_user_can_neither_open_the_socket_nor_read_what_it_asks_for(control: Path, runtime: Path) -> None:
    paths = (control / SOCKET_NAME, control / "supervisord.conf")
    assert open_as(0, *paths) == ["open", "open"]
    above = [folder for folder in control.parents if folder.is_relative_to(runtime)]

    for folder in above:
        folder.chmod(0o755)
    assert open_as(STRANGER, *paths) == ["denied", "denied"]  # the folder is 0700

    control.chmod(0o755)
    assert open_as(STRANGER, *paths) == ["denied", "denied"]  # and so are socket and file, if somebody opens it
