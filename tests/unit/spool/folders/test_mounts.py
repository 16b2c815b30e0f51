from __future__ import annotations

from pathlib import Path

import pytest

from obcd.spool.folders.mounts import Mount, doubt_root, read_mount, tell_inbox

PLACE = Path("/srv/spool\x1b")


def test_mount_of_a_path_is_the_deepest_and_latest_above_it(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "28 27 0:30 / /srv/answers rw shared:7 master:2 - nfs4 server:/answers rw,vers=4.2\n"
        "29 27 0:31 / /srv/with\\040space rw - fuse.sshfs host:/ rw\n"
        "30 27 0:32 / /srv/two rw - ext4 /dev/vdb rw\n"
        "31 30 0:33 / /srv/two rw - tmpfs tmpfs rw\n"
        "broken\n"
    )

    kinds = {
        path: read_mount(Path(path), table)
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


def test_mount_is_not_known_without_the_kernels_table(tmp_path: Path) -> None:
    assert read_mount(tmp_path, tmp_path / "none") is None


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
    [("nfs4", "a network filesystem: its locks and fsync"), ("virtiofs", "if another machine serves it"), ("xfs", "")],
)
def test_root_is_doubted_by_its_filesystem(kind: str, part: str) -> None:
    doubt = doubt_root(PLACE, Mount("/srv", kind))

    assert bool(doubt) is bool(part)
    assert part in doubt
    assert "\x1b" not in doubt


@pytest.mark.parametrize(("kind", "is_told"), [("cifs", True), ("virtiofs", False), ("ext4", False)])
def test_inbox_is_told_to_be_remote_where_it_surely_is(kind: str, is_told: bool) -> None:
    assert bool(tell_inbox(PLACE, Mount("/srv", kind))) is is_told


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert (doubt_root(PLACE, None), tell_inbox(PLACE, None)) == ("", "")
