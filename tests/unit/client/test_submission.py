"""One key, one content, one job: whatever is run again."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import obcd
from obcd.errors import InputError, JobRejected, KeyConflict, NotFinished, ResultRemoved, UsageError
from obcd.spool.inbox.names import marker_of
from obcd.spool.outbox.rejected import publish_rejected
from obcd.spool.submit.dropping import submit as drop
from tests.unit.client.conftest import StandInDaemon
from tests.unit.spool.spools import Crashed, crash_at, drop_of

ROWS = [{"mrn": "7", "note": "BP 150/95"}, {"mrn": "8", "note": "BP 120/80"}]


def submit(again: bool = False) -> obcd.Job:
    return obcd.submit(ROWS, "Summarise: {note}", key="visits", id_field="mrn", again=again)


def test_rows_become_one_job_and_its_answers_come_in_their_order(daemon: StandInDaemon) -> None:
    job = submit()
    assert job.status.state == "WAITING"

    daemon.work()

    assert [(item.row, item.id, item.response) for item in job.wait().results()] == [
        (0, "7", "<Summarise: BP 150/95>"),
        (1, "8", "<Summarise: BP 120/80>"),
    ]
    assert job.status.is_finished
    assert (job.status.done, job.status.failed) == (2, 0)
    assert job.folder.name == "visits"


def test_the_same_key_again_is_the_job_that_is_there(daemon: StandInDaemon) -> None:
    first = submit()
    in_inbox = submit()
    (header,) = daemon.accept()
    running = submit()
    daemon.publish(header)
    published = submit()

    assert {job.place.drop_id for job in (first, in_inbox, running, published)} == {first.place.drop_id}
    assert len(daemon.sent) == 2
    assert [item.id for item in published.results()] == ["7", "8"]
    assert daemon.accept() == []


def test_without_a_key_the_content_is_the_key(daemon: StandInDaemon) -> None:
    first, second = obcd.submit(["a", "b"]), obcd.submit(["a", "b"])
    other = obcd.submit(["a", "c"])

    assert first.key == second.key != other.key
    assert len(daemon.work()) == 2


def test_other_content_under_the_same_key_is_a_conflict_with_both_digests(daemon: StandInDaemon) -> None:
    submit()

    with pytest.raises(KeyConflict) as caught:
        obcd.submit(ROWS[:1], "Summarise: {note}", key="visits", id_field="mrn")

    rows = b'{"id":"7","prompt":"Summarise: BP 150/95"}\n', b'{"id":"8","prompt":"Summarise: BP 120/80"}\n'
    assert caught.value.given == hashlib.sha256(rows[0]).hexdigest()
    assert caught.value.recorded == hashlib.sha256(rows[0] + rows[1]).hexdigest()
    assert len(daemon.work()) == 1


def test_result_that_was_seen_and_is_missing_is_sent_again_only_on_request(daemon: StandInDaemon) -> None:
    job = submit()
    (folder,) = daemon.work()
    job.wait()
    shutil.rmtree(folder)

    with pytest.raises(ResultRemoved):
        submit()
    assert daemon.accept() == []

    assert submit(again=True).place.drop_id != job.place.drop_id
    daemon.work()
    submit(again=True).wait()  # its result is there: nothing is sent
    assert len(daemon.sent) == 4
    assert daemon.accept() == []


def test_job_whose_result_was_removed_says_so_wherever_it_is_asked(daemon: StandInDaemon) -> None:
    (folder,) = (submit(), daemon.work())[1]
    submit().wait()
    shutil.rmtree(folder)
    job = obcd.attach("visits")

    assert (job.status.state, job.status.is_finished) == ("REMOVED", True)
    for ask in (job.wait, job.failures, job.to_pandas):
        with pytest.raises(ResultRemoved):
            ask()

    assert submit(again=True).status.state == "WAITING"


def test_rejected_rows_say_why_and_are_submitted_again_only_on_request(daemon: StandInDaemon) -> None:
    job = submit()
    file = daemon.layout.inbox / "visits.jsonl"
    publish_rejected(daemon.layout, "job9", drop_of(file), file, "the disk is strange")
    file.unlink(missing_ok=True)
    marker_of(file).unlink()

    with pytest.raises(JobRejected, match="the disk is strange"):
        job.wait()
    assert submit().status.state == "REJECTED"

    submit(again=True)
    daemon.work()
    assert len(list(submit().results())) == 2


def test_same_file_dropped_by_hand_is_attached_to_by_its_content(daemon: StandInDaemon, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_bytes(b'{"prompt": "a"}\n')
    drop(daemon.layout.inbox, file)
    waiting = obcd.submit(file, key="notes")
    daemon.work()

    assert waiting.wait().status.state == "PUBLISHED"
    assert [item.response for item in obcd.submit(file, key="notes").results()] == ["<a>"]
    file.write_bytes(b'{"prompt": "b"}\n')
    with pytest.raises(KeyConflict):
        obcd.submit(file, key="notes")


def test_attach_finds_a_job_by_its_key_alone(daemon: StandInDaemon) -> None:
    submit()
    daemon.work()

    assert [item.id for item in obcd.attach("visits").results()] == ["7", "8"]
    with pytest.raises(InputError):
        obcd.attach("other")


def test_template_that_no_row_can_fill_is_refused_with_the_reason(daemon: StandInDaemon) -> None:
    with pytest.raises(InputError, match=r"row 1.*`nope`"):
        obcd.submit(ROWS, "Summarise: {nope}", key="visits")

    submit()  # the key is free
    assert len(daemon.work()) == 1


def test_misspelt_field_of_the_id_is_named(daemon: StandInDaemon) -> None:
    with pytest.warns(obcd.ObcdWarning, match="`nrm`"):
        obcd.submit(ROWS, "Summarise: {note}", id_field="nrm")


def test_rows_that_cannot_fill_the_template_fail_alone_and_are_named(daemon: StandInDaemon) -> None:
    with pytest.warns(obcd.ObcdWarning, match="1 row of 3.*row 2.*note"):
        job = obcd.submit([{"note": "a"}, {"note": None}, {"note": "c"}], "Summarise: {note}")
    daemon.work()

    assert [(item.row, item.response) for item in job.wait().results()] == [
        (0, "<Summarise: a>"),
        (2, "<Summarise: c>"),
    ]
    assert [(item.row, item.kind) for item in job.failures()] == [(1, "bad_line")]


def test_results_before_the_end_are_refused_with_a_sentence(daemon: StandInDaemon) -> None:
    job = submit()

    with pytest.raises(NotFinished, match=r"job\.wait\(\)"):
        job.results()
    with pytest.raises(obcd.TimedOutError):
        job.wait(0.0)


def test_wait_without_any_coordinator_says_so_once(daemon: StandInDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(0, 1000, 6))
    monkeypatch.setattr("obcd.client.jobs.monotonic", lambda: float(next(times)))
    monkeypatch.setattr("obcd.client.jobs.time.sleep", lambda _: None)

    with pytest.warns(obcd.ObcdWarning, match="no coordinator") as warned, pytest.raises(obcd.TimedOutError):
        submit().wait(100.0)

    assert len(warned) == 1


@pytest.mark.parametrize("key", ["a/b", ".hidden", "x" * 300, "a\nb", 5])
def test_key_that_cannot_be_a_name_is_refused(daemon: StandInDaemon, key: Any) -> None:
    with pytest.raises(UsageError, match="key"):
        obcd.submit(["a"], key=key)


def test_retry_sends_what_failed_once_and_its_answers_belong_to_the_job(daemon: StandInDaemon) -> None:
    job = submit()
    daemon.work(lambda line: None if line["id"] == "7" else "fine")
    assert [(item.row, item.id, item.kind, item.message) for item in job.failures()] == [
        (0, "7", "server_error", "it broke")
    ]

    assert job.retry().place.drop_id == job.retry().place.drop_id
    assert [path.name for path in daemon.work()] == ["visits.retry"]
    retry = job.retry()

    assert retry.wait().status.done == 1
    assert [item.response for item in job.results()] == ["<Summarise: BP 150/95>", "fine"]
    assert job.failures() == []
    assert retry.retry() is retry  # nothing failed in it
    assert daemon.accept() == []


def test_cancel_leaves_the_order_where_the_coordinator_finds_it(daemon: StandInDaemon) -> None:
    job = submit()

    job.cancel()

    assert (daemon.layout.inbox / "visits.jsonl.cancel").exists()
    daemon.work()
    with pytest.raises(InputError):
        job.cancel()


def test_iterator_is_read_once_and_a_bad_row_submits_nothing(daemon: StandInDaemon) -> None:
    def rows() -> Iterator[object]:
        yield "a"
        yield {"prompt": "b", "when": object()}

    with pytest.raises(InputError, match="row 2"):
        obcd.submit(rows())
    assert daemon.work() == []
    with pytest.raises(InputError):
        obcd.submit([])
    with pytest.raises(InputError):
        obcd.submit("notes.jsonl")


@pytest.mark.parametrize(
    "options",
    [{"template": "no field"}, {"template": "{note"}, {"keep": "note"}, {"template": "{a}", "keep": ["model"]}],
)
def test_arguments_that_do_not_fit_together_are_refused(daemon: StandInDaemon, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        obcd.submit([{"note": "a"}], **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        obcd.submit(["a"], temperature=0)  # type: ignore[call-arg]


def test_profile_with_a_template_takes_the_rows_as_they_are(daemon: StandInDaemon, tmp_path: Path) -> None:
    config = tmp_path / "obcd.toml"
    config.write_text('model = "llama3.2"\n[profiles.clinical]\ntemplate = "Summarise: {note}"\nid_field = "mrn"\n')

    with pytest.raises(UsageError, match="its own template"):
        obcd.submit(ROWS, "Other: {note}", profile="clinical", config=config)
    obcd.submit(ROWS, profile="clinical", config=config, key="visits")

    assert (daemon.layout.inbox / "clinical" / "visits.jsonl").exists()


def test_without_a_spool_the_sentence_names_both_ways(daemon: StandInDaemon, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"obcd\.batch"):
        obcd.submit(["a"], root=tmp_path / "nowhere")


def test_submit_interrupted_at_any_step_and_run_again_makes_one_job(
    daemon: StandInDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`crash_at` ends the process before each state-changing call in turn."""
    number = 0
    while True:
        number += 1
        key = f"visits{number}"
        with crash_at(number, monkeypatch) as calls, contextlib.suppress(Crashed):
            obcd.submit(["a"], key=key)
        obcd.submit(["a"], key=key)
        if len(calls) < number:
            break
    daemon.work()

    assert number > 6
    assert len(daemon.sent) == number
    assert all(len(list(obcd.attach(f"visits{each}").results())) == 1 for each in range(1, number + 1))
