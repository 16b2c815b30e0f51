"""Jobs that the API drops for somebody: whose they are, and who may read their folders."""

from __future__ import annotations

import json
import os
import pwd
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.spool.folders import acl, user_folders
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.markers import Marker
from obcd.spool.intake.acceptance import Rejected, accept
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, read_header
from obcd.spool.outbox import publication
from obcd.spool.outbox.status_folders import StatusFolders
from tests.faults.users import needs_root
from tests.unit.spool.spools import THREE, accepted, answer, drop_of, order_of, put, put_marker

API = 61009
SOMEBODY = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
pytestmark = needs_root  # to give a file to the API's user


@pytest.fixture(params=[False, True], ids=["for the group", "per user"])
def spool(layout: Layout, request: pytest.FixtureRequest) -> Layout:
    if not acl.has_acls(layout.root):
        pytest.skip("the temporary folder's filesystem keeps no ACLs")
    return replace(layout, per_user=request.param)


def order(layout: Layout, content: bytes = THREE, submitter: str = SOMEBODY.pw_name, **changes: Any) -> Any:
    file = put(layout, content)
    os.chown(file, API, -1)
    put_marker(file, submitter=submitter)
    return order_of(drop_of(file), api=API, **changes)


def published(layout: Layout, header: JobHeader) -> Path:
    folder = layout.jobs / header.id
    writer = ledger.LedgerWriter(folder, 0)
    writer.append([answer(number) for number in range(header.requests)])
    writer.close()
    return publication.publish(layout, header.id, {})


def test_job_is_the_submitters_and_only_the_api_reads_it_too(spool: Layout) -> None:
    header = accepted(spool, order(spool))
    folder = published(spool, header)

    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["submitter"] == {"uid": SOMEBODY.pw_uid, "name": SOMEBODY.pw_name}
    assert manifest["dropped_by"]["uid"] == header.dropped_by == API
    assert folder.is_relative_to(spool.outbox / SOMEBODY.pw_name) == spool.per_user
    for path in (folder, *folder.iterdir()):
        assert set(acl.readers(path)) == ({API, SOMEBODY.pw_uid} if spool.per_user else {API})
        assert not path.stat().st_mode & 0o007
    assert API in acl.readers(spool.outbox)
    assert API not in acl.heirs(folder.parent), "what others publish there later is not the API's"


def test_other_jobs_stay_closed_to_the_api(spool: Layout) -> None:
    published(spool, accepted(spool, order(spool)))
    other = put(spool, THREE, "other.jsonl")
    os.chown(other, SOMEBODY.pw_uid, -1)

    folder = published(spool, accepted(spool, order_of(drop_of(other), "job2", api=API)))

    assert all(API not in acl.readers(path) for path in (folder, *folder.iterdir()))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_progress_is_shown_to_the_api_whenever_it_is_written(spool: Layout) -> None:
    header = accepted(spool, order(spool))
    folders = StatusFolders(spool)

    for number in range(2):
        folders.show_progress(header, {"done": number})

    (path,) = spool.outbox.rglob("progress.json")
    assert API in acl.readers(path)
    assert API in acl.readers(path.parent.parent)


@pytest.mark.parametrize("name", ["root", "nobody-of-this-name"])
def test_drop_for_nobody_possible_is_rejected_and_stays_the_apis(spool: Layout, name: str) -> None:
    verdict = accept(spool, order(spool, submitter=name))

    assert isinstance(verdict, Rejected)
    assert json.loads((verdict.folder / "manifest.json").read_bytes())["submitter"]["uid"] == API


def test_rejected_drop_is_the_submitters(spool: Layout) -> None:
    verdict = accept(spool, order(spool, b"\n\n"))

    assert isinstance(verdict, Rejected)
    manifest = json.loads((verdict.folder / "manifest.json").read_bytes())
    assert manifest["submitter"]["uid"] == SOMEBODY.pw_uid
    assert API in acl.readers(verdict.folder / "why.txt")


def test_marker_of_another_drop_makes_nobody_its_submitter(spool: Layout) -> None:
    claimed = order(spool)
    forged = replace(claimed, drop=replace(claimed.drop, marker=Marker(submitter="root")))
    os.chown(spool.inbox / "notes.jsonl", SOMEBODY.pw_uid, -1)
    forged = replace(forged, drop=replace(forged.drop, identity=drop_of(spool.inbox / "notes.jsonl").identity))

    header = accepted(spool, forged)

    assert (header.uid, header.dropped_by) == (SOMEBODY.pw_uid, None)


def test_job_of_an_earlier_version_has_nobody_else(spool: Layout) -> None:
    header = accepted(spool, order_of(drop_of(put(spool, THREE))))

    assert "dropped_by" not in json.loads((spool.jobs / header.id / "job.json").read_bytes())
    assert read_header(spool.jobs / header.id).dropped_by is None


def test_home_stays_its_users_after_the_api_was_let_pass(layout: Layout) -> None:
    spool = replace(layout, per_user=True)
    home = user_folders.make_place(spool, SOMEBODY.pw_uid, "")
    user_folders.let_pass(spool, home, API)

    assert user_folders.make_place(spool, SOMEBODY.pw_uid, "") == home
    assert set(acl.readers(home)) == {SOMEBODY.pw_uid, API}
    assert user_folders.is_home(spool, home)
    assert not user_folders.is_home(layout, layout.outbox / "clinical")
