from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from obcd.spool.folders.mounts import Mount, describe_inbox, doubt_root, read_mount
from tests.golden.wording import wording

PLACE = Path("/srv/spool\x1b")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the kernel's table of mounts has to be put, see proc(5)."""
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path / "self" / "mounts"


def test_mount_of_a_path_is_the_deepest_and_latest_above_it(table: Path) -> None:
    table.write_text(
        "/dev/vda / ext4 rw,relatime 0 0\n"
        "server:/answers /srv/answers nfs4 rw,vers=4.2 0 0\n"
        "host:/ /srv/with\\040space fuse.sshfs rw 0 0\n"
        "/dev/vdb /srv/two ext4 rw 0 0\n"
        "none /srv/two tmpfs rw 0 0\n"
        "broken\n"
    )

    kinds = {
        path: read_mount(Path(path))
        for path in ("/srv/answers", "/srv/answers/a/b", "/srv/answersheet", "/srv/with space/x", "/srv/two/x", "/")
    }

    assert kinds == {
        "/srv/answers": Mount("/srv/answers", "nfs4"),
        "/srv/answers/a/b": Mount("/srv/answers", "nfs4"),
        "/srv/answersheet": Mount("/", "ext4"),
        "/srv/with space/x": Mount("/srv/with space", "fuse.sshfs"),
        "/srv/two/x": Mount("/srv/two", "tmpfs"),
        "/": Mount("/", "ext4"),
    }


def test_mount_is_not_known_without_the_systems_table(table: Path, tmp_path: Path) -> None:
    assert read_mount(tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_mounts_are_those_of_this_machine() -> None:
    assert read_mount(Path("/proc/self")) == Mount("/proc", "proc")


@pytest.mark.parametrize(
    ("kind", "is_network", "is_doubtful"),
    [
        ("nfs", True, False),
        ("cifs", True, False),
        ("smb3", True, False),
        ("9p", True, False),
        ("fuse.sshfs", True, False),
        ("fuse.mergerfs", False, True),
        ("virtiofs", False, True),
        ("ext4", False, False),
        ("fuseblk", False, False),
        ("overlay", False, False),
    ],
)
def test_kind_of_filesystem_tells_who_serves_it(kind: str, is_network: bool, is_doubtful: bool) -> None:
    mount = Mount("/", kind)

    assert (mount.is_network, mount.is_doubtful) == (is_network, is_doubtful)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("nfs4", wording("a-network-filesystem-its-locks-and")),
        ("virtiofs", wording("if-another-machine-serves-it")),
        ("xfs", ""),
    ],
)
def test_root_is_doubted_by_its_filesystem(kind: str, part: str) -> None:
    doubt = doubt_root(PLACE, Mount("/srv", kind))

    assert bool(doubt) is bool(part)
    assert part in doubt
    assert "\x1b" not in doubt


@pytest.mark.parametrize(("kind", "is_openai_line"), [("cifs", True), ("virtiofs", False), ("ext4", False)])
def test_inbox_is_told_to_be_remote_where_it_surely_is(kind: str, is_openai_line: bool) -> None:
    assert bool(describe_inbox(PLACE, Mount("/srv", kind))) is is_openai_line


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert (doubt_root(PLACE, None), describe_inbox(PLACE, None)) == ("", "")
