from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError, InputError
from obcd.install.apply import InstallStep, InstallVerb, alone, apply, decide, decide_removal, read_record, remove
from obcd.install.plan import RECORD, Folder, InstallPlan, Item
from obcd.install.service import before_removal
from obcd.spool.folders import disk
from tests.golden.wording import wording

UNIT = "/etc/systemd/system/obcd.target"
CONFIG = "/etc/obcd/obcd.toml"
LINK = "/usr/local/bin/obcd"


def plan_of(unit: bytes = b"unit 1\n", config: bytes = b"config 1\n", link: str = "/opt/obcd/bin/obcd") -> InstallPlan:
    items = (
        Item(path=UNIT, content=unit),
        Item(path=CONFIG, content=config, mode=0o640),
        Item(path=LINK, link=link),
    )
    return InstallPlan(items, (Folder("/var/spool/obcd", 0o750), Folder("/var/spool/obcd/inbox", 0o3730)))


def install(root: Path, plan: InstallPlan, *, force: bool = False) -> dict[str, InstallVerb]:
    record = read_record(root)
    steps = decide(plan, root, record, force=force)
    apply(plan, steps, root, record)
    return verbs(steps)


def uninstall(root: Path) -> dict[str, InstallVerb]:
    steps = decide_removal(root, read_record(root))
    remove(steps, root)
    return verbs(steps)


def verbs(steps: list[InstallStep]) -> dict[str, InstallVerb]:
    return {step.path: step.verb for step in steps}


def at(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where the plan is installed."""
    install(tmp_path, plan_of())
    return tmp_path


def test_first_installation_makes_everything_with_its_mode(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        done = install(tmp_path, plan_of())
    finally:
        os.umask(old)

    assert set(done.values()) == {InstallVerb.NEW}
    assert at(tmp_path, UNIT).read_bytes() == b"unit 1\n"
    assert (mode_of(at(tmp_path, UNIT)), mode_of(at(tmp_path, CONFIG))) == (0o644, 0o640)
    assert (mode_of(at(tmp_path, "/etc/obcd")), mode_of(at(tmp_path, "/etc/systemd/system"))) == (0o755, 0o755)
    assert mode_of(at(tmp_path, "/var/spool/obcd/inbox")) == 0o3730
    assert os.readlink(at(tmp_path, LINK)) == "/opt/obcd/bin/obcd"


def test_deciding_writes_nothing(tmp_path: Path) -> None:
    decide(plan_of(), tmp_path, read_record(tmp_path))

    assert list(tmp_path.iterdir()) == []


def test_second_installation_changes_nothing(root: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*") if path != at(root, RECORD)}

    done = install(root, plan_of())

    assert set(done.values()) == {InstallVerb.UNCHANGED}
    after = {path: path.lstat().st_mtime_ns for path in before if path.is_file()}
    assert after == {path: time for path, time in before.items() if path.is_file()}


def test_newer_version_replaces_what_was_left_alone(root: Path) -> None:
    done = install(root, plan_of(unit=b"unit 2\n", link="/srv/obcd/bin/obcd"))

    assert (done[UNIT], done[LINK], done[CONFIG]) == (InstallVerb.UPDATED, InstallVerb.UPDATED, InstallVerb.UNCHANGED)
    assert at(root, UNIT).read_bytes() == b"unit 2\n"
    assert os.readlink(at(root, LINK)) == "/srv/obcd/bin/obcd"


def test_changed_file_is_kept_and_a_newer_one_put_beside_it(root: Path) -> None:
    at(root, CONFIG).write_bytes(b"mine\n")

    done = install(root, plan_of(config=b"config 2\n"))

    assert (done[CONFIG], done[f"{CONFIG}.new"]) == (InstallVerb.KEPT, InstallVerb.NEW)
    assert at(root, CONFIG).read_bytes() == b"mine\n"
    assert at(root, f"{CONFIG}.new").read_bytes() == b"config 2\n"
    assert mode_of(at(root, f"{CONFIG}.new")) == 0o640


def test_changed_file_is_left_in_peace_while_there_is_nothing_newer(root: Path) -> None:
    at(root, CONFIG).write_bytes(b"mine\n")

    done = install(root, plan_of())

    assert done[CONFIG] == InstallVerb.KEPT
    assert not at(root, f"{CONFIG}.new").exists()


def test_file_that_was_there_before_is_kept(tmp_path: Path) -> None:
    at(tmp_path, CONFIG).parent.mkdir(parents=True)
    at(tmp_path, CONFIG).write_bytes(b"mine\n")

    done = install(tmp_path, plan_of())

    assert (done[CONFIG], done[f"{CONFIG}.new"]) == (InstallVerb.KEPT, InstallVerb.NEW)
    assert at(tmp_path, CONFIG).read_bytes() == b"mine\n"


def test_force_replaces_and_keeps_every_older_one(root: Path) -> None:
    for mine in (b"mine 1\n", b"mine 2\n"):
        at(root, CONFIG).write_bytes(mine)
        done = install(root, plan_of(), force=True)
        assert done[CONFIG] == InstallVerb.REPLACED

    assert at(root, CONFIG).read_bytes() == b"config 1\n"
    assert at(root, f"{CONFIG}.old").read_bytes() == b"mine 1\n"
    assert at(root, f"{CONFIG}.old.2").read_bytes() == b"mine 2\n"


def test_unit_that_was_masked_stays_masked(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"not ours")
    root = tmp_path / "root"
    at(root, UNIT).parent.mkdir(parents=True)
    at(root, UNIT).symlink_to(outside)

    done = install(root, plan_of())

    assert done[UNIT] == InstallVerb.KEPT
    assert outside.read_bytes() == b"not ours"


def test_command_of_somebody_else_is_kept_without_another_beside_it(tmp_path: Path) -> None:
    at(tmp_path, LINK).parent.mkdir(parents=True)
    at(tmp_path, LINK).write_bytes(b"#!/bin/sh\n")

    done = install(tmp_path, plan_of())

    assert done[LINK] == InstallVerb.KEPT
    assert os.listdir(at(tmp_path, LINK).parent) == ["obcd"]


def test_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    (root / "etc").mkdir(parents=True)
    (root / "etc/systemd").symlink_to(outside)

    with pytest.raises(InputError, match=wording("etc-systemd-system-leads-out-of")):
        install(root, plan_of())
    assert list(outside.iterdir()) == []


def test_link_that_appears_while_installing_is_refused(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    plan = plan_of()
    steps = decide(plan, root, {})
    (root / "etc").mkdir(parents=True)
    (root / "etc/obcd").symlink_to(outside)

    with pytest.raises(InputError, match=wording("leads-out-of")):
        apply(plan, steps, root, {})
    assert list(outside.iterdir()) == []


def test_what_was_done_before_a_fault_is_remembered(tmp_path: Path) -> None:
    plan = plan_of()
    steps = decide(plan, tmp_path, {})
    at(tmp_path, LINK).mkdir(parents=True)  # in the way since it was decided

    with pytest.raises(InputError, match="cannot write"):
        apply(plan, steps, tmp_path, {})
    assert set(read_record(tmp_path)) == {UNIT, CONFIG}


def test_uninstall_leaves_no_trace_but_the_data(root: Path) -> None:
    done = uninstall(root)

    assert set(done.values()) == {InstallVerb.REMOVED}
    files = [path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
    assert files == []
    assert not at(root, "/etc/obcd").exists()
    assert at(root, "/var/spool/obcd/inbox").is_dir()


def test_uninstall_keeps_what_was_changed(root: Path) -> None:
    at(root, CONFIG).write_bytes(b"mine\n")
    at(root, LINK).unlink()

    done = uninstall(root)

    assert (done[CONFIG], done[LINK], done[UNIT]) == (InstallVerb.KEPT, InstallVerb.GONE, InstallVerb.REMOVED)
    assert at(root, CONFIG).read_bytes() == b"mine\n"


def test_uninstall_takes_away_what_was_put_beside(root: Path) -> None:
    at(root, CONFIG).write_bytes(b"mine\n")
    install(root, plan_of(config=b"config 2\n"))

    uninstall(root)

    assert os.listdir(at(root, "/etc/obcd")) == ["obcd.toml"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": []}', "not json"])
def test_record_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    at(tmp_path, RECORD).parent.mkdir(parents=True)
    at(tmp_path, RECORD).write_text(text)

    with pytest.raises(InputError, match=wording("installed-json-cannot-be-read")):
        read_record(tmp_path)


def test_installation_that_was_killed_can_be_taken_away_as_far_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    def killed_before_the_second_file(operation: str, path: str) -> None:
        if operation == "rename" and path.endswith("obcd.toml"):
            raise KilledError

    monkeypatch.setattr(disk, "before", killed_before_the_second_file)
    with pytest.raises(KilledError):
        install(tmp_path, plan_of())
    monkeypatch.undo()

    assert uninstall(tmp_path) == {UNIT: InstallVerb.REMOVED, CONFIG: InstallVerb.GONE, LINK: InstallVerb.GONE}
    assert not at(tmp_path, UNIT).exists()


def test_second_installation_at_the_same_time_is_refused(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(AlreadyRunningError, match=wording("another-obcd-install")), alone(tmp_path):
        pass

    with alone(tmp_path):
        assert tmp_path.is_dir()


def test_units_of_others_are_neither_stopped_nor_disabled(root: Path) -> None:
    at(root, "/etc/systemd/system/obcd-exporter.service").write_text("[Service]\n")

    commands = before_removal(root, read_record(root))

    assert commands == [("systemctl", "disable", "--now", "obcd.target")]
