from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.results.verify import Verdict, verify
from obcd.spool.folders import disk
from obcd.spool.folders.disk_space import Space
from obcd.spool.folders.layout import Layout
from obcd.spool.job import ledger
from obcd.spool.outbox import publication
from obcd.spool.outbox.publication import EndpointFacts, find_published, publish
from obcd.spool.outbox.publish_rename import find_shown, free_name, show
from obcd.spool.outbox.status_folders import find_progress
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    SETTINGS,
    THREE,
    accept_bytes,
    answer,
    crash_at,
    failure,
    finish,
    lines_of,
    put,
    record,
)

# --- publish ---------------------------------------------------------------------------------------------------------


def test_responses_come_in_the_order_of_the_input(layout: Layout) -> None:
    accept_bytes(
        layout, b'{"id": "a", "prompt": "one"}\n\n{"prompt": "two"}\n{"id": 7, "prompt": "three", "ward": 9}\n'
    )
    record(layout, "job1", [answer(2, "III", line=4), answer(0, "I"), answer(1, "II", line=3)])

    folder = publish(layout, "job1", {})

    found = lines_of(folder / "responses.jsonl")
    assert [(item["id"], item["line"], item["prompt"], item["response"]) for item in found] == [
        ("a", 1, "one", "I"),
        (3, 3, "two", "II"),
        (7, 4, "three", "III"),
    ]
    assert found[2]["extra"] == {"ward": 9}
    assert {"ordinal", "outcome", "finished"}.isdisjoint(found[0])
    assert found[0]["finished_at"] == "2026-11-22T18:57:33.000Z"
    assert (found[0]["model"], found[0]["endpoint"], found[0]["attempts"]) == ("llama3.2", "gpu0", 1)


@pytest.mark.parametrize(
    ("lines", "prompts"),
    [
        ([{"embed": "one"}, {"embed": ["two"]}], ["one", "two"]),
        ([{"embed": "one"}, {"embed": ["two", "three"]}, {"embed": 7}], [["one"], ["two", "three"]]),
        ([{"prompt": "one"}, {"embed": "one"}, {"embed": ["two", "three"]}], ["one", "one", ["two", "three"]]),
    ],
)
def test_prompts_of_a_job_that_only_embeds_have_one_type(
    layout: Layout, lines: list[dict[str, Any]], prompts: list[Any]
) -> None:
    header = accept_bytes(layout, "\n".join(map(json.dumps, lines)).encode())
    for number, line in enumerate(lines):
        texts = line.get("embed")
        if texts != 7:
            vectors: dict[str, Any] = (
                {"embeddings": [[0.5]] * (len(texts) if isinstance(texts, list) else 1)} if texts else {}
            )
            made = json.loads(answer(number, **vectors))
            record(
                layout, "job1", [json.dumps({k: v for k, v in made.items() if k != "response" or not texts}).encode()]
            )

    folder = publish(layout, header.id, {})

    assert [line["prompt"] for line in lines_of(folder / "responses.jsonl")] == prompts
    assert verify("notes", folder).problems == ()


def test_folder_of_a_job_without_failures_holds_nothing_more(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, THREE))

    assert folder == layout.outbox / "notes"
    assert sorted(path.name for path in folder.iterdir()) == ["input.jsonl", "manifest.json", "responses.jsonl"]
    assert (folder / "input.jsonl").read_bytes() == THREE
    assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []


def test_published_folder_can_be_read_by_the_group_and_nobody_else(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, THREE))

    assert folder.stat().st_mode & 0o7777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_failed_lines_come_back_byte_for_byte_in_retry(layout: Layout) -> None:
    lines = [
        b'{"id": "x",   "prompt": "odd\\u00e9 \xc3\xa9 spacing"}\r',
        b'{"prompt": "good"}',
        b"not json at all \xff",
        b'{"id": [1], "prompt": ""}',
        b'{"prompt": "last, without line feed"}',
    ]
    accept_bytes(layout, b"\xef\xbb\xbf" + b"\n".join(lines))
    record(layout, "job1", [failure(4), answer(1), failure(0, "boom")])

    folder = publish(layout, "job1", {})

    assert (folder / "retry.jsonl").read_bytes() == b"".join(
        line + b"\n" for number, line in enumerate(lines) if number != 1
    )
    errors = lines_of(folder / "errors.jsonl")
    assert [(item["line"], item["id"], item["class"]) for item in errors] == [
        (1, "x", "server_error"),
        (3, 3, "bad_line"),
        (4, [1], "bad_line"),
        (5, 5, "server_error"),
    ]
    assert (errors[0]["message"], errors[0]["attempts"], errors[0]["endpoint"]) == ("boom", 4, "gpu0")
    assert "endpoint" not in errors[1]
    assert [item["line"] for item in lines_of(folder / "responses.jsonl")] == [2]


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "[1e999]", "[" * 90000, "7" * 5000])
def test_id_that_json_does_not_know_is_not_repeated(layout: Layout, value: str) -> None:
    accept_bytes(layout, THREE + f'{{"id": {value}, "prompt": ""}}\n{{"id": "x", "prompt": NaN}}\n'.encode())
    record(layout, "job1", [answer(0), answer(1), answer(2)])

    folder = publish(layout, "job1", {})

    assert [item["id"] for item in lines_of(folder / "errors.jsonl")] == [4, "x"]


def test_manifest_holds_the_digests_of_the_outputs_that_are_there(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    record(layout, "job1", [answer(0), failure(1), answer(2)])
    mixed = publish(layout, "job1", {})
    right = finish(layout, accept_bytes(layout, THREE, "job2", "right.jsonl"))

    outputs = json.loads((mixed / "manifest.json").read_bytes())["outputs"]
    assert outputs == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name in ("responses.jsonl", "errors.jsonl", "retry.jsonl")
        if (content := (mixed / name).read_bytes())
    }
    assert list(json.loads((right / "manifest.json").read_bytes())["outputs"]) == ["responses.jsonl"]


def test_retry_of_an_overlong_line_is_whole(layout: Layout) -> None:
    long = json.dumps({"prompt": "x" * (3 * 2**20)}).encode()
    accept_bytes(layout, THREE + long + b"\n")
    record(layout, "job1", [answer(0), answer(1), answer(2)])

    folder = publish(layout, "job1", {})

    assert (folder / "retry.jsonl").read_bytes() == long + b"\n"
    assert lines_of(folder / "errors.jsonl")[0]["id"] == 4


def test_answer_with_lone_surrogates_is_valid_json(layout: Layout) -> None:
    accept_bytes(layout, b'{"prompt": "\\ud800"}\n')
    record(layout, "job1", [answer(0, "\udfff \u2028 \x00")])

    folder = publish(layout, "job1", {})

    raw = (folder / "responses.jsonl").read_bytes()
    assert raw.isascii()
    assert json.loads(raw)["response"] == "\udfff \u2028 \x00"


def test_manifest_adds_up(layout: Layout) -> None:
    header = accept_bytes(layout, THREE + b"bad\n\n")
    record(
        layout,
        "job1",
        [
            answer(0, seconds=2.0, finished=1000.0),
            answer(1, seconds=3.0, finished=1001.0, done_reason="length"),
            answer(2, seconds=1.0, finished=1002.0, endpoint="gpu1"),
        ],
    )
    model = header.signatures[0].model
    facts = {"gpu0": EndpointFacts(version="0.33.0", gpu=3, digests={model: "abc", "other": "def"})}

    folder = publish(layout, "job1", facts)

    manifest = disk.read_json(folder / "manifest.json")
    assert (manifest["job"], manifest["name"], manifest["profile"]) == ("job1", "notes.jsonl", "")
    assert manifest["counts"] == {
        "lines": 5,
        "requests": 4,
        "responses": 3,
        "failures": 1,
        "cut_short": 1,
        "empty": 0,
        "repairs": 0,
        "cached": 0,
        "same": 0,
    }
    assert manifest["tokens"] == {"prompt": 9, "eval": 21}
    assert (manifest["times"]["work_seconds"], manifest["times"]["span_seconds"]) == (6.0, 4.0)
    assert manifest["times"]["speedup"] == 1.5
    assert manifest["endpoints"] == {
        "gpu0": {"gpu": 3, "version": "0.33.0", "responses": 2, "eval_tokens": 14, "seconds": 5.0},
        "gpu1": {"gpu": 0, "version": "", "responses": 1, "eval_tokens": 7, "seconds": 1.0},
    }
    assert manifest["digests"] == {model: ["abc"]}
    assert manifest["input"] == {"sha256": header.sha256, "bytes": header.size, "modified_after_accept": False}
    assert manifest["settings"] == SETTINGS.to_json()
    assert manifest["submitter"]["uid"] == os.getuid()


def test_r09_message_that_was_dropped_stands_in_extra_and_the_job_verifies(layout: Layout) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    settings = replace(SETTINGS, drop_last_assistant=True)
    header = accept_bytes(layout, json.dumps({"messages": turns, "ward": "B2"}).encode() + b"\n", settings=settings)
    record(layout, "job1", [answer(0)])

    folder = publish(layout, "job1", {})

    (line,) = [json.loads(raw) for raw in (folder / "responses.jsonl").read_bytes().splitlines()]
    assert line["extra"] == {"ward": "B2", "last_assistant": turns[-1]}
    assert header.unobeyed == {}
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_speed_up_and_empty_answers_are_in_the_manifest(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    each: dict[str, Any] = {"load_seconds": 0.0, "prompt_eval_seconds": 0.0, "eval_seconds": 0.4}
    record(
        layout,
        "job1",
        [
            answer(0, seconds=0.4, wait_seconds=0.0, finished=1000.4, **each),
            answer(1, " \n", seconds=0.8, wait_seconds=0.4, finished=1000.8, **each),
            answer(2, "<think>hm</think>", seconds=1.2, wait_seconds=0.8, finished=1001.2, **each),
        ],
    )

    folder = publish(layout, "job1", {})

    manifest = disk.read_json(folder / "manifest.json")
    assert manifest["counts"]["empty"] == 2
    assert (manifest["times"]["work_seconds"], manifest["times"]["wait_seconds"]) == (1.2, 1.2)
    assert manifest["times"]["speedup"] == 1.0
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_manifest_says_what_came_from_the_prefix_cache_where_replies_do(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    each: dict[str, Any] = {"load_seconds": 0.0, "eval_seconds": 0.1, "wait_seconds": 0.0}
    record(
        layout,
        "job1",
        [
            answer(0, prompt_tokens=500, prompt_eval_seconds=0.25, **each),  # of a server that does not say it
            answer(1, prompt_tokens=500, prompt_eval_seconds=0.125, cached_tokens=0, **each),
            answer(2, prompt_tokens=500, prompt_eval_seconds=0.005, cached_tokens=480, **each),
        ],
    )

    folder = publish(layout, "job1", {})

    manifest = disk.read_json(folder / "manifest.json")
    assert manifest["tokens"] == {"prompt": 1500, "eval": 21, "prompt_evaluated": 520, "prompt_cached": 480}
    assert manifest["times"]["prompt_eval_seconds"] == 0.38
    assert verify("notes", folder).problems == ()
    for part, key in (("tokens", "prompt_cached"), ("tokens", "prompt_evaluated"), ("times", "prompt_eval_seconds")):
        disk.write_json(folder / "manifest.json", {**manifest, part: {**manifest[part], key: 9}})
        assert verify("notes", folder).verdict is Verdict.WRONG


def test_manifest_of_before_verifies_with_its_waits_as_work(layout: Layout) -> None:
    accept_bytes(layout, THREE[: THREE.index(b"\n") + 1])
    record(layout, "job1", [answer(0, "", seconds=0.8, load_seconds=0.0, wait_seconds=0.4)])
    folder = publish(layout, "job1", {})
    manifest = disk.read_json(folder / "manifest.json")
    del manifest["counts"]["empty"], manifest["times"]["wait_seconds"], manifest["times"]["prompt_eval_seconds"]
    manifest["times"]["work_seconds"] = 0.8

    disk.write_json(folder / "manifest.json", manifest)

    assert verify("notes", folder).problems == ()


def test_job_of_only_failures_has_an_empty_responses_file(layout: Layout) -> None:
    accept_bytes(layout, b"x\n")

    folder = publish(layout, "job1", {})

    assert (folder / "responses.jsonl").read_bytes() == b""
    assert disk.read_json(folder / "manifest.json")["times"]["speedup"] is None


def test_taken_name_gets_the_job_id_appended(layout: Layout) -> None:
    first = finish(layout, accept_bytes(layout, THREE))
    content = (first / "responses.jsonl").read_bytes()

    second = finish(layout, accept_bytes(layout, THREE, "job2"))

    assert (first, second) == (layout.outbox / "notes", layout.outbox / "notes.job2")
    assert (first / "responses.jsonl").read_bytes() == content


@pytest.mark.parametrize("kind", ["empty folder", "file", "dangling link"])
def test_whatever_has_the_name_is_not_overwritten(layout: Layout, kind: str, tmp_path: Path) -> None:
    planted = layout.outbox / "notes"
    if kind == "empty folder":
        planted.mkdir()
    elif kind == "file":
        planted.write_text("mine", "utf-8")
    else:
        planted.symlink_to(tmp_path / "nowhere")

    assert finish(layout, accept_bytes(layout, THREE)) == layout.outbox / "notes.job1"
    assert os.path.lexists(planted)


def test_outbox_in_another_mount_is_named(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    header, rename = accept_bytes(layout, THREE), disk.rename

    def refuse(old: Path, new: Path) -> None:
        if new.is_relative_to(layout.jobs):
            return rename(old, new)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(old), None, str(new))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "rename", refuse)
        with pytest.raises(OSError, match=wording("jobs-and-outbox-are-not-in")) as caught:
            finish(layout, header)

    assert (caught.value.errno, caught.value.filename) == (errno.EXDEV, str(layout.outbox))
    assert publish(layout, header.id, {}).parent == layout.outbox


def test_job_of_a_profile_is_published_under_it(layout: Layout) -> None:
    header = accept_bytes(layout, THREE)
    document = disk.read_json(layout.jobs / "job1" / "job.json")
    disk.write_json(layout.jobs / "job1" / "job.json", {**document, "profile": "clinical"})

    assert finish(layout, header) == layout.outbox / "clinical" / "notes"


def test_original_that_grew_after_it_was_accepted_is_kept_and_told(layout: Layout) -> None:
    with put(layout, THREE).open("ab") as writer:
        header = accept_bytes(layout, THREE)
        writer.write(b'{"prompt": "too late"}\n')

    folder = finish(layout, header)

    assert len(lines_of(folder / "responses.jsonl")) == 3
    assert (folder / "input.jsonl").read_bytes() == THREE
    assert (folder / "input.modified.jsonl").read_bytes() == THREE + b'{"prompt": "too late"}\n'
    assert disk.read_json(folder / "manifest.json")["input"]["modified_after_accept"] is True


def test_publishing_again_what_is_published_returns_the_same_folder(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, THREE))

    assert publish(layout, "job1", {}) == folder
    assert show(layout, "job1") == folder
    assert [path.name for path in layout.outbox.iterdir()] == ["notes"]


def test_job_whose_folder_somebody_took_away_is_not_published_again(layout: Layout, tmp_path: Path) -> None:
    finish(layout, accept_bytes(layout, THREE)).rename(tmp_path / "mine")

    with pytest.raises(FileNotFoundError, match=r"removed, .*/jobs/job1"):
        publish(layout, "job1", {})
    assert list(layout.outbox.iterdir()) == []


def test_job_removed_by_hand_before_it_is_published_is_named(layout: Layout) -> None:
    accept_bytes(layout, THREE)
    disk.remove_tree(layout.jobs / "job1")

    with pytest.raises(FileNotFoundError, match=r"removed, .*/jobs/job1"):
        publish(layout, "job1", {})


@pytest.mark.parametrize("stem", ["n" * 249, "ä" * 124, "n" + "ä" * 124])
def test_name_too_long_for_its_suffix_is_cut_between_characters(layout: Layout, stem: str) -> None:
    job = "20261122T180105-3f9a1c3f9a1c"
    plain = free_name(layout, "", stem, "", job)
    assert plain.name == stem
    plain.mkdir()

    second, rejected = (free_name(layout, "", stem, kind, job) for kind in ("", ".rejected"))
    second.mkdir()
    rejected.mkdir()

    for folder, suffix in ((second, f".{job}"), (rejected, ".rejected")):
        cut = folder.name.removesuffix(suffix)
        assert folder.name.endswith(suffix)
        assert stem.startswith(cut)
        assert 254 <= len(folder.name.encode()) <= 255


def test_name_of_a_profile_is_taken_though_its_folder_is_not_in_the_outbox(layout: Layout) -> None:
    assert not (layout.outbox / "clinical").exists()
    assert free_name(layout, "", "clinical", "", "job1") == layout.outbox / "clinical.job1"
    assert free_name(layout, "", "clinical", ".partial", "job1") == layout.outbox / "clinical.partial"
    assert free_name(layout, "clinical", "clinical", "", "job1") == layout.outbox / "clinical" / "clinical"


def test_job_is_found_in_the_outbox_among_strangers_files(layout: Layout) -> None:
    for name, content in (("list", b"[1]"), ("broken", b"{"), ("other", b'{"job": "job9"}')):
        (layout.outbox / name).mkdir()
        (layout.outbox / name / "manifest.json").write_bytes(content)
    folder = finish(layout, accept_bytes(layout, THREE))

    assert find_shown(layout.outbox, "job1") == folder
    assert find_shown(layout.outbox, "job2") is None


def test_disk_error_while_the_outputs_are_written_leaves_the_job_as_it_was(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = accept_bytes(layout, THREE)
    record(layout, "job1", [answer(0), answer(1), failure(2)])

    def full(descriptor: int, path: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync_file", full)
        with pytest.raises(OSError, match="No space"):
            publish(layout, "job1", {})
    assert not (layout.jobs / "job1" / "manifest.json").exists()
    assert list((layout.jobs / "job1").glob(".*")) == []

    folder = finish(layout, header)
    assert len(lines_of(folder / "responses.jsonl")) == 2
    assert len(lines_of(folder / "retry.jsonl")) == 1


def test_outputs_that_surely_do_not_fit_are_not_begun(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them would take the room that results of other jobs need."""
    header = accept_bytes(layout, THREE)
    record(layout, header.id, [answer(ordinal) for ordinal in range(3)])
    size = (layout.jobs / header.id / ledger.NAME).stat().st_size
    with monkeypatch.context() as patch, crash_at(0, patch) as calls:
        space = Space(free=size - 1, size=2**30, free_inodes=0, inodes=0, is_read_only=False)
        patch.setattr(publication, "read_space", lambda path: space)
        with pytest.raises(OSError, match="No space left on device"):
            publish(layout, header.id, {})
        assert calls == []

    assert len(lines_of(publish(layout, header.id, {}) / "responses.jsonl")) == 3


# --- what a submitter looks for --------------------------------------------------------------------------------------


def test_published_drop_is_found_by_its_id(layout: Layout) -> None:
    for number, drop_id in enumerate(("d1", "d2")):
        header = accept_bytes(layout, THREE, f"job{number}")
        document = disk.read_json(layout.jobs / header.id / "job.json")
        disk.write_json(layout.jobs / header.id / "job.json", {**document, "drop_id": drop_id})
        finish(layout, header)

    found = find_published(layout.outbox, "d2", "notes.jsonl", "")

    assert found is not None
    assert found[0] == layout.outbox / "notes.job1"
    assert find_published(layout.outbox, "d3", "notes.jsonl", "") is None
    assert find_published(layout.outbox, "d1", "notes.jsonl", "clinical") is None


@pytest.mark.parametrize("content", ["[]", "7", "[" * 90000])
def test_neighbours_that_are_no_manifest_are_passed_over(layout: Layout, content: str) -> None:
    for name in ("notes.a", "notes.b.partial"):
        (layout.outbox / name).mkdir()
        (layout.outbox / name / "manifest.json").write_text(content, "utf-8")
        (layout.outbox / name / "progress.json").write_text(content, "utf-8")

    assert find_published(layout.outbox, "d1", "notes.jsonl", "") is None
    assert find_progress(layout.outbox, "d1", "notes.jsonl", "") is None
    assert find_shown(layout.outbox, "job1") is None


def test_original_that_grew_without_measure_is_told_and_not_kept(layout: Layout) -> None:
    path = put(layout, THREE)
    header = accept_bytes(layout, THREE)
    assert not path.exists()
    os.truncate(layout.claim(header.id, "") / "notes.jsonl", 2**40)  # it takes no room of its own

    folder = finish(layout, header)

    manifest = disk.read_json(folder / "manifest.json")
    assert manifest["input"]["modified_after_accept"] is True
    assert manifest["input"]["modified_kept"] is False
    assert not (folder / "input.modified.jsonl").exists()
