from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.diagnostics import machine
from obcd.diagnostics.findings import Finding, Severity
from obcd.diagnostics.machine import (
    Inotify,
    Orphans,
    judge_clock,
    judge_inotify,
    judge_orphans,
    judge_space,
    read_inotify,
    read_new_time,
    read_orphans,
)
from obcd.spool.folders.disk_space import Space
from tests.golden.wording import wording

NOW = 1795373853.0
MIB, GIB = 2**20, 2**30


def process(proc: Path, pid: int, parent: int, command: str, slot: str = "") -> Path:
    """Make a process in a folder that looks like /proc."""
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "fdinfo").mkdir()
    (folder / "cmdline").write_bytes(command.replace(" ", "\0").encode())
    (folder / "environ").write_bytes(b"PATH=/bin\0" + (f"OBCD_SLOT={slot}\0".encode() if slot else b"") + b"HOME=/\0")
    (folder / "stat").write_text(f"{pid} (a) b (c) S {parent} 1 1 0 -1\n")
    return folder


def severities(findings: list[Finding]) -> dict[str, Severity]:
    return {finding.subject: finding.severity for finding in findings}


# --- filesystems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "size", "severity"),
    [
        (50 * GIB, 100 * GIB, Severity.OK),
        (6 * GIB, 100 * GIB, Severity.OK),
        (4 * GIB, 100 * GIB, Severity.WARNING),
        (GIB - 1, 2 * GIB, Severity.WARNING),
        (0, 100 * GIB, Severity.FAULT),
        (GIB, 0, Severity.OK),
    ],
)
def test_little_room_is_said(free: int, size: int, severity: Severity) -> None:
    space = Space(free=free, size=size, free_inodes=0, inodes=0, is_read_only=False)

    [finding] = judge_space(Path("/spool\x1b"), space)

    assert (finding.subject, finding.severity) == ("disk", severity)
    assert finding.sentence.endswith("on the filesystem of /spool\\x1b")
    assert bool(finding.remedy) == (severity is not Severity.OK)


@pytest.mark.parametrize(
    ("free", "min_free", "severity"),
    [
        (256 * MIB, None, Severity.WARNING),
        (256 * MIB - 1, None, Severity.FAULT),
        (50 * GIB, 60 * GIB, Severity.FAULT),
        (MIB, 0, Severity.WARNING),
    ],
)
def test_less_than_has_to_stay_free_in_the_root_is_a_fault(free: int, min_free: int | None, severity: Severity) -> None:
    space = Space(free=free, size=100 * GIB, free_inodes=0, inodes=0, is_read_only=False)

    [finding] = judge_space(Path("/spool"), space, min_free, is_root=True)

    assert (finding.subject, finding.severity) == ("disk", severity)
    assert (wording("nothing-is-accepted-or-asked-until") in finding.sentence) is (severity is Severity.FAULT)
    assert finding.remedy == "df -h /spool"


@pytest.mark.parametrize(
    ("free", "count", "severity"),
    [
        (90_000, 100_000, Severity.OK),
        (4_000, 100_000, Severity.WARNING),
        (999, 5_000, Severity.WARNING),
        (0, 100_000, Severity.FAULT),
    ],
)
def test_lack_of_inodes_is_said(free: int, count: int, severity: Severity) -> None:
    space = Space(free=50 * GIB, size=60 * GIB, free_inodes=free, inodes=count, is_read_only=False)

    assert severities(judge_space(Path("/spool"), space)) == {"disk": Severity.OK, "inodes": severity}


def test_read_only_filesystem_is_a_fault() -> None:
    space = Space(free=0, size=GIB, free_inodes=0, inodes=0, is_read_only=True)

    [finding] = judge_space(Path("/spool"), space)

    assert finding.severity is Severity.FAULT
    assert "read-only" in finding.sentence


# --- clock -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "new", "last", "sentence"),
    [
        (NOW, NOW + 0.01, NOW - 86400, ""),
        (NOW, NOW - 4, NOW - 86400, ""),
        (NOW, NOW + 90, NOW - 86400, wording("the-clock-of-spool-is-90")),
        (NOW, NOW - 7200, NOW - 86400, wording("the-clock-of-spool-is-7200")),
        (NOW, None, NOW + 60, wording("the-clock-of-spool-is-60")),
        (NOW, None, NOW - 60, ""),
        (86400.0, 86400.0, 86400.0, wording("the-clock-says-1970-01-02t00")),
    ],
)
def test_clock_is_compared_with_the_filesystems(now: float, new: float | None, last: float, sentence: str) -> None:
    root = Path("/spool")

    [finding] = judge_clock(now, {} if new is None else {root: new}, {root: last})

    assert finding.severity is (Severity.WARNING if sentence else Severity.OK)
    assert finding.sentence.startswith(sentence or wording("the-clock-says-2026"))


def test_time_of_a_new_file_is_learnt_without_a_trace(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns

    made = read_new_time(tmp_path)

    assert made is None or abs(made - tmp_path.stat().st_mtime) < 3600  # None: a filesystem without O_TMPFILE
    assert (list(tmp_path.iterdir()), tmp_path.stat().st_mtime_ns) == ([], before)


def test_time_of_a_new_file_is_not_learnt_where_none_can_be_made(tmp_path: Path) -> None:
    assert read_new_time(tmp_path / "nothing") is None


# --- file events -----------------------------------------------------------------------------------------------------


def test_inotify_instances_and_watches_of_a_user_are_counted(tmp_path: Path) -> None:
    limits = tmp_path / "sys" / "fs" / "inotify"
    limits.mkdir(parents=True)
    (limits / "max_user_instances").write_text("128\n")
    (limits / "max_user_watches").write_text("1000\n")
    for pid in (7, 8):
        folder = process(tmp_path, pid, 1, "x")
        (folder / "fd" / "3").symlink_to("anon_inode:inotify")
        (folder / "fd" / "4").symlink_to("/dev/null")
        (folder / "fdinfo" / "3").write_text("pos:\t0\nflags:\t0\ninotify wd:2 ino:1\ninotify wd:1 ino:2\n")
    (tmp_path / "uptime").touch()

    mine = read_inotify(os.geteuid(), tmp_path)

    assert mine == Inotify(max_instances=128, max_watches=1000, instances=2, watches=4)
    assert read_inotify(os.geteuid() + 1, tmp_path) == Inotify(
        max_instances=128, max_watches=1000, instances=0, watches=0
    )
    assert read_inotify(0, tmp_path / "self") is None


@pytest.mark.parametrize(
    ("instances", "watches", "remedies"),
    [
        (125, 10, []),
        (126, 10, [wording("sudo-sysctl-fs-inotify-max-user-2")]),
        (0, 998, [wording("sudo-sysctl-fs-inotify-max-user-3")]),
        (128, 1000, [wording("sudo-sysctl-fs-inotify-max-user-2"), wording("sudo-sysctl-fs-inotify-max-user-3")]),
    ],
)
def test_lack_of_inotify_names_the_sysctl(instances: int, watches: int, remedies: list[str]) -> None:
    found = Inotify(max_instances=128, max_watches=1000, instances=instances, watches=watches)

    findings = judge_inotify(found, 3)

    assert [finding.remedy.partition("  #")[0] for finding in findings if finding.remedy] == remedies
    assert [finding.severity for finding in findings] == ([Severity.WARNING] * len(remedies) or [Severity.OK])


# --- servers ---------------------------------------------------------------------------------------------------------


def test_only_servers_without_a_supervisor_are_orphans(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, "/sbin/init")
    process(tmp_path, 100, 1, "python -m supervisor.supervisord --nodaemon")
    process(tmp_path, 101, 100, "ollama serve", "/run/obcd-host:gpu0")
    process(tmp_path, 102, 101, "ollama runner", "/run/obcd-host:gpu0")
    process(tmp_path, 201, 1, "ollama runner", "/run/a:b:gpu1\x1b")
    process(tmp_path, 202, 201, "helper", "/run/a:b:gpu1\x1b")
    process(tmp_path, 300, 1, "systemd --user")
    process(tmp_path, 301, 300, "ollama serve", "/run/obcd-host:gpu2")
    process(tmp_path, 401, 1, "ollama serve")
    (tmp_path / "501").mkdir()  # ended while we looked

    found = read_orphans(os.geteuid(), tmp_path)

    assert found == [Orphans("gpu1\\x1b", (201, 202)), Orphans("gpu2", (301,))]
    first = judge_orphans(found)[0]
    assert (first.severity, first.remedy) == (Severity.WARNING, "kill 201 202")
    assert severities(judge_orphans([])) == {"servers": Severity.OK}


def test_supervisor_may_be_the_first_process_of_a_container(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, "supervisord -n")
    process(tmp_path, 2, 1, "ollama serve", "/run/obcd-host:gpu0")

    assert read_orphans(os.geteuid(), tmp_path) == []


def test_parent_that_is_hidden_from_us_may_be_a_supervisor_unless_it_is_number_one(tmp_path: Path) -> None:
    process(tmp_path, 2, 1, "ollama serve", "/run/obcd-host:gpu0")
    process(tmp_path, 4, 3, "ollama serve", "/run/obcd-host:gpu1")

    assert read_orphans(os.geteuid(), tmp_path) == [Orphans("gpu0", (2,))]


def test_we_are_no_server_ourselves(tmp_path: Path) -> None:
    process(tmp_path, os.getpid(), 1, "obcd check", "/run/obcd-host:gpu0")

    assert read_orphans(os.geteuid(), tmp_path) == []


def test_servers_of_others_are_not_ours_to_judge(tmp_path: Path) -> None:
    process(tmp_path, 2, 1, "ollama serve", "/run/obcd-host:gpu0")

    assert read_orphans(os.geteuid() + 1, tmp_path) == []


def test_machine_without_proc_has_no_orphans(tmp_path: Path) -> None:
    assert machine.read_orphans(0, tmp_path / "none") == []
