"""The life of a batch, step by step, and cut at each step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from obcd.api.forms.batch_request import BatchRequest
from obcd.api.forms.refusals import ApiError
from obcd.core.request.openai.openai_request import CHAT, EMBEDDINGS
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import read_control
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.markers import Marker
from obcd.spool.intake.acceptance import Rejected, accept
from obcd.spool.outbox.status_folders import StatusFolders
from tests.unit.api.api_spool import ANN, BEN, ApiSpool, lines
from tests.unit.spool.spools import Crashed, crash_at, drop_of, finish, order_of, put


def official(document: dict[str, Any]) -> Any:
    from openai.types import Batch  # noqa: PLC0415 - it takes a second

    return Batch.model_validate(document, strict=True)


def test_batch_goes_through_its_states_to_its_results(spool: ApiSpool) -> None:
    batch = spool.create(metadata={"night": "1"})
    assert spool.status(batch) == "validating"
    spool.drop_all()
    assert spool.status(batch) == "validating"
    header = spool.accept()
    assert spool.status(batch) == "in_progress"
    progress = {"job": header.id, "drop_id": header.drop_id, "batch": {"status": "finalizing", "errors": None}}
    StatusFolders(spool.layout).show_progress(header, progress)
    assert spool.status(batch) == "finalizing"
    finish(spool.layout, header)

    shown = spool.batches.retrieve(ANN, batch)
    typed = official(shown)

    assert (typed.id, typed.status, typed.metadata) == (batch, "completed", {"night": "1"})
    assert (typed.request_counts.total, typed.request_counts.completed) == (2, 2)
    assert shown["error_file_id"] is None
    output = spool.batches.find_output(ANN, typed.output_file_id)
    assert output is not None
    assert [json.loads(line)["custom_id"] for line in output.path.read_bytes().splitlines()] == ["r-0", "r-1"]
    assert output.facts["purpose"] == "batch_output"
    assert ApiSpool(spool.layout).batches.retrieve(ANN, batch) == shown, "the next process says the same"


def test_lines_that_failed_are_in_a_file_of_their_own(spool: ApiSpool) -> None:
    batch = spool.create(content=lines(1) + b"bad\n")
    spool.drop_all()
    finish(spool.layout, spool.accept())

    shown = spool.batches.retrieve(ANN, batch)

    errors = spool.batches.find_output(ANN, str(shown["error_file_id"]))
    assert errors is not None
    assert len(errors.path.read_bytes().splitlines()) == 1
    assert official(shown).request_counts.failed == 1


def test_drop_names_the_submitter_and_the_apis_own_batches_do_not(spool: ApiSpool) -> None:
    spool.create(ANN)
    spool.drop_all()
    (path,) = spool.dropped()

    marker = Marker.parse(path.with_name(path.name + ".done").read_bytes())

    assert marker.submitter == "ann"
    assert (marker.lines, marker.size) == (None, path.stat().st_size)


@pytest.mark.parametrize("act", ["retrieve", "cancel"])
def test_one_users_ids_are_nothing_to_another(spool: ApiSpool, act: str) -> None:
    batch = spool.completed(ANN)
    output = str(spool.batches.retrieve(ANN, batch)["output_file_id"])
    unknown = "batch_" + "0" * 32

    said = []
    for name in (batch, unknown):
        with pytest.raises(ApiError) as caught:
            getattr(spool.batches, act)(BEN, name)
        said.append((caught.value.status, str(caught.value)))
    assert said[0] == said[1] == (404, said[0][1])
    assert spool.batches.find_output(BEN, output) is None
    assert spool.batches.page(BEN, None, 20) == ([], False)
    assert list(spool.batches.outputs_of(BEN)) == []
    with pytest.raises(ApiError):
        spool.batches.page(BEN, batch, 20)
    with pytest.raises(ApiError):
        spool.batches.hide_output(BEN, output)
    with pytest.raises(ApiError) as caught:
        spool.batches.create(BEN, BatchRequest(spool.upload(ANN).id, CHAT), is_repeated=False)
    assert (caught.value.status, caught.value.param) == (404, "input_file_id")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (lines(1, EMBEDDINGS), 1),
        (b"\n\nnot json\n", 3),
        (b'{"prompt": "an obcd line"}\n', 1),
        (b"\n \n", 1),
        (b'[{"custom_id": "r-1"}]', 1),
        (b"\xff\xfe\0", 1),
        (b"[" * 300_000, 1),
    ],
    ids=["other endpoint", "no json", "obcd line", "blank", "array", "other encoding", "nested"],
)
def test_file_that_is_no_batch_fails_before_anything_is_dropped(spool: ApiSpool, content: bytes, line: int) -> None:
    batch = spool.create(content=content)
    spool.drop_all()

    typed = official(spool.batches.retrieve(ANN, batch))

    assert (typed.status, typed.errors.data[0].line) == ("failed", line)
    assert spool.dropped() == []
    assert spool.batches._unfinished == set()


def test_file_that_the_coordinator_rejects_fails_with_its_reason(spool: ApiSpool) -> None:
    batch = spool.create()
    spool.drop_all()
    (path,) = spool.dropped()
    path.write_bytes(b"\n" * path.stat().st_size)
    assert isinstance(accept(spool.layout, order_of(drop_of(path))), Rejected)

    typed = official(spool.batches.retrieve(ANN, batch))

    assert (typed.status, typed.output_file_id) == ("failed", None)
    assert typed.errors.data[0].message.startswith("the file was rejected")


def test_batch_that_is_cancelled_before_its_job_is_withdrawn(spool: ApiSpool) -> None:
    waiting, dropped = spool.create(), spool.create()
    spool.batches.drop(ANN.uid, dropped)

    assert spool.batches.cancel(ANN, waiting)["status"] == "cancelling"
    assert official(spool.batches.cancel(ANN, dropped)).status == "cancelled"
    spool.batches.drop(ANN.uid, waiting)

    assert spool.status(waiting) == "cancelled"
    assert list(spool.layout.inbox.glob("*.jsonl*")) == [], "neither file nor marker is left"
    with pytest.raises(ApiError) as caught:
        spool.batches.cancel(ANN, waiting)
    assert caught.value.status == 400


def test_cancel_of_a_running_job_is_the_coordinators_control_file(spool: ApiSpool) -> None:
    batch = spool.create()
    spool.drop_all()
    header = spool.accept()
    StatusFolders(spool.layout).show_progress(
        header, {"job": header.id, "drop_id": header.drop_id, "batch": {"status": "in_progress"}}
    )

    first, second = spool.batches.cancel(ANN, batch), spool.batches.cancel(ANN, batch)

    assert first["status"] == second["status"] == "cancelling"
    assert first["cancelling_at"] == second["cancelling_at"]
    control = read_control(spool.layout, Key("", f"{batch}.jsonl.cancel"))
    assert control.job == header.id
    finish(spool.layout, header)
    assert spool.status(batch) == "completed", "it was complete before the order came"


def test_folder_of_another_drop_of_that_name_is_not_its_result(spool: ApiSpool) -> None:
    batch = spool.create()
    spool.drop_all()
    header = spool.accept()
    StatusFolders(spool.layout).show_progress(
        header, {"job": header.id, "drop_id": header.drop_id, "batch": {"status": "in_progress"}}
    )
    spool.look()
    foreign = put(spool.layout, lines(), f"{batch}.jsonl")
    verdict = accept(spool.layout, order_of(drop_of(foreign), "job9"))
    finish(spool.layout, verdict.header)  # type: ignore[union-attr]
    assert spool.status(batch) == "in_progress"

    folder = finish(spool.layout, header)

    assert folder.name == f"{batch}.{header.id}"
    assert spool.status(batch) == "completed"


def test_end_is_remembered_when_the_outbox_is_swept(spool: ApiSpool) -> None:
    batch = spool.completed()
    spool.look()
    for path in (spool.layout.outbox / batch).iterdir():
        path.unlink()

    shown = spool.batches.retrieve(ANN, batch)

    assert shown["status"] == "completed"
    assert spool.batches.find_output(ANN, str(shown["output_file_id"])) is None


def test_results_are_shown_no_more_once_they_are_deleted_or_expired(spool: ApiSpool) -> None:
    batch = spool.completed()
    output = str(spool.batches.retrieve(ANN, batch)["output_file_id"])
    assert [item.facts["id"] for item in spool.batches.outputs_of(ANN)] == [output]

    spool.batches.hide_output(ANN, output)

    assert spool.batches.find_output(ANN, output) is None
    assert spool.batches.retrieve(ANN, batch)["output_file_id"] is None
    assert (spool.layout.outbox / batch / "responses.jsonl").exists(), "they are the submitter's, not the API's"


def test_pages_follow_each_other_from_the_newest(spool: ApiSpool) -> None:
    made = [spool.create() for _ in range(5)]
    pages, after = [], None
    for _ in range(3):
        page, has_more = spool.batches.page(ANN, after, 2)
        pages.append(([str(item["id"]) for item in page], has_more))
        after = str(page[-1]["id"])

    assert sorted(name for page, _ in pages for name in page) == sorted(made)
    assert [has_more for _, has_more in pages] == [True, True, False]


def test_second_attempt_of_a_client_gets_the_batch_of_its_first(spool: ApiSpool) -> None:
    request = BatchRequest(spool.upload().id, CHAT, {"a": "b"})
    first = spool.batches.create(ANN, request, is_repeated=False)

    assert spool.batches.create(ANN, request, is_repeated=True)["id"] == first["id"]
    assert spool.batches.create(ANN, request, is_repeated=False)["id"] != first["id"], "asked for twice on purpose"
    other = BatchRequest(request.input_file_id, CHAT, {"a": "c"})
    assert spool.batches.create(ANN, other, is_repeated=True)["id"] != first["id"]


def test_unfinished_batches_of_one_user_have_a_limit(spool: ApiSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obcd.api.batches.MOST_UNFINISHED", 2)
    first = spool.completed()
    spool.look()
    spool.create(), spool.create()

    with pytest.raises(ApiError) as caught:
        spool.create()

    assert caught.value.status == 429
    spool.create(BEN)
    assert spool.status(first) == "completed"


def test_batch_whose_file_is_deleted_first_fails(spool: ApiSpool) -> None:
    batch = spool.create()
    for stored in list(spool.uploads.all_of(ANN.uid)):
        spool.uploads.delete(ANN.uid, stored)
    spool.drop_all()

    assert spool.status(batch) == "failed"


def test_batch_that_cannot_be_dropped_now_is_dropped_later(spool: ApiSpool) -> None:
    batch = spool.create()
    away = spool.layout.inbox.rename(spool.layout.root / "away")
    with pytest.raises(Exception, match=r"cannot drop|not a profile"):
        spool.batches.drop(ANN.uid, batch)
    assert spool.status(batch) == "validating"
    away.rename(spool.layout.inbox)

    spool.look()

    assert spool.batches._queues[False].get(timeout=1)[1] == batch  # type: ignore[index]


@pytest.mark.parametrize("cancels", [False, True], ids=["dropped", "cancelled"])
def test_process_that_is_killed_at_any_step_leaves_one_job_or_none(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    """Nothing half, nothing twice, and no batch whose maker knows it is lost."""
    for number in range(1, 99):
        spool = ApiSpool(layout)
        stored = spool.upload()
        batch = ""
        try:
            with crash_at(number, monkeypatch):
                shown = spool.batches.create(ANN, BatchRequest(stored.id, CHAT), is_repeated=False)
                batch = str(shown["id"])
                spool.batches.drop(ANN.uid, batch)
                if cancels:
                    spool.batches.cancel(ANN, batch)
        except Crashed:
            is_killed = True
        else:
            is_killed = False
        again = ApiSpool(layout)
        again.drop_all()
        again.look()
        names = again.batches._names_of(ANN.uid)
        assert not batch or batch in names
        states = [again.status(name) for name in names]
        assert len(again.dropped()) == states.count("validating") <= 1
        assert set(states) <= {"validating", "cancelled"}
        hidden = [path for path in layout.inbox.glob(".*") if path.name != ".obcd"]
        assert hidden == [], "no rest of a copy is left"
        assert {path.name.removesuffix(".done") for path in layout.inbox.glob("*.done")} == {
            path.name for path in again.dropped()
        }
        for name in names:
            if again.status(name) == "validating":
                finish(layout, again.accept())
                assert again.status(name) == "completed"
                (layout.outbox / name / "manifest.json").unlink()
            (layout.root / "api" / "users" / str(ANN.uid) / "batches" / f"{name}.json").unlink()
        for stored in list(again.uploads.all_of(ANN.uid)):
            again.uploads.delete(ANN.uid, stored)
        if not is_killed:
            assert number > 10
            return
    pytest.fail("it never ended")
