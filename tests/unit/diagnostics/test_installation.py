from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from obcd.config.settings import Settings
from obcd.config.tables import Profile, Spool
from obcd.diagnostics import installation
from obcd.diagnostics import lock_holders as locks
from obcd.diagnostics.findings import Finding, Severity
from obcd.diagnostics.installation import Question, ask, examine
from obcd.spool.folders import permissions
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.permissions import may_write
from obcd.system_paths import SYSTEM_ROOT
from tests.golden.wording import wording
from tests.unit.spool.spools import make_layout, put

NOW = 1795373853.0
MOUNT = "/dev/x {point} {kind} rw 0 0\n"


@pytest.fixture
def layout(layout: Layout) -> Layout:
    for path in (layout.root, layout.inbox):  # as umask 022 makes them
        path.chmod(0o755)
    return layout


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that looks like /proc, to psutil too: one local filesystem, no locks, no processes."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "locks").touch()
    mount(proc, {"/": "ext4"})
    return proc


@pytest.fixture
def question(layout: Layout, proc: Path) -> Question:
    now = layout.root.stat().st_mtime
    return Question(layout=layout, profiles=("clinical",), uid=os.geteuid(), now=now, proc=proc)


def mount(proc: Path, kinds: dict[str | Path, str]) -> None:
    """Say what is mounted where."""
    lines = [MOUNT.format(point=point, kind=kind) for point, kind in kinds.items()]
    (proc / "self" / "mounts").write_text("".join(lines))


def lock(proc: Path, *locks: tuple[Path, int], device: int | None = None) -> None:
    """Say who holds which lock."""
    lines = []
    for number, (path, pid) in enumerate(locks, 1):
        status = path.stat()
        major, minor = os.major(status.st_dev), os.minor(status.st_dev) if device is None else device
        lines.append(f"{number}: FLOCK  ADVISORY  WRITE {pid} {major:02x}:{minor:02x}:{status.st_ino} 0 EOF\n")
        lines.append(f"{number}: -> FLOCK  ADVISORY  WRITE 77 {major:02x}:{minor:02x}:{status.st_ino} 0 EOF\n")
        lines.append(f"9: POSIX  ADVISORY  WRITE 78 {major:02x}:{minor:02x}:{status.st_ino} 0 EOF\n")
    (proc / "locks").write_text("".join(lines))


def locks_of(layout: Layout) -> tuple[Path, Path]:
    paths = (layout.root / "lock", layout.inbox / ".obcd" / "lock")
    for path in paths:
        path.touch()
    return paths


def wrongs(question: Question, subject: str = "") -> list[tuple[Severity, str, str]]:
    """Return what is not right, without the note that no coordinator runs."""
    return [
        (item.severity, item.sentence, item.remedy)
        for item in examine(question)
        if item.severity is not Severity.OK and "no coordinator runs" not in item.sentence
        if subject in ("", item.subject) and item.subject not in ("disk", "inodes")  # those of the machine we are on
    ]


# --- the root --------------------------------------------------------------------------------------------------------


def test_spool_that_is_right_has_no_finding(question: Question) -> None:
    assert wrongs(question) == []
    assert {item.subject for item in examine(question)} >= {"folders", "filesystem", "disk", "clock", "lock", "servers"}


def test_looking_changes_nothing(question: Question) -> None:
    def state() -> dict[str, tuple[int, int]]:
        paths = [question.layout.root, *sorted(question.layout.root.rglob("*"))]
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in paths}

    before = state()
    examine(question)

    assert state() == before


def test_user_without_a_spool_gets_one_note_and_no_fault(question: Question, tmp_path: Path) -> None:
    findings = examine(replace(question, layout=Layout.at(tmp_path / "none")))

    assert [(item.subject, item.severity) for item in findings] == [
        ("root", Severity.NOTE),
        ("clock", Severity.OK),
        ("servers", Severity.OK),
    ]
    assert not (tmp_path / "none").exists()


def test_system_without_its_spool_is_warned(
    question: Question, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "SYSTEM_ROOT", tmp_path / "none")

    finding = examine(replace(question, layout=Layout.at(tmp_path / "none")))[0]

    assert finding.severity is Severity.WARNING
    assert finding.remedy.startswith(wording("sudo-install-d-o-obcd"))


@pytest.mark.parametrize("kind", ["file", "below a file", "loop"])
def test_root_that_is_no_folder_is_said(question: Question, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "loop":
        path.symlink_to(path)
    else:
        path.touch()
    root = path / "root" if kind == "below a file" else path

    finding = examine(replace(question, layout=Layout.at(root)))[0]

    assert (finding.subject, finding.severity) == (
        "root",
        Severity.NOTE if kind == "below a file" else Severity.FAULT,
    )


def test_question_is_of_this_user_and_now(layout: Layout) -> None:
    spool = Spool(settle_seconds=7.0, min_free_bytes=5)
    question = ask(layout, Settings(spool=spool, profiles={"clinical": Profile()}))

    assert (question.uid, question.settle_seconds, question.min_free_bytes) == (os.geteuid(), 7.0, 5)
    assert question.inboxes == (layout.inbox, layout.inbox / "clinical")


# --- folders and rights ----------------------------------------------------------------------------------------------

Act = Callable[[Layout], object]


def mode(name: str, value: int) -> Act:
    return lambda layout: (layout.root / name).chmod(value)


def shared(act: Act | None = None) -> Act:
    """Make the spool a shared one, as it should be, then change something."""

    def change(layout: Layout) -> None:
        for path, value in ((layout.inbox, 0o3770), (layout.inbox / "clinical", 0o3730), (layout.outbox, 0o2750)):
            path.chmod(value)
        if act is not None:
            act(layout)

    return change


def away(name: str, make: Callable[[Path], object]) -> Act:
    """Put something else in a folder's place."""

    def change(layout: Layout) -> None:
        path = layout.root / name
        path.rename(layout.root / "away")
        make(path)

    return change


#: {what is wrong: (how, severity, part of the sentence, the remedy; {root} stands for the root)}
WRONGS: dict[str, tuple[Act, Severity, str, str]] = {
    "jobs can be read": (
        mode("jobs", 0o755),
        Severity.FAULT,
        "has mode 0755: other users may",
        "chmod 0700 {root}/jobs",
    ),
    "claims can be entered": (
        mode("inbox/.obcd", 0o711),
        Severity.FAULT,
        "has mode 0711: other users may access the prompts in it",
        "chmod 0700 {root}/inbox/.obcd",
    ),
    "jobs are closed to us": (mode("jobs", 0o500), Severity.FAULT, "it should be 0700", "chmod 0700 {root}/jobs"),
    "jobs is a link": (
        away("jobs", lambda path: path.symlink_to("away")),
        Severity.FAULT,
        "/jobs is not a folder, and obcd needs its own folder there",
        "mv {root}/jobs {root}/jobs.away",
    ),
    "jobs is a file": (
        away("jobs", Path.touch),
        Severity.FAULT,
        "/jobs is not a folder",
        "mv {root}/jobs {root}/jobs.away",
    ),
    "the inbox is a link": (
        away("inbox", lambda path: path.symlink_to("away")),
        Severity.NOTE,
        "/away: no event comes through a link, so drops are only found by scanning",
        "",
    ),
    "the outbox leads nowhere": (
        away("outbox", lambda path: path.symlink_to("nowhere")),
        Severity.FAULT,
        "/outbox is a broken link: No such file or directory",
        "",
    ),
    "the outbox is a file": (
        away("outbox", Path.touch),
        Severity.FAULT,
        "/outbox is not a folder",
        "mv {root}/outbox {root}/outbox.away",
    ),
    "all may write into the inbox": (
        shared(mode("inbox", 0o777)),
        Severity.FAULT,
        "has mode 0777: its users may delete and replace each other's files",
        "chmod 3730 {root}/inbox",
    ),
    "all may drop": (
        shared(mode("inbox", 0o1777)),
        Severity.WARNING,
        "has mode 1777: everybody on this machine may look into it or drop there",
        "chmod 3730 {root}/inbox",
    ),
    "the group may not drop": (
        shared(mode("inbox/clinical", 0o750)),
        Severity.WARNING,
        "may not drop there",
        "chmod 3730 {root}/inbox/clinical",
    ),
    "files do not get the group": (
        shared(mode("inbox", 0o1730)),
        Severity.WARNING,
        "not 3730: files do not get its group",
        "chmod 3730 {root}/inbox",
    ),
    "the group may change answers": (
        shared(mode("outbox", 0o2770)),
        Severity.FAULT,
        "users other than the daemon's may add or remove answers",
        "chmod 2750 {root}/outbox",
    ),
    "all may see the answers": (
        shared(mode("outbox", 0o2755)),
        Severity.WARNING,
        "everybody on this machine may see whose jobs there are",
        "chmod 2750 {root}/outbox",
    ),
    "answers do not get the group": (
        shared(mode("outbox", 0o750)),
        Severity.NOTE,
        "the group may not find its answers there",
        "chmod 2750 {root}/outbox",
    ),
    "all may write into a private outbox": (
        mode("outbox", 0o777),
        Severity.FAULT,
        "/outbox (mode 0777)",
        "chmod go-w {root}/outbox",
    ),
    "all may write into the root": (mode("", 0o777), Severity.FAULT, "/root (mode 0777)", "chmod go-w {root}"),
}


@pytest.mark.parametrize(("act", "severity", "part", "remedy"), WRONGS.values(), ids=WRONGS)
def test_folder_that_is_not_as_it_should_be_is_said(
    question: Question, act: Act, severity: Severity, part: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permissions, "_is_own_group", lambda uid, gid: False)
    act(question.layout)

    [(found, sentence, command)] = wrongs(question, "folders")

    assert part in sentence
    assert (found, command) == (severity, remedy.format(root=question.layout.root))


@pytest.mark.parametrize(("uid", "sudo"), [(0, ""), (1000, ""), (4_000_000, "sudo ")])
def test_remedy_can_be_run_by_who_reads_it(
    question: Question, monkeypatch: pytest.MonkeyPatch, uid: int, sudo: str
) -> None:
    monkeypatch.setattr(permissions, "_is_own_group", lambda uid, gid: False)
    monkeypatch.setattr(installation, "_owner", lambda *_: 1000)
    question.layout.root.chmod(0o777)

    remedies = [remedy for _, _, remedy in wrongs(replace(question, uid=uid), "folders")]

    assert wording("chmod-go-w", sudo, question.layout.root) in remedies


def test_shared_spool_with_the_right_modes_has_no_finding(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "_is_own_group", lambda uid, gid: False)
    shared()(question.layout)

    assert wrongs(question) == []


def test_group_that_is_the_users_own_shares_with_nobody(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    status = question.layout.inbox.stat()
    user = pwd.struct_passwd(("ann", "x", status.st_uid, status.st_gid, "", "/", ""))
    groups = {"own": ("ann", []), "with members": ("ann", ["bob"]), "of others": ("staff", [])}
    for path in (question.layout.inbox, question.layout.root):
        path.chmod(0o775)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)

    found = {}
    for name, (group, members) in groups.items():
        entry = grp.struct_group((group, "x", status.st_gid, members))
        monkeypatch.setattr(grp, "getgrgid", lambda gid, entry=entry: entry)
        found[name] = len(wrongs(question, "folders"))

    # inbox, its profile's folder (0750), the outbox's missing setgid bit, the root
    assert found == {"own": 0, "with members": 4, "of others": 4}


def test_folder_of_another_user_is_a_fault(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = question.layout
    monkeypatch.setattr(installation, "_owner", lambda layout, root: 4_000_000)

    layout.inbox.chmod(0o3777)
    found = wrongs(replace(question, uid=4_000_000), "folders")

    me = pwd.getpwuid(os.geteuid()).pw_name
    assert (
        Severity.FAULT,
        wording("belongs-to-not-to-the-daemon", layout.jobs, me),
        wording("sudo-chown-r-4000000", layout.jobs),
    ) in found
    assert wording("sudo-chown-4000000", layout.outbox) in [remedy for _, _, remedy in found]


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "is_allowed"),
    [
        (0o755, 4_000_000, 1, True),
        (0o055, 4_000_000, 1, False),
        (0o775, 1, 4_000_000, False),
        (0o777, 1, 1, True),
    ],
)
def test_mode_tells_who_may_write(mode: int, uid: int, gid: int, is_allowed: bool) -> None:
    status = os.stat_result((0o40000 | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))

    assert may_write(status, 4_000_000) is is_allowed
    assert may_write(status, 0)


def test_member_of_the_group_may_write_as_the_group_may() -> None:
    me = pwd.getpwuid(os.geteuid())
    status = os.stat_result((0o40730, 0, 0, 1, 4_000_000, me.pw_gid, 0, 0, 0, 0))

    assert may_write(status, me.pw_uid)


def test_root_is_told_where_the_daemon_may_not_write(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_owner", lambda layout, root: 4_000_000)

    found = wrongs(replace(question, uid=0), "access")

    assert found[0] == (
        Severity.FAULT,
        wording("the-daemon-s-user-4000000-may", question.layout.root),
        f"chown 4000000 {question.layout.root}",
    )


def test_what_is_closed_is_a_fault_for_the_daemon_and_a_note_for_others(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = question.layout.inbox
    monkeypatch.setattr(os, "access", lambda path, wanted: Path(path) != inbox)

    mine = wrongs(question, "access")
    theirs = wrongs(replace(question, uid=4_000_000), "access")

    why = f"you are the daemon's user and may not write into {inbox}"
    assert mine == [(Severity.FAULT, why, wording("chmod-u-rwx", inbox))]
    assert [(severity, remedy) for severity, _, remedy in theirs] == [(Severity.NOTE, "")]
    inbox.chmod(0o770)
    [(_, sentence, remedy)] = wrongs(replace(question, uid=4_000_000), "access")
    assert sentence.startswith(wording("you-may-not-drop-into", inbox))
    assert remedy == wording("sudo-usermod-ag-4000000", grp.getgrgid(inbox.stat().st_gid).gr_name)


def test_root_that_is_closed_is_one_finding(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, wanted: False)

    mine, theirs = examine(question)[0], examine(replace(question, uid=4_000_000))[0]

    assert (mine.severity, theirs.severity) == (Severity.FAULT, Severity.NOTE)
    assert theirs.sentence.endswith(wording("and-you-may-not-look-into"))


def test_links_in_the_inbox_are_noted(question: Question) -> None:
    layout = question.layout
    file = put(layout, b"{}\n", "a.jsonl", "clinical")
    (layout.inbox / "b.jsonl").symlink_to(file)
    os.link(file, layout.inbox / "clinical" / "c.txt")
    (layout.inbox / "d.txt").symlink_to(file)

    found = wrongs(question, "drops")

    assert [severity for severity, *_ in found] == [Severity.NOTE] * 2
    assert ["(1 of them)" in sentence for _, sentence, _ in found] == [True] * 2


# --- filesystems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "severity", "part"),
    [
        ("nfs4", Severity.FAULT, wording("a-network-filesystem")),
        ("9p", Severity.FAULT, wording("a-network-filesystem")),
        ("fuse.sshfs", Severity.FAULT, wording("a-network-filesystem")),
        ("fuse.other", Severity.WARNING, wording("if-another-machine-serves-it")),
        ("tmpfs", Severity.WARNING, wording("which-is-memory")),
    ],
)
def test_root_must_lie_on_a_local_disk(question: Question, kind: str, severity: Severity, part: str) -> None:
    mount(question.proc, {"/": kind})

    [(found, sentence, remedy)] = wrongs(question, "filesystem")

    assert found is severity
    assert part in sentence
    assert "[spool] root" in remedy


def test_inbox_on_a_share_is_said_to_be_scanned_only_with_more_patience(question: Question) -> None:
    mount(question.proc, {"/": "ext4", question.layout.inbox: "cifs"})

    [(severity, sentence, _)] = wrongs(question)

    assert severity is Severity.NOTE
    assert wording("the-inbox-lies-on-cifs-a", question.layout.inbox) in sentence
    assert wording("taken-when-it-has-not-changed") in sentence


def test_inbox_on_what_may_be_a_share_wants_patience(question: Question) -> None:
    mount(question.proc, {"/": "ext4", question.layout.inbox: "virtiofs"})

    hasty = wrongs(question)
    patient = wrongs(replace(question, settle_seconds=60.0))

    [(severity, sentence, remedy)] = hasty
    assert severity is Severity.NOTE
    assert remedy.startswith("settle_seconds = 60")
    assert patient == [(severity, sentence, "")]


def test_inbox_on_another_local_filesystem_is_fine_and_said(question: Question) -> None:
    mount(question.proc, {"/": "ext4", question.layout.inbox: "xfs"})

    [(severity, sentence, _)] = wrongs(question)

    assert severity is Severity.NOTE
    assert wording("which-is-fine") in sentence


@pytest.mark.parametrize(
    ("name", "part"),
    [("outbox", wording("a-job-is-published-by-a")), ("inbox/.obcd", wording("a-file-is-claimed-by-a"))],
)
def test_rename_across_filesystems_is_a_fault(question: Question, name: str, part: str) -> None:
    target = question.layout.root / name
    mount(question.proc, {"/": "ext4", target: "ext4"})

    [(severity, sentence, remedy)] = wrongs(question)

    assert severity is Severity.FAULT
    assert part in sentence
    assert remedy.removeprefix("sudo ").startswith(f"umount {target}")


def test_inbox_elsewhere_that_is_not_there_may_be_a_share_that_is_not_mounted(
    question: Question, tmp_path: Path
) -> None:
    layout = Layout.at(question.layout.root, str(tmp_path / "share" / "inbox"))

    [(severity, sentence, remedy)] = wrongs(replace(question, layout=layout))

    assert severity is Severity.WARNING
    assert wording("is-not-there") in sentence
    assert remedy.startswith(wording("findmnt-t", tmp_path / "share"))


def test_clock_that_is_off_is_said(question: Question) -> None:
    [(severity, sentence, _)] = wrongs(replace(question, now=question.now - 7200))

    assert severity is Severity.WARNING
    assert sentence.startswith(wording("the-clock-of"))
    assert sentence.endswith(" s fast")


# --- who works on it -------------------------------------------------------------------------------------------------


def lock_finding(question: Question) -> list[Finding]:
    return [finding for finding in examine(question) if finding.subject == "lock"]


def test_coordinator_is_found_by_its_lock(question: Question) -> None:
    first, second = locks_of(question.layout)
    lock(question.proc, (first, 812), (second, 812))

    [finding] = lock_finding(question)

    assert (finding.severity, finding.sentence) == (
        Severity.OK,
        wording("a-coordinator-runs-on-pid-812", question.layout.root),
    )


def test_real_lock_is_found_and_is_not_taken(question: Question) -> None:
    real = replace(question, proc=Path("/proc"))
    holder = SpoolLock(real.layout)
    holder.acquire()
    try:
        [finding] = lock_finding(real)
    finally:
        holder.release()

    assert finding.sentence.endswith(f"(pid {os.getpid()})")
    [finding] = lock_finding(real)
    assert finding.severity is Severity.NOTE
    with open(real.layout.root / "lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_nobody_working_is_a_note_with_the_command(question: Question) -> None:
    [finding] = lock_finding(question)

    assert (finding.severity, finding.remedy) == (Severity.NOTE, "obcd up")


def test_lock_on_a_filesystem_of_many_devices_is_known_by_its_content(question: Question) -> None:
    first, _ = locks_of(question.layout)
    lock(question.proc, (first, 812), device=9999)

    before = lock_finding(question)[0].severity
    first.write_text("pid 812\n")

    assert (before, lock_finding(question)[0].severity) == (Severity.NOTE, Severity.OK)


def test_coordinator_with_another_root_on_the_same_inbox_is_a_fault(question: Question) -> None:
    _, second = locks_of(question.layout)
    lock(question.proc, (second, 900))

    faults = [finding for finding in lock_finding(question) if finding.severity is Severity.FAULT]

    assert [finding.remedy.partition("  #")[0] for finding in faults] == ["ps -fp 900"]


def test_lock_of_many_devices_that_hides_its_holder_is_not_guessed_at(
    question: Question, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = locks_of(question.layout)
    lock(question.proc, (first, 812), device=9999)
    monkeypatch.setattr(locks, "_read_holder", lambda _: None)  # root, who may run this, reads everything

    assert lock_finding(question) == []


def test_kernel_that_tells_no_locks_is_not_guessed_at(question: Question) -> None:
    (question.proc / "locks").unlink()

    assert lock_finding(question) == []


@pytest.mark.parametrize(
    ("is_running", "age", "severity"),
    [
        (True, 1.0, Severity.OK),
        (True, 60.0, Severity.WARNING),
        (False, 60.0, Severity.NOTE),
        (True, -30.0, Severity.OK),
    ],
)
def test_status_that_is_old_is_said(question: Question, is_running: bool, age: float, severity: Severity) -> None:
    first, _ = locks_of(question.layout)
    if is_running:
        lock(question.proc, (first, 812))
    question.layout.status.write_text(json.dumps({"updated": question.now - age}))

    [finding] = [finding for finding in examine(question) if finding.subject == "status"]

    assert finding.severity is severity


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"updated": "x"}', '{"updated": NaN}', '{"updated": 1' + "0" * 400 + "}"]
)
def test_status_that_is_none_is_passed_over(question: Question, text: str) -> None:
    question.layout.status.write_text(text)

    assert [finding for finding in examine(question) if finding.subject == "status"] == []


def test_lack_of_file_events_is_said_unless_the_coordinator_has_them(question: Question) -> None:
    limits = question.proc / "sys" / "fs" / "inotify"
    limits.mkdir(parents=True)
    (limits / "max_user_instances").write_text("1")
    (limits / "max_user_watches").write_text("1000")
    first, _ = locks_of(question.layout)

    idle = wrongs(question, "inotify")
    lock(question.proc, (first, 812))
    running = wrongs(question, "inotify")

    assert [severity for severity, _, _ in idle] == [Severity.WARNING]
    assert running == []


def test_names_are_escaped(question: Question, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "ro\x1b[2Jot")
    layout.jobs.chmod(0o755)

    findings = examine(replace(question, layout=layout))

    assert all((finding.sentence + finding.remedy).isprintable() for finding in findings)


def test_system_root_is_shared_whatever_its_inbox_is(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path("/var/spool/obcd") == SYSTEM_ROOT
    monkeypatch.setattr(permissions, "SYSTEM_ROOT", question.layout.root)

    assert [remedy for _, _, remedy in wrongs(question, "folders")] == [
        f"chmod 3730 {question.layout.inbox}",
        f"chmod 3730 {question.layout.inbox / 'clinical'}",
        f"chmod 2750 {question.layout.outbox}",
    ]
