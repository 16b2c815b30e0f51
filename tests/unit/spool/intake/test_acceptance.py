from __future__ import annotations

import contextlib
import errno
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.coordinator.jobs.running_job import idle_view
from obcd.coordinator.view import JobState
from obcd.core.request.context import ContextPlan
from obcd.core.request.records import canonical_model
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.intake import acceptance, reading
from obcd.spool.intake.acceptance import Accepted, Gone, NotYet, Rejected, accept, accept_copy
from obcd.spool.intake.reading import AcceptOrder, RejectedError
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader, read_header, read_places, read_request_line, signature_column
from obcd.spool.outbox.publication import publish
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    SETTINGS,
    THREE,
    accept_bytes,
    accepted,
    answer,
    drop_of,
    lines_of,
    order_of,
    put,
    put_marker,
    record,
)


def failures(layout: Layout, header: JobHeader) -> dict[int, str]:
    """Return `{line number: message}` of what the ledger holds."""
    records = [json.loads(raw) for _, raw in ledger.read_valid(layout.jobs / header.id / ledger.NAME)]
    assert all(record["outcome"] == "failure" for record in records)
    return {record["line"]: record["message"] for record in records}


def settled(layout: Layout) -> tuple[Path, AcceptOrder]:
    """Drop three prompts; returns where they lie, and the order to accept them."""
    path = put(layout, THREE)
    return path, order_of(drop_of(path))


def requests(layout: Layout, header: JobHeader) -> list[bytes]:
    return [read_request_line(layout.jobs / header.id, number)[1] for number in range(header.requests)]


# --- what becomes a job ----------------------------------------------------------------------------------------------


def test_accepted_drop_is_copied_hashed_and_indexed(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)

    folder = layout.jobs / "job1"
    assert (folder / "input.jsonl").read_bytes() == THREE
    assert header == read_header(folder)
    assert (header.name, header.size, header.lines, header.requests, header.bad_lines) == (
        "notes.jsonl", len(THREE), 3, 3, 0,
    )  # fmt: skip
    assert header.sha256 == disk.file_sha256(folder / "input.jsonl")
    assert header.uid == os.getuid()
    assert [place.line for place in read_places(folder)] == [1, 2, 3]
    assert requests(layout, header) == THREE.splitlines()
    assert failures(layout, header) == {}


def test_original_lies_in_its_claim_until_the_job_is_published(layout: Layout) -> None:
    accept_bytes(layout, THREE)

    assert list(layout.inbox.glob("*.jsonl")) == []
    assert (layout.claim("job1", "") / "notes.jsonl").read_bytes() == THREE


def test_private_folders_are_closed_to_others(layout: Layout) -> None:
    accept_bytes(layout, THREE)

    for folder in (layout.jobs, layout.jobs / "job1", layout.claims, layout.claim("job1", "")):
        assert folder.stat().st_mode & 0o077 == 0


def test_profile_of_a_drop_is_in_header_and_claim(layout: Layout) -> None:
    path = put(layout, THREE, profile="clinical")

    header = accepted(layout, order_of(drop_of(path, "clinical")))

    assert header.profile == "clinical"
    assert (layout.claims / "job1@clinical" / "notes.jsonl").exists()


def test_bad_lines_are_failures_in_the_ledger_with_their_numbers(layout: Layout) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}\nnot json\n{"prompt": ""}\n{"prompt": "b"}\n[1]\n')

    assert (header.requests, header.bad_lines) == (5, 3)
    found = failures(layout, header)
    assert sorted(found) == [2, 3, 5]
    assert found[2].startswith("not JSON")
    replay = ledger.replay(layout.jobs / "job1" / ledger.NAME, 5)
    assert (replay.done, replay.counts.failures) == (bytes([0, 1, 1, 0, 1]), 3)


def test_keys_that_look_like_wishes_are_noted_and_go_into_the_manifest(layout: Layout) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}\n{"prompt": "b", "temperature": 0, "mrn": 7}\n')
    assert read_header(layout.jobs / "job1").unobeyed == header.unobeyed == {"temperature": 2}

    record(layout, "job1", [answer(0), answer(1)])
    manifest = json.loads((publish(layout, "job1", {}) / "manifest.json").read_bytes())

    assert manifest["input"]["unobeyed"] == {"temperature": 2}


def test_remarks_about_a_schema_are_noted_as_keys_are(layout: Layout) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}\n{"prompt": "b", "format": {"schema": {"type": "object"}}}\n')

    assert list(header.unobeyed.values()) == [2]


def test_job_of_only_bad_lines_is_a_job(layout: Layout) -> None:
    header = accept_bytes(layout, b"x\ny\n")

    assert (header.requests, header.bad_lines) == (2, 2)


def test_byte_order_mark_at_the_start_is_stripped(layout: Layout) -> None:
    header = accept_bytes(layout, b"\xef\xbb\xbf" + THREE)

    assert requests(layout, header) == THREE.splitlines()
    assert failures(layout, header) == {}


def test_byte_order_mark_in_the_middle_is_a_bad_line(layout: Layout) -> None:
    header = accept_bytes(layout, THREE + b"\xef\xbb\xbf" + THREE)

    assert list(failures(layout, header)) == [4]


def test_windows_line_ends_are_read_and_kept(layout: Layout) -> None:
    content = THREE.replace(b"\n", b"\r\n")

    header = accept_bytes(layout, content)

    assert failures(layout, header) == {}
    assert requests(layout, header) == content.split(b"\n")[:-1]


def test_blank_lines_count_as_lines_and_not_as_requests(layout: Layout) -> None:
    header = accept_bytes(layout, b'\n{"prompt": "a"}\n  \t\r\n\n{"prompt": "b"}\n\n')

    assert (header.lines, header.requests, header.bad_lines) == (6, 2, 0)
    assert [place.line for place in read_places(layout.jobs / "job1")] == [2, 5]


def test_lines_end_at_line_feeds_only(layout: Layout) -> None:
    content = '{"prompt": "a\u2028b\u0085c"}\n{"prompt": "d"}\r{"prompt": "e"}\n'.encode()

    header = accept_bytes(layout, content)

    assert header.requests == 2
    assert list(failures(layout, header)) == [2]


def test_last_line_without_line_feed_is_a_request(layout: Layout) -> None:
    header = accept_bytes(layout, THREE[:-1])

    assert (header.lines, header.requests, header.bad_lines) == (3, 3, 0)
    assert requests(layout, header) == THREE.splitlines()


@pytest.mark.parametrize("last", [b'{"foo": 1}', b'{"prompt": ""}', b'{"prompt": "a", "options": {"heat": 1}}'])
def test_last_line_that_is_whole_but_wrong_is_a_bad_line_and_not_a_torn_file(layout: Layout, last: bytes) -> None:
    header = accept_bytes(layout, THREE + last)

    assert (header.requests, header.bad_lines) == (4, 1)
    assert list(failures(layout, header)) == [4]


def test_different_models_of_lines_are_counted_as_signatures(layout: Layout) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}\n{"prompt": "b", "model": "phi4"}\n{"prompt": "c"}\n')

    assert [signature.model for signature in header.signatures] == [canonical_model("llama3.2"), "phi4:latest"]
    assert [place.signature for place in read_places(layout.jobs / "job1")] == [0, 1, 0]


def test_lines_longer_than_a_block_are_read_whole(layout: Layout) -> None:
    long = json.dumps({"prompt": "x" * (disk.BLOCK + 5000)}).encode()
    path = put(layout, THREE + long + b"\n" + THREE)

    header = accepted(layout, order_of(drop_of(path), max_line_bytes=2**22))

    assert requests(layout, header) == [*THREE.splitlines(), long, *THREE.splitlines()]


def test_overlong_line_is_skipped_with_bounded_memory(layout: Layout) -> None:
    path = layout.inbox / "notes.jsonl"
    with path.open("wb") as file:
        file.write(b'{"prompt": "before"}\n')
        file.seek(20 * 2**20, os.SEEK_CUR)  # a hole: the line is 20 MiB long and costs no disk
        file.write(b'\n{"prompt": "after"}\n')
    order = order_of(drop_of(path), max_line_bytes=2**16)

    tracemalloc.start()
    verdict = accept(layout, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert isinstance(verdict, Accepted)
    assert (verdict.header.requests, verdict.header.lines) == (3, 3)
    assert failures(layout, verdict.header) == {2: wording("longer-than-65536-bytes-spool-max")}
    assert requests(layout, verdict.header)[2] == b'{"prompt": "after"}'
    assert peak < 6 * 2**20


def test_line_at_the_limit_is_taken_and_one_above_is_not(layout: Layout) -> None:
    fits = json.dumps({"prompt": "x" * 1010}).encode().ljust(1024)
    path = put(layout, fits + b"\n" + fits + b" \n")

    header = accepted(layout, order_of(drop_of(path), max_line_bytes=1024))

    assert list(failures(layout, header)) == [2]


# --- what has to wait ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", wording("it-is-empty")),
        (THREE + b'{"prompt": "fo', "cut off"),
        (THREE + b"\0\0\0\0", "cut off"),
        (THREE[:-1] + b"}", "cut off"),
    ],
)
def test_what_looks_like_a_broken_upload_waits_then_is_rejected(layout: Layout, content: bytes, why: str) -> None:
    path = put(layout, content)

    early = accept(layout, order_of(drop_of(path), "job1"))
    assert isinstance(early, NotYet)
    assert why in early.why
    assert path.read_bytes() == content

    late = accept(layout, order_of(drop_of(path), "job2", reject_torn=True))
    assert isinstance(late, Rejected)
    assert why in late.why
    assert late.folder == layout.outbox / "notes.rejected"
    assert (late.folder / "input.jsonl").read_bytes() == content
    assert not path.exists()


def test_drop_that_changed_since_it_settled_waits(layout: Layout) -> None:
    path, order = settled(layout)
    path.write_bytes(THREE + THREE)

    assert isinstance(accept(layout, order), NotYet)
    assert path.exists()


def test_same_file_again_waits_while_its_twin_is_unfinished(layout: Layout) -> None:
    first = accept_bytes(layout, THREE)
    again = put(layout, THREE)

    verdict = accept(layout, order_of(drop_of(again), "job2", unfinished=(first,)))

    assert verdict == NotYet(wording("the-same-file-is-being-answered-2"), until_published=True)


@pytest.mark.parametrize("change", [{"name": "other.jsonl"}, {"uid": 4711}, {"profile": "clinical"}, {"sha256": "0"}])
def test_only_the_same_path_submitter_and_content_make_a_twin(layout: Layout, change: dict[str, Any]) -> None:
    first = replace(accept_bytes(layout, THREE), **change)
    again = put(layout, THREE)

    assert isinstance(accept(layout, order_of(drop_of(again), "job2", unfinished=(first,))), Accepted)


def test_same_name_with_other_content_is_a_job_of_its_own(layout: Layout) -> None:
    first = accept_bytes(layout, THREE)
    again = put(layout, THREE.upper().replace(b"PROMPT", b"prompt"))

    assert isinstance(accept(layout, order_of(drop_of(again), "job2", unfinished=(first,))), Accepted)


def test_drop_that_was_taken_away_is_gone(layout: Layout) -> None:
    path, order = settled(layout)
    path.unlink()

    assert accept(layout, order) == Gone()
    assert list(layout.claims.iterdir()) == []


# --- what can never become a job -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x1f\x8b\x08\x00rest", wording("it-is-a-gzip-file")),
        (b"PK\x03\x04rest", wording("it-is-a-zip-file")),
        ('{"prompt": "a"}\n'.encode("utf-16"), "it is UTF-16 text"),
        ('{"prompt": "a"}\n'.encode("utf-32"), "it is UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n", wording("it-is-a-picture")),
        (b"\x7fELF\x02", wording("it-is-a-program")),
        (b"%PDF-1.7\n", wording("it-is-a-pdf")),
        (b"\n\n  \n", wording("there-is-no-prompt-in-it")),
    ],
)
def test_what_is_no_prompt_file_is_rejected_at_once_with_the_reason(layout: Layout, content: bytes, why: str) -> None:
    verdict = accept(layout, order_of(drop_of(put(layout, content))))

    assert isinstance(verdict, Rejected)
    assert why in verdict.why
    manifest = disk.read_json(verdict.folder / "manifest.json")
    assert (manifest["job"], manifest["name"], manifest["rejected"]) == ("job1", "notes.jsonl", verdict.why)
    assert (verdict.folder / "input.jsonl").read_bytes() == content
    assert (verdict.folder / "why.txt").read_text("utf-8") == f"notes.jsonl: {verdict.why}\n"
    assert sorted(path.name for path in verdict.folder.iterdir()) == ["input.jsonl", "manifest.json", "why.txt"]
    assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []


def test_rejected_folder_does_not_take_a_name_that_is_taken(layout: Layout) -> None:
    (layout.outbox / "notes.rejected").mkdir()

    verdict = accept(layout, order_of(drop_of(put(layout, b"\n"))))

    assert isinstance(verdict, Rejected)
    assert verdict.folder == layout.outbox / "notes.job1.rejected"


def test_rejected_file_of_a_profile_lies_under_it(layout: Layout) -> None:
    verdict = accept(layout, order_of(drop_of(put(layout, b"\n", profile="clinical"), "clinical")))

    assert isinstance(verdict, Rejected)
    assert verdict.folder == layout.outbox / "clinical" / "notes.rejected"


@pytest.mark.parametrize("promise", [{"sha256": "0" * 64}, {"lines": 4}, {"sha256": "", "lines": 2}])
def test_file_that_is_not_what_its_marker_promised_is_rejected(layout: Layout, promise: dict[str, Any]) -> None:
    path = put(layout, THREE)
    put_marker(path, bytes=len(THREE), drop_id="d1", **promise)

    verdict = accept(layout, order_of(drop_of(path)))

    assert isinstance(verdict, Rejected)
    assert wording("its-marker-says") in verdict.why
    assert disk.read_json(verdict.folder / "manifest.json")["drop_id"] == "d1"


def test_marker_that_is_right_goes_with_its_file_and_gives_its_drop_id(layout: Layout) -> None:
    path = put(layout, THREE)
    marker = put_marker(path, bytes=len(THREE), lines=3, drop_id="d1")

    header = accepted(layout, order_of(drop_of(path)))

    assert header.drop_id == "d1"
    assert not marker.exists()


def test_deadline_that_is_not_understood_is_said_to_the_submitter(layout: Layout) -> None:
    path = put(layout, THREE)
    put_marker(path, bytes=len(THREE), by="soonish")

    header = accepted(layout, order_of(drop_of(path)))

    assert header.by == 0
    assert header.remark.startswith(wording("it-has-no-deadline-because-by-in-its-marker"))
    assert read_header(layout.jobs / header.id).remark == header.remark
    assert idle_view(header, JobState.ACCEPTED).remark == header.remark


def test_job_without_a_remark_has_none_in_its_files(layout: Layout) -> None:
    header = accepted(layout, order_of(drop_of(put(layout, THREE))))

    assert "remark" not in header.to_json()
    assert "remark" not in idle_view(header, JobState.ACCEPTED).to_json()


def test_marker_of_a_newer_drop_is_left_for_that_one(layout: Layout) -> None:
    path = put(layout, THREE)
    put_marker(path, bytes=len(THREE), drop_id="d1")
    order = order_of(drop_of(path))
    marker = put_marker(path, bytes=99, drop_id="d2")

    header = accepted(layout, order)

    assert header.drop_id == "d1"
    assert marker.exists()


def test_checksum_of_the_marker_vouches_for_a_last_line_that_looks_torn(layout: Layout) -> None:
    content = THREE + b'{"prompt": "fo'
    path = put(layout, content)
    put_marker(path, sha256=disk.file_sha256(path))

    header = accepted(layout, order_of(drop_of(path)))

    assert list(failures(layout, header)) == [4]


# --- what changes under our hands ------------------------------------------------------------------------------------


def on_call(monkeypatch: pytest.MonkeyPatch, operation: str, name: str, act: Any, times: int = 1) -> list[str]:
    """Do something just before a state-changing call on a path that ends in `name`, the first `times` times."""
    done: list[str] = []

    def before(called: str, path: str) -> None:
        if called == operation and path.endswith(name) and len(done) < times:
            done.append(path)
            act()

    monkeypatch.setattr(disk, "before", before)
    return done


@contextlib.contextmanager
def write_while_copied(path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> Iterator[list[str]]:
    """Append through a descriptor that outlives the claim, each of the first `times` times that it is copied."""
    with path.open("ab", buffering=0) as writer:
        yield on_call(monkeypatch, "fsync", "input.jsonl", lambda: writer.write(THREE), times)


def test_file_that_grows_while_it_is_copied_is_copied_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = settled(layout)

    with write_while_copied(path, monkeypatch, 2) as done:
        verdict = accept(layout, order)

    assert len(done) == 2
    assert isinstance(verdict, Accepted)
    assert verdict.header.requests == 9


def test_file_that_goes_on_changing_is_given_back_to_be_taken_later(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", pytest.fail)
    path, order = settled(layout)

    with (
        write_while_copied(path, monkeypatch, 3) as done,
        pytest.raises(OSError, match=wording("it-is-still-being-written")) as caught,
    ):
        accept(layout, order)
    assert caught.value.errno == errno.EBUSY
    assert len(done) == acceptance.COPIES
    assert list(layout.jobs.iterdir()) == []

    verdict = acceptance.accept_claimed(layout, order)
    assert isinstance(verdict, Accepted)
    assert verdict.header.requests == 12


def test_chmod_while_it_is_copied_is_no_change_of_the_content(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = settled(layout)
    holder = os.open(path, os.O_RDONLY)
    ctime = os.fstat(holder).st_ctime_ns

    def change() -> None:
        while os.fstat(holder).st_ctime_ns <= ctime:
            os.fchmod(holder, 0o600)
            os.fchmod(holder, 0o640)

    done = on_call(monkeypatch, "fsync", "input.jsonl", change, 100)

    assert isinstance(accept(layout, order), Accepted)
    assert len(done) == 1
    os.close(holder)


def test_marker_turned_to_nonsense_meanwhile_is_left(layout: Layout) -> None:
    path = put(layout, THREE)
    marker = put_marker(path, bytes=len(THREE))
    order = order_of(drop_of(path))
    marker.write_text("[" * 4000, "utf-8")

    assert isinstance(accept(layout, order), Accepted)
    assert marker.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_swapped_in_before_the_claim_is_dropped_unread(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    path, secret = put(layout, THREE), tmp_path / "secret"
    secret.write_bytes(THREE)
    order = order_of(drop_of(path))

    def swap() -> None:
        path.unlink()
        path.symlink_to(secret) if kind == "link" else os.mkfifo(path)

    done = on_call(monkeypatch, "rename", "notes.jsonl", swap)

    assert accept(layout, order) == Gone()
    assert done
    assert secret.read_bytes() == THREE
    assert list(layout.claims.iterdir()) == list(layout.jobs.iterdir()) == []


def test_newer_file_swapped_in_before_the_claim_is_simply_the_drop(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = settled(layout)

    def swap() -> None:
        path.unlink()
        path.write_bytes(b'{"prompt": "newer"}\n')

    on_call(monkeypatch, "rename", "notes.jsonl", swap)
    header = accepted(layout, order)

    assert header.requests == 1
    assert requests(layout, header) == [b'{"prompt": "newer"}']


def test_drop_taken_away_before_the_claim_leaves_no_claim(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = settled(layout)
    on_call(monkeypatch, "rename", "notes.jsonl", path.unlink)

    assert accept(layout, order) == Gone()
    assert list(layout.claims.iterdir()) == []


def test_claim_that_the_system_refuses_leaves_the_drop_and_no_claim(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = settled(layout)

    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    on_call(monkeypatch, "rename", "notes.jsonl", refuse)

    with pytest.raises(PermissionError):
        accept(layout, order)
    assert path.read_bytes() == THREE
    assert list(layout.claims.iterdir()) == []


def test_folders_of_claims_are_made_again_where_the_inbox_was_made_anew(layout: Layout) -> None:
    layout.claims.rmdir()
    layout.claims.parent.rmdir()

    header = accept_bytes(layout, THREE)

    assert header.requests == 3
    assert layout.claims.stat().st_mode & 0o077 == 0


# --- the same order again, after a clerk that died -------------------------------------------------------------------


def test_order_that_a_dead_clerk_had_claimed_is_carried_on(layout: Layout) -> None:
    path, order = settled(layout)
    layout.claim("job1", "").mkdir()
    path.rename(layout.claim("job1", "") / path.name)

    header = accepted(layout, order)

    assert header.requests == 3


def test_order_that_a_dead_clerk_had_carried_out_is_not_carried_out_again(layout: Layout) -> None:
    _, order = settled(layout)
    first = accept(layout, order)

    assert accept(layout, order) == first
    assert acceptance.accept_claimed(layout, order) == first
    assert [folder.name for folder in layout.jobs.iterdir()] == ["job1"]


def test_order_of_a_dead_clerk_is_not_mixed_up_with_a_new_file_of_that_name(layout: Layout) -> None:
    order = order_of(drop_of(put(layout, THREE)))
    first = accept(layout, order)
    newer = put(layout, THREE + THREE)

    assert accept(layout, order) == first
    assert newer.exists()


def test_rejection_that_was_shown_already_is_not_shown_twice(layout: Layout) -> None:
    order = order_of(drop_of(put(layout, b"\n")))
    first = accept(layout, order)
    assert isinstance(first, Rejected)

    assert accept(layout, order) == Gone()
    assert acceptance.accept_claimed(layout, order) == Gone()
    assert acceptance.reject_claimed(layout, order, "again").folder == first.folder
    assert [folder.name for folder in layout.outbox.iterdir()] == ["notes.rejected"]


def test_unread_claim_can_be_given_back(layout: Layout) -> None:
    order = order_of(drop_of(put(layout, THREE)))
    layout.claim("job1", "").mkdir()
    (layout.inbox / "notes.jsonl").rename(layout.claim("job1", "") / "notes.jsonl")

    verdict = acceptance.reject_claimed(layout, order, "obcd's clerk died 3 times during this")

    assert lines_of(verdict.folder / "input.jsonl") == [json.loads(line) for line in THREE.splitlines()]
    assert list(layout.claims.iterdir()) == []


# --- a file that stays where it is -----------------------------------------------------------------------------------


def copy_order(path: Path) -> AcceptOrder:
    return replace(order_of(drop_of(path)), reject_torn=True)


def test_copied_file_stays_and_its_path_is_in_the_header(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(THREE)

    header = accept_copy(layout, copy_order(path), path).header

    assert path.read_bytes() == THREE
    assert header.source == str(path)
    assert header.settings == SETTINGS
    assert list(layout.claims.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b'{"prompt": "a"}\n{"prom', b"\x1f\x8b\x08"])
def test_copied_file_that_is_no_prompt_file_raises(layout: Layout, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)

    with pytest.raises(RejectedError):
        accept_copy(layout, copy_order(path), path)
    assert not (layout.jobs / "job1").exists()


# --- contexts that are planned ---------------------------------------------------------------------------------------

AUTO = replace(SETTINGS, num_ctx=16384, num_ctx_max=16384, num_predict=1000)


def prompts(*lengths: int, **wishes: Any) -> bytes:
    """Return a line for each number of digits, which is a number of tokens."""
    return b"".join(json.dumps({"prompt": "7" * length, **wishes}).encode() + b"\n" for length in lengths)


def accept_auto(layout: Layout, content: bytes, job: str = "job1") -> JobHeader:
    return accept_bytes(layout, content, job, settings=AUTO)


def contexts(layout: Layout, header: JobHeader) -> list[int]:
    """Return the context length of every request."""
    places = list(read_places(layout.jobs / header.id))
    found = [header.settings_under(place.signature).num_ctx for place in places]
    assert found == [header.signatures[place.signature].num_ctx for place in places]
    assert signature_column(layout.jobs / header.id) == bytes(place.signature for place in places)
    return found


def test_job_gets_a_context_for_all_but_the_longest_percent(layout: Layout) -> None:
    header = accept_auto(layout, prompts(9000, *[100] * 5000, 2000, *[100] * 5000, 3000, 100))

    assert header.context == ContextPlan(num_ctx=2048, larger=16384, requests=10_001, outliers=3)
    assert contexts(layout, header) == [16384, *[2048] * 5000, 16384, *[2048] * 5000, 16384, 2048]
    assert header.settings == AUTO
    assert header == read_header(layout.jobs / "job1")
    assert [signature.num_ctx for signature in header.signatures] == [16384, 2048]
    assert header.larger_numbers() == {1: 0}


def test_job_without_outliers_has_a_larger_context_in_reserve(layout: Layout) -> None:
    header = accept_auto(layout, prompts(100, 1500, 3000, 3000))

    assert contexts(layout, header) == [4096] * 4
    assert header.context == ContextPlan(num_ctx=4096, larger=8192, requests=4, outliers=0)
    assert [signature.num_ctx for signature in header.signatures] == [4096, 8192]
    assert header.settings_under(0).num_ctx_max == 8192


def test_line_that_names_its_own_context_keeps_it(layout: Layout) -> None:
    own = prompts(5, options={"num_ctx": 2048}) + prompts(9000, options={"num_ctx": 512})
    header = accept_auto(layout, own + prompts(100, model="phi4") + prompts(100))

    assert contexts(layout, header) == [2048, 512, 2048, 2048]
    assert header.context == ContextPlan(num_ctx=2048, larger=4096, requests=2, outliers=0)
    assert len(header.signatures) == 5  # 2048, which is planned too, with 4096; 512; and both of the other model
    assert len(header.larger_numbers()) == 2


def test_file_of_lines_that_name_their_own_contexts_needs_no_plan(layout: Layout) -> None:
    header = accept_auto(layout, prompts(5, options={"num_ctx": 512}))

    assert (header.context, header.larger_numbers()) == (None, {})
    assert contexts(layout, header) == [512]


def test_prompt_that_fits_no_context_fails_with_its_tokens_and_the_others_are_planned(layout: Layout) -> None:
    header = accept_auto(layout, prompts(100, 60_000))

    assert header.bad_lines == 1
    assert failures(layout, header)[2].startswith(wording("too-long-its-prompt-has-about-2"))
    (record,) = [json.loads(raw) for _, raw in ledger.read_valid(layout.jobs / header.id / ledger.NAME)]
    assert record["class"] == "too_long"
    assert contexts(layout, header)[0] == 2048


def test_planned_signatures_are_limited_to_half_as_many(layout: Layout) -> None:
    lines = b"".join(prompts(100, model=f"m{number}") for number in range(126))
    header = accept_auto(layout, lines)

    assert failures(layout, header) == {126: wording("more-than-125-different-models-and")}
    assert len(header.signatures) == 250


def test_planning_needs_no_memory_for_each_line(layout: Layout) -> None:
    content = prompts(*[50] * 2500, *[5000] * 20)
    peaks = []
    for number, settings in enumerate((SETTINGS, SETTINGS, AUTO)):  # the first one only warms up
        path = put(layout, content)
        tracemalloc.start()
        try:
            accept(layout, order_of(drop_of(path), f"job{number}", settings=settings))
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()

    assert peaks[2] < peaks[1] + 2**14


# --- hostile submitters ----------------------------------------------------------------------------------------------


def test_file_that_grows_while_it_is_copied_is_read_no_further_than_it_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given somebody who makes his file larger at each look at it, without ever writing a byte
    path = put(layout, THREE)
    order, sizes = order_of(drop_of(path)), list[int]()
    check_growth = acceptance._check_growth

    def grow(layout: Layout, order: AcceptOrder, size: int) -> None:
        check_growth(layout, order, size)
        sizes.append(size)
        os.truncate(layout.claim(order.job, "") / "notes.jsonl", size + 2**40)

    monkeypatch.setattr(acceptance, "_check_growth", grow)

    with pytest.raises(OSError, match=wording("it-is-still-being-written-no")):
        accept(layout, order)

    assert sizes[0] == len(THREE)
    assert [name for name in os.listdir(layout.jobs) if name.endswith(".tmp")] == []


def test_file_that_grew_beyond_what_one_may_be_is_rejected(layout: Layout) -> None:
    other = put(layout, THREE, "other.jsonl")
    order = order_of(drop_of(other), "job2", max_file_bytes=100)
    acceptance._claim(layout, order, other)
    os.truncate(layout.claim("job2", "") / "other.jsonl", 5000)
    verdict = acceptance.accept_claimed(layout, order)

    assert isinstance(verdict, Rejected)
    assert wording("after-it-was-taken-spool-max") in verdict.why


def test_copy_that_finds_the_disk_full_leaves_nothing_on_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(reader: Any, source: object, size: int) -> None:
        reader._files["input.jsonl"].write(b"x" * 1000)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(reading.Reader, "read", fill)
    order = order_of(drop_of(put(layout, THREE)))

    with pytest.raises(OSError, match="no room"):
        accept(layout, order)

    assert list(layout.jobs.iterdir()) == []
    monkeypatch.undo()
    assert isinstance(acceptance.accept_claimed(layout, order), Accepted)


@pytest.mark.parametrize("when", ["before the claim", "before a crash"])
def test_folder_that_is_swapped_in_for_a_drop_is_no_drop_and_does_not_stay(layout: Layout, when: str) -> None:
    path, order = settled(layout)
    if when == "before a crash":
        path = layout.claim(order.job, "") / "notes.jsonl"
        path.parent.mkdir(parents=True)
    else:
        path.unlink()
    path.mkdir()
    (path / "mine").touch()

    if when == "before a crash":
        assert isinstance(acceptance.accept_claimed(layout, order), Gone)
    else:
        assert not acceptance._claim(layout, order, path)

    assert not (layout.claim(order.job, "")).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_marker_of_a_stranger_is_not_claimed_with_a_drop(layout: Layout) -> None:
    path = put(layout, THREE)
    os.chown(path, 1234, -1)
    marker = put_marker(path)
    order = order_of(drop_of(path))
    os.chown(marker, 4321, -1)

    assert isinstance(accept(layout, order), Accepted)
    assert marker.exists()


@pytest.mark.parametrize(
    ("by", "expected"), [("2030-01-01T06:00+01:00", 1_893_474_000.0), ("soon", 0.0), ("", 0.0), (["x"], 0.0)]
)
def test_deadline_of_a_marker_is_the_jobs(layout: Layout, by: object, expected: float) -> None:
    file = put(layout, THREE)
    put_marker(file, by=by)

    header = accepted(layout, order_of(drop_of(file)))

    assert header.by == read_header(layout.jobs / "job1").by == expected
    assert ("by" in header.to_json()) is bool(expected)
