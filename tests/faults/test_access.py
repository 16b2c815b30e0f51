"""Who may see, drop, read and take away: several users on one spool, and filesystems without ACLs."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from obcd.coordinator.spool_setup import open_spool
from obcd.errors import InputError
from obcd.spool.folders import acl, disk
from obcd.spool.folders.layout import Layout, SpoolLock
from obcd.spool.folders.user_folders import home_names
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Drop, Key
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, Gone, Rejected, Verdict, accept
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication
from obcd.spool.outbox.status_folders import StatusFolders, find_progress
from obcd.spool.submit.dropping import submit
from tests.faults.checks import Places, quick_syncs
from tests.faults.conftest import Mount
from tests.faults.story import SETTINGS
from tests.faults.users import ALICE, DAEMON, GROUP, MALLORY, User, needs_root
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, Crashed, answer, crash_at, drop_of, put, record, scan

pytestmark = needs_root


@pytest.fixture
def shared(scratch: Path) -> Iterator[Layout]:
    """Yield a spool as it is installed: the daemon's, an inbox of mode 3730, an outbox of mode 2750."""
    old = os.umask(0o027)
    scratch.chmod(0o755)
    layout = Layout.at(scratch / "root", per_user=True)
    for path, mode in ((layout.root, 0o755), (layout.inbox, 0o3730), (layout.outbox, 0o2750)):
        path.mkdir()
        os.chown(path, DAEMON.uid, GROUP)
        path.chmod(mode)
    (scratch / "notes.jsonl").write_bytes(THREE)
    (scratch / "notes.jsonl").chmod(0o644)
    said = DAEMON.does(lambda: layout.create(["clinical"]))
    assert said == "None"
    yield layout
    os.umask(old)


def dropped_by(user: User, layout: Layout, profile: str = "", name: str = "notes") -> Path:
    """Drop as `obcd submit` does."""
    said = user.does(lambda: submit(layout.inbox, layout.root.with_name("notes.jsonl"), profile, name).prompts)
    assert said == "3"
    return layout.inbox / profile / f"{name}.jsonl"


def take(layout: Layout, name: str = "") -> Verdict:
    """Accept what lies there, as a clerk does."""
    inbox = Inbox(layout.inbox, ["clinical"], 0.0, require_marker=False)
    (drop,) = [drop for now in (0.0, 1.0) for drop in scan(inbox, now) if name in drop.key.name]
    return accept(layout, order_of(drop))


def order_of(drop: Drop) -> AcceptOrder:
    return AcceptOrder(
        drop=drop, job=f"job-{drop.key.name[:-6]}", settings=SETTINGS, max_line_bytes=2**20, reject_torn=True
    )


def finish(layout: Layout) -> Path:
    """Accept, answer and publish what lies there."""
    verdict = take(layout)
    assert isinstance(verdict, Accepted)
    record(layout, verdict.header.id, [answer(number) for number in range(3)])
    return publication.publish(layout, verdict.header.id, {})


def denied(user: User, *acts: Callable[[], object]) -> bool:
    return all(user.does(act) == "PermissionError" for act in acts)


@pytest.mark.case("F8")
@pytest.mark.parametrize("profile", ["", "clinical"])
def test_drop_of_one_user_is_neither_seen_nor_taken_by_another(shared: Layout, profile: str) -> None:
    path = dropped_by(ALICE, shared, profile)
    folder = path.parent
    bait = folder / "bait"

    assert denied(
        MALLORY,
        lambda: os.listdir(folder),
        lambda: os.rename(path, bait),
        path.unlink,
        path.read_bytes,
        lambda: path.chmod(0o666),
        lambda: path.write_bytes(b"{}"),
        lambda: os.listdir(shared.claims),
        lambda: os.listdir(shared.jobs),
        lambda: os.rename(shared.claims.parent, bait),
    )
    assert folder.stat().st_mode & 0o7777 == 0o3730
    assert path.read_bytes() == THREE
    assert path.stat().st_uid == ALICE.uid


@pytest.mark.case("F9")
@pytest.mark.parametrize("profile", ["", "clinical"])
@pytest.mark.parametrize(
    ("mode", "owner", "part", "remedy"),
    [
        (0o2770, DAEMON, wording("its-users-may-delete-and-replace"), "chmod 3730 {}"),
        (0o0777, DAEMON, wording("its-users-may-delete-and-replace"), "chmod 3730 {}"),
        (0o3730, ALICE, wording("belongs-to-61002-not-to-the"), "sudo chown 61001 {}"),
    ],
)
def test_inbox_that_does_not_keep_its_users_apart_is_refused_with_what_mends_it(
    shared: Layout, profile: str, mode: int, owner: User, part: str, remedy: str
) -> None:
    folder = shared.inbox / profile
    os.chown(folder, owner.uid, GROUP)
    folder.chmod(mode)

    said = DAEMON.does(lambda: refusal(shared))

    assert said.startswith("InputError: ")
    assert part in said
    assert said.endswith(remedy.format(folder))
    folder.chmod(0o3730)
    os.chown(folder, DAEMON.uid, GROUP)
    assert DAEMON.does(lambda: refusal(shared)) == ""


def refusal(layout: Layout) -> str:
    try:
        open_spool(layout, ["clinical"], SpoolLock(layout), takes_drops=True)
    except InputError as error:
        return f"InputError: {error}"
    return ""


@pytest.mark.case("F10")
@pytest.mark.parametrize("profile", ["", "clinical"])
def test_answers_are_read_by_their_submitter_alone(shared: Layout, profile: str) -> None:
    dropped_by(ALICE, shared, profile)

    folder = Path(DAEMON.does(lambda: finish(shared)))

    assert folder == shared.outbox / str(ALICE.uid) / profile / "notes"
    names = ["input.jsonl", "manifest.json", "responses.jsonl"]
    assert ALICE.does(lambda: sorted(os.listdir(folder))) == str(names)
    for name in names:
        assert ALICE.does((folder / name).read_bytes) == str((folder / name).read_bytes())
        assert denied(MALLORY, (folder / name).read_bytes, lambda name=name: (folder / name).stat())  # type: ignore[misc]
    assert denied(ALICE, (folder / "more").touch, (folder / names[0]).unlink)
    home = shared.outbox / str(ALICE.uid)
    assert denied(MALLORY, lambda: os.listdir(home), lambda: os.listdir(folder), lambda: os.rename(home, folder))
    assert all(path.stat().st_mode & 0o007 == 0 for path in shared.outbox.glob("**/*"))
    assert MALLORY.does(lambda: publication.find_published(shared.outbox, "", "notes.jsonl", profile)) == "None"
    assert "notes" in ALICE.does(lambda: found_by_drop_id(shared, folder, profile))


def found_by_drop_id(layout: Layout, folder: Path, profile: str) -> Path:
    drop_id = disk.read_json(folder / "manifest.json")["drop_id"]
    found = publication.find_published(layout.outbox, drop_id, "notes.jsonl", profile)
    assert found is not None
    return found[0]


@pytest.mark.case("F10")
def test_rejected_drop_is_given_back_to_its_submitter_alone(shared: Layout) -> None:
    path = shared.inbox / "blank.jsonl"
    ALICE.does(lambda: path.write_bytes(b"\n\n"))

    def reject() -> Path:
        verdict = take(shared)
        assert isinstance(verdict, Rejected)
        return verdict.folder

    folder = Path(DAEMON.does(reject))

    assert folder == shared.outbox / str(ALICE.uid) / "blank.rejected"
    assert ALICE.does((folder / "input.jsonl").read_bytes) == str(b"\n\n")
    assert denied(MALLORY, (folder / "input.jsonl").read_bytes)


@pytest.mark.case("F10")
@pytest.mark.parametrize("profile", ["", "clinical"])
def test_status_folders_are_seen_by_their_submitter_alone_and_go(shared: Layout, profile: str) -> None:
    dropped_by(ALICE, shared, profile)
    header = JobHeader(id="job1", name="notes.jsonl", profile=profile, uid=ALICE.uid, settings=SETTINGS)

    def show() -> None:
        folders = StatusFolders(shared)
        folders.show_progress(header, {"done": 1, "drop_id": "d1"})
        folders.show_waiting({Key(profile, "notes.jsonl"): "it is too early"})

    DAEMON.does(show)

    place = shared.outbox / str(ALICE.uid) / profile
    why, progress = place / "notes.waiting" / "why.txt", place / "notes.partial" / "progress.json"
    assert "too early" in ALICE.does(why.read_text)
    found = ALICE.does(lambda: find_progress(shared.outbox, "d1", "notes.jsonl", profile))
    assert found == "{'done': 1, 'drop_id': 'd1'}"
    assert denied(MALLORY, why.read_text, progress.read_text, lambda: os.listdir(place))
    DAEMON.does(lambda: StatusFolders(shared).clear())
    assert list(place.iterdir()) == []


@pytest.mark.case("F10")
@pytest.mark.parametrize("first", [True, False], ids=["switched off", "switched on"])
def test_rule_that_changes_over_a_restart_holds_for_what_is_published_from_then_on(shared: Layout, first: bool) -> None:
    layouts = [Layout(shared.root, shared.inbox, shared.outbox, per_user) for per_user in (first, not first)]
    dropped_by(ALICE, shared, name="early")
    DAEMON.does(lambda: finish(layouts[0]))
    dropped_by(ALICE, shared, name="late")
    DAEMON.does(lambda: take(layouts[0]))

    def go_on() -> None:
        (header,) = recovery.recover(layouts[1]).jobs
        record(shared, header.id, [answer(number) for number in range(3)])
        publication.publish(layouts[1], header.id, {})

    assert DAEMON.does(go_on) == "None"

    places = {True: shared.outbox / str(ALICE.uid), False: shared.outbox}
    early, late = places[first] / "early", places[not first] / "late"
    for folder, is_private in ((early, first), (late, not first)):
        assert ALICE.does((folder / "input.jsonl").read_bytes) == str(THREE)
        assert denied(MALLORY, (folder / "input.jsonl").read_bytes) is is_private


@pytest.mark.case("F10")
def test_job_that_a_killed_coordinator_had_made_private_is_the_groups_again_by_the_new_rule(shared: Layout) -> None:
    dropped_by(ALICE, shared)
    public = Layout(shared.root, shared.inbox, shared.outbox)

    def be_killed_just_before_the_rename() -> None:
        def before(operation: str, path: str) -> None:
            if operation == "rename" and str(shared.outbox) in path:
                os._exit(0)

        disk.before = before  # the child's own
        finish(shared)

    DAEMON.does(be_killed_just_before_the_rename)
    assert acl.readers(shared.jobs / "job-notes") == (ALICE.uid,)
    folder = Path(DAEMON.does(lambda: publication.publish(public, "job-notes", {})))

    assert folder == shared.outbox / "notes"
    assert MALLORY.does((folder / "input.jsonl").read_bytes) == str(THREE)
    assert stat.S_IMODE(folder.stat().st_mode) & 0o777 == 0o750


@pytest.mark.case("F10")
@pytest.mark.parametrize("content", [THREE, b"\n\n"], ids=["answered", "rejected"])
def test_crash_at_any_step_of_private_publishing_shows_nobody_what_is_not_his(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    places = Places(scratch / "places")
    with quick_syncs():
        for number in itertools.count(1):
            layout = Layout.at(places.next(), per_user=True)
            layout.create(["clinical"])
            path = put(layout, content, profile="clinical")
            os.chown(path, ALICE.uid, GROUP)
            drop = drop_of(path, "clinical")

            with crash_at(number, monkeypatch):
                is_whole = publish_or_crash(layout, drop)
            assert_private(layout)
            if not is_whole:
                assert publish_or_crash(layout, drop)

            assert_private(layout)
            assert len(list(layout.outbox.glob("**/input.jsonl"))) == 1
            if is_whole:
                break
    assert number > 30


def publish_or_crash(layout: Layout, drop: Drop) -> bool:
    """Take a drop to the outbox; False when a crash came between."""
    try:
        verdict = accept(layout, order_of(drop))
        if isinstance(verdict, Accepted):
            done = ledger.replay(layout.jobs / verdict.header.id / ledger.NAME, 3).done
            record(layout, verdict.header.id, [answer(number) for number in range(3) if not done[number]])
            publication.publish(layout, verdict.header.id, {})
        elif isinstance(verdict, Gone):  # shown, or accepted and complete
            for job in recovery.recover(layout).unpublished:
                publication.publish(layout, job, {})
    except Crashed:
        return False
    return True


def assert_private(layout: Layout) -> None:
    """Assert that all in the outbox is the submitter's alone; an empty home may still be nobody's."""
    for path in layout.outbox.glob("**/*"):
        if acl.readers(path) != (ALICE.uid,):
            assert path.parent == layout.outbox
            assert path.stat().st_mode & 0o077 == 0
            assert not list(path.iterdir())


@pytest.mark.case("F11")
def test_without_acls_the_start_is_refused_with_what_to_do_and_nothing_is_shown(scratch: Path, mount: Mount) -> None:
    layout = Layout.at(mount(scratch / "plain", "mode=755", kind="ramfs") / "root", per_user=True)
    lock = SpoolLock(layout)

    with pytest.raises(InputError, match=wording("needs-acls-put-the-root-on")):
        open_spool(layout, [], lock, takes_drops=True)

    assert list(layout.jobs.iterdir()) == list(layout.outbox.iterdir()) == []
    lock.check_free()
    open_spool(Layout(layout.root, layout.inbox, layout.outbox), [], lock, takes_drops=True)
    lock.release()


@pytest.mark.case("F11")
def test_job_that_cannot_be_kept_from_others_is_not_shown(shared: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped_by(ALICE, shared)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    assert DAEMON.does(lambda: finish(shared)) == "OSError"

    assert not list(shared.outbox.glob("**/manifest.json"))
    monkeypatch.undo()
    assert DAEMON.does(lambda: publication.publish(shared, "job-notes", {})) == f"{shared.outbox}/{ALICE.uid}/notes"


def test_home_is_called_by_the_name_where_there_is_one() -> None:
    assert home_names(0) == ("root", "0")
    assert home_names(ALICE.uid) == (str(ALICE.uid),)
