"""`files = true`: one file for each answer, as ollama-batch-cluster wrote them, in the published folder."""

from __future__ import annotations

import errno
import json
import os
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.core.request.records import JobSettings
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader, read_header
from obcd.spool.outbox.publication import publish
from obcd.spool.outbox.publish_rename import show
from tests.unit.spool.spools import SETTINGS, THREE, accept_bytes, answer, failure, make_layout, record

FILES = replace(SETTINGS, files=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path / "spool")


def accept_three(layout: Layout, content: bytes = THREE, settings: JobSettings = FILES) -> JobHeader:
    return accept_bytes(layout, content, settings=settings)


def written(folder: Path, header: JobHeader) -> dict[str, object]:
    """Return `{rest of the name: document}` of the response files in a folder."""
    epoch = f"{int(header.accepted_at)}-"
    return {
        path.name.removeprefix(epoch): json.loads(path.read_text("utf-8")) for path in folder.glob(f"{epoch}*.json")
    }


def test_r51_each_answer_is_a_file_of_the_published_folder(layout: Layout) -> None:
    header = accept_three(layout)
    record(layout, "job1", [answer(0, "äh"), failure(1), answer(2, "c")])

    folder = publish(layout, "job1", {})

    assert written(folder, header) == {
        "1.json": {"prompt": "one", "response": "äh"},
        "3.json": {"prompt": "three", "response": "c"},
    }
    first = folder / f"{int(header.accepted_at)}-1.json"
    assert first.read_text("utf-8") == '{\n    "prompt": "one",\n    "response": "äh"\n}'
    assert first.stat().st_mode & 0o777 == 0o640
    assert len((folder / "responses.jsonl").read_bytes().splitlines()) == 2


def test_without_files_there_are_none(layout: Layout) -> None:
    header = accept_three(layout, settings=SETTINGS)
    record(layout, "job1", [answer(0), answer(1), answer(2)])

    assert written(publish(layout, "job1", {}), header) == {}


def test_each_of_several_answers_is_a_file(layout: Layout) -> None:
    header = accept_three(layout, b'{"prompt": "one", "n": 2}\n')
    record(layout, "job1", [answer(0, "a", seed=1), answer(1, "b", seed=2)])

    assert written(publish(layout, "job1", {}), header) == {
        "1-0.json": {"prompt": "one", "response": "a"},
        "1-1.json": {"prompt": "one", "response": "b"},
    }


def test_files_of_openai_lines_hold_prompt_and_text(layout: Layout) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    header = accept_three(layout, json.dumps(line).encode() + b"\n")
    record(layout, "job1", [answer(0, "Hello")])

    assert written(publish(layout, "job1", {}), header) == {"1.json": {"prompt": "Hi", "response": "Hello"}}


@pytest.mark.parametrize("at", range(1, 16))
def test_a_crash_while_it_is_published_leaves_each_file_once_and_whole(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    header = accept_three(layout)
    record(layout, "job1", [answer(0, "a"), answer(1, "b"), answer(2, "c")])
    real, calls = os.open, [0]

    class _CrashError(BaseException):
        """The process ends here."""

    def crash(*_: object) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise _CrashError

    def open_or_crash(path: Any, *rest: Any, **others: Any) -> int:
        if str(path).endswith(".json.tmp"):
            crash()
        return real(path, *rest, **others)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "before", crash)
        patch.setattr(os, "open", open_or_crash)
        with pytest.raises(_CrashError):
            publish(layout, "job1", {})

    folder = publish(layout, "job1", {})

    assert sorted(written(folder, header)) == ["1.json", "2.json", "3.json"]
    assert not list(folder.glob(".*"))


def test_they_are_durable_before_the_manifest_is(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    accept_three(layout)
    record(layout, "job1", [answer(0), answer(1), answer(2)])
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(disk, "before", lambda *call: calls.append(call))

    publish(layout, "job1", {})

    folder = layout.jobs / "job1"
    assert calls.index(("syncfs", str(folder))) < calls.index(("write", str(folder / "manifest.json")))


def test_a_full_disk_keeps_none_of_them(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    header = accept_three(layout)
    record(layout, "job1", [answer(0), answer(1), answer(2)])
    real = Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.name.endswith("-3.json.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            publish(layout, "job1", {})

    assert written(layout.jobs / "job1", header) == {}
    assert len(written(publish(layout, "job1", {}), header)) == 3


def test_a_folder_of_many_files_is_shown_in_bounded_memory(layout: Layout) -> None:
    accept_three(layout, settings=SETTINGS)
    record(layout, "job1", [answer(0), answer(1), answer(2)])
    folder = layout.jobs / "job1"
    # pathlib interns names: the interpreter's table of them may grow by megabytes at any of them.
    names = [sys.intern(f"1700000000-{number}.json") for number in range(3000)]
    for name in names:
        (folder / name).touch()
    disk.write_json(folder / "manifest.json", {"name": "notes.jsonl", "profile": "", "job": "job1"})

    tracemalloc.start()
    shown = show(layout, "job1")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (shown / "1700000000-2999.json").stat().st_mode & 0o777 == 0o640
    assert peak < 200_000  # a list of their paths has 500 KB


@pytest.mark.parametrize(("top", "profile", "wanted"), [(False, True, True), (True, None, True), (True, False, False)])
def test_a_profile_says_it(top: bool, profile: bool | None, wanted: bool) -> None:
    said = {} if profile is None else {"files": profile}
    settings = Settings.model_validate({"files": top, "profiles": {"seed": said}})

    assert settings.job_settings("seed").files is wanted


def test_a_job_of_an_earlier_version_has_none(layout: Layout) -> None:
    accept_three(layout, settings=SETTINGS)
    path = layout.jobs / "job1" / "job.json"

    assert "files" not in json.loads(path.read_text())["settings"]
    assert read_header(path.parent).settings.files is False
