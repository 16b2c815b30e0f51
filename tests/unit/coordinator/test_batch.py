"""What `obcd batch` decides before anything is sent: which files become jobs, which go on, which are done."""

from __future__ import annotations

import errno
import gzip
import io
import json
import lzma
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from obcd.config.settings import Settings
from obcd.coordinator.batch import BatchOrder, BatchPlan, batch_layout, forget_kept, plan_batch
from obcd.errors import InputError
from obcd.results.reading.with_retries import Retries, find_wholes, read_whole
from obcd.spool.folders import disk
from obcd.spool.intake import pipes
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox.publication import publish
from tests.golden.wording import wording
from tests.unit.spool.spools import answer, failure, record

SETTINGS = Settings(model="llama3.2")


def lines(*prompts: str) -> bytes:
    return b"".join(json.dumps({"prompt": prompt}).encode() + b"\n" for prompt in prompts)


def parquet(table: dict[str, list[str]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(table), file)
    return file.getvalue()


class Work:
    """A folder with files of prompts, and runs of the command in it that end before they send anything."""

    def __init__(self, path: Path) -> None:
        self.path, self.output = path, path / "responses"
        self.layout = batch_layout(self.output)

    def write(self, name: str, content: bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def plan(self, *prompts: Path | str, settings: Settings = SETTINGS, **changes: Any) -> BatchPlan:
        given = changes.pop("stdin", None)
        stdin = None if given is None else io.BytesIO(given)
        order = BatchOrder([Path(item) for item in prompts], self.output, stdin=stdin, **changes)
        plan = plan_batch(settings, order)
        plan.lock.release()  # as if the process had ended
        return plan

    def headers(self, *prompts: Path | str, **changes: Any) -> list[JobHeader]:
        headers = [job.header for job in self.plan(*prompts, **changes).jobs]
        return [header for header in headers if header is not None]

    def finish(self, header: JobHeader) -> Path:
        record(self.layout, header.id, [answer(ordinal) for ordinal in range(header.requests)])
        return publish(self.layout, header.id, {})

    def input_of(self, header: JobHeader) -> bytes:
        return (self.layout.jobs / header.id / "input.jsonl").read_bytes()


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


# --- several files ---------------------------------------------------------------------------------------------------


def test_r50_each_of_several_files_is_a_job_in_the_order_of_the_command_line(work: Work) -> None:
    a, b = work.write("a.jsonl", lines("one")), work.write("b.jsonl", lines("two", "three"))

    headers = work.headers(b, a)

    assert [(header.name, header.requests) for header in headers] == [("b.jsonl", 2), ("a.jsonl", 1)]
    assert [work.finish(header).name for header in headers] == ["b", "a"]


def test_files_of_one_name_have_folders_of_their_own(work: Work) -> None:
    files = [work.write(f"{ward}/notes.jsonl", lines(ward)) for ward in ("x", "y")]

    first, second = work.headers(*files)

    assert work.finish(first).name == "notes"
    assert work.finish(second).name == f"notes.{second.id}"
    assert [job.published and job.published.name for job in work.plan(*files).jobs] == ["notes", f"notes.{second.id}"]


def test_file_that_is_given_twice_is_answered_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    file = work.write("a.jsonl", lines("one"))
    monkeypatch.chdir(work.path)

    assert len(work.plan(file, "a.jsonl", "./a.jsonl").jobs) == 1


@pytest.mark.parametrize("wrong", ["missing.jsonl", "folder", "a\nb.jsonl", "x" * 300])
def test_path_that_is_wrong_is_named_before_any_file_is_taken(work: Work, wrong: str) -> None:
    file = work.write("a.jsonl", lines("one"))
    (work.path / "folder").mkdir()
    (work.path / "a\nb.jsonl").touch()

    with pytest.raises(InputError):
        work.plan(file, work.path / wrong)

    assert not work.layout.jobs.exists()


@pytest.mark.parametrize("content", [b"", b"\n\n", b"plain text\n", b'{"prompt": "a"}\n{"prom', b"\x89PNG"])
def test_file_without_prompts_does_not_stop_the_others(work: Work, content: bytes) -> None:
    good, bad = work.write("a.jsonl", lines("one")), work.write("bad.jsonl", content)

    plan = work.plan(bad, good)

    assert [job.header and job.header.name for job in plan.jobs] == ["a.jsonl"]
    assert [str(bad) in reason for reason in plan.refused] == [True]
    with pytest.raises(InputError, match=r"bad\.jsonl"):
        work.plan(bad)
    assert len(os.listdir(work.layout.jobs)) == 1


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"Why is the sky blue?\n", "obcd prepare - < FILE"),
        ("a.jsonl", b'{"question": "why"}\n', "line 1: "),
        ("a.jsonl", b"", wording("is-empty-it-holds-no-prompt")),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_way_out(work: Work, name: str, content: bytes, said: str) -> None:
    with pytest.raises(InputError) as raised:
        work.plan(work.write(name, content))

    assert said in str(raised.value)


@pytest.mark.parametrize("output", ["file", "file/below", "x" * 300])
def test_output_that_cannot_be_a_folder_names_the_option(work: Work, output: str) -> None:
    file = work.write("file", lines("one"))

    with pytest.raises(InputError, match="--output-dir DIR"):
        plan_batch(SETTINGS, BatchOrder([file], work.path / output))


def test_socket_in_place_of_a_file_is_named(work: Work) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(work.path / "s"))
        with pytest.raises(InputError, match="cannot read"):
            work.plan(work.path / "s")


def test_interrupted_files_go_on_and_finished_ones_are_done(work: Work) -> None:
    files = [work.write(f"{name}.jsonl", lines(name, name)) for name in "abc"]
    a, b, _ = work.headers(*files)
    work.finish(a)
    record(work.layout, b.id, [answer(0)])

    jobs = work.plan(*files).jobs

    assert [(job.published is not None, job.resumed) for job in jobs] == [(True, False), (False, True), (False, True)]
    assert jobs[1].header is not None
    assert jobs[1].header.id == b.id


# --- pipes -----------------------------------------------------------------------------------------------------------


def test_r50_standard_input_is_kept_until_its_job_is_published(work: Work) -> None:
    plan = work.plan("-", stdin=lines("one", "two"))

    (job,) = plan.jobs
    assert job.header is not None
    assert job.kept is not None
    assert (job.header.name, work.input_of(job.header)) == ("stdin.jsonl", lines("one", "two"))
    assert job.kept.read_bytes() == lines("one", "two")
    assert work.finish(job.header).name == "stdin"
    forget_kept(plan, ())
    assert list(pipes.kept_files(work.layout)) == []
    assert work.plan("-", stdin=lines("one", "two")).jobs[0].published == work.output / "stdin"


def test_killed_run_of_a_pipe_goes_on_with_the_same_content_or_with_the_kept_file(work: Work) -> None:
    (first,) = work.plan("-", stdin=lines("one", "two")).jobs
    assert first.header is not None
    assert first.kept is not None
    record(work.layout, first.header.id, [answer(0)])

    (again,) = work.plan("/dev/stdin", stdin=lines("one", "two")).jobs
    (by_file,) = work.plan(first.kept).jobs
    other = work.plan("-", stdin=lines("three"))

    assert again.header == by_file.header == first.header
    assert again.resumed
    assert by_file.resumed
    assert by_file.kept == first.kept
    assert [job.resumed for job in other.jobs] == [False]
    assert other.left == (first.kept,)


def test_what_is_kept_without_need_goes(work: Work) -> None:
    (first,) = work.plan("-", stdin=lines("one")).jobs
    assert first.header is not None
    work.finish(first.header)  # and the process was killed here
    (work.layout.root / pipes.FOLDER / ".partial-1").write_bytes(b"half")

    plan = work.plan("-", stdin=lines("two"))

    assert list(pipes.kept_files(work.layout)) == [plan.jobs[0].kept]
    assert len(os.listdir(work.layout.root / pipes.FOLDER)) == 1


def test_pipe_whose_kept_file_is_deleted_is_discarded(work: Work) -> None:
    (first,) = work.plan("-", stdin=lines("one")).jobs
    assert first.kept is not None
    first.kept.unlink()

    plan = work.plan("-", stdin=lines("two"))

    assert plan.left == ()
    assert os.listdir(work.layout.jobs) == [job.header.id for job in plan.jobs if job.header]


def test_what_another_job_needs_is_kept(work: Work) -> None:
    (whole,) = work.plan("-", stdin=lines("one", "two")).jobs
    part = work.plan("-", stdin=lines("one", "two"), limit=1)
    assert whole.header is not None
    assert part.jobs[0].header is not None
    work.finish(part.jobs[0].header)

    forget_kept(part, ())

    assert [job.header for job in work.plan("-", stdin=lines("one", "two")).jobs] == [whole.header]


def through_fifo(path: Path, content: bytes) -> threading.Thread:
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(content,))
    thread.start()
    return thread


def test_fifo_and_process_substitution_are_read(work: Work) -> None:
    fifo = work.path / "questions"
    writer = through_fifo(fifo, lines("one"))
    reading, writing = os.pipe()
    os.write(writing, lines("two"))
    os.close(writing)

    headers = work.headers(fifo, f"/dev/fd/{reading}")  # <(…) is /dev/fd/63
    writer.join()
    os.close(reading)

    assert [(header.name, work.input_of(header)) for header in headers] == [
        ("questions.jsonl", lines("one")),
        ("pipe.jsonl", lines("two")),
    ]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lines("one"), "stdin.jsonl"),
        (gzip.compress(lines("one"), mtime=0), "stdin.jsonl.gz"),
        (lzma.compress(lines("one")), "stdin.jsonl.xz"),
        (zstd.compress(lines("one")), "stdin.jsonl.zst"),
        (parquet({"prompt": ["one"]}), "stdin.parquet"),
        (b"id,prompt\r\na,one\r\n", "stdin.csv"),
        (b'\xef\xbb\xbf"prompt"\none\n', "stdin.csv"),
        (b"id\tprompt\na\tone\n", "stdin.tsv"),
    ],
)
def test_pipe_says_by_its_content_what_it_is(work: Work, content: bytes, name: str) -> None:
    (header,) = work.headers("-", stdin=content)

    assert (header.name, header.requests, header.bad_lines) == (name, 1, 0)


def test_table_through_a_pipe_has_the_columns_of_the_template(work: Work) -> None:
    settings = Settings(model="llama3.2", template="Summarise: {note}")

    (header,) = work.headers("-", stdin=b"mrn,note\n7,cough\n", settings=settings)

    assert (header.name, header.requests, header.bad_lines) == ("stdin.csv", 1, 0)


@pytest.mark.parametrize(
    ("stdin", "said"), [(b"", wording("standard-input-is-empty")), (None, wording("standard-input-is-closed-give"))]
)
def test_pipe_without_prompts_is_named(work: Work, stdin: bytes | None, said: str) -> None:
    with pytest.raises(InputError) as raised:
        work.plan("-", stdin=stdin)

    assert str(raised.value) == said
    assert list(pipes.kept_files(work.layout)) == []


def test_pipe_that_does_not_fit_on_the_disk_leaves_nothing(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "sync_file", full)

    with pytest.raises(InputError, match=wording("standard-input-cannot-be-kept")):
        work.plan("-", stdin=lines("one"))

    assert os.listdir(work.layout.root / pipes.FOLDER) == []


def test_pipe_that_has_no_end_stops_before_the_disk_is_full(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "_ROOM_BYTES", disk.BLOCK)
    monkeypatch.setattr(pipes, "find_shortage", lambda *_, **__: "only 1 MiB is free")

    with pytest.raises(InputError, match="only 1 MiB is free"):
        work.plan("-", stdin=b"y\n" * disk.BLOCK)


# --- --limit and --delimiter -----------------------------------------------------------------------------------------


def test_r50_limit_takes_the_first_requests_in_a_folder_of_its_own(work: Work) -> None:
    file = work.write("a.jsonl", b"\n" + lines(*"abcdefg"))

    (part,) = work.headers(file, limit=5)
    (whole,) = work.headers(file)

    assert (part.name, part.requests, part.lines) == ("a.first-5.jsonl", 5, 6)
    assert work.input_of(part) == b"\n" + lines(*"abcde")
    assert (whole.name, whole.requests, whole.sha256) == ("a.jsonl", 7, part.sha256)
    assert [work.finish(header).name for header in (part, whole)] == ["a.first-5", "a"]
    assert work.plan(file, limit=5).jobs[0].published == work.output / "a.first-5"
    assert work.headers(file, limit=6)[0].requests == 6


def test_limit_of_a_table_counts_rows(work: Work) -> None:
    file = work.write("a.csv", b"prompt\none\ntwo\nthree\n")

    (header,) = work.headers(file, limit=2)

    assert (header.name, header.requests) == ("a.first-2.csv", 2)


def test_limit_above_the_number_of_requests_takes_all(work: Work) -> None:
    assert work.headers(work.write("a.jsonl", lines("one")[:-1]), limit=5)[0].requests == 1


def test_limit_says_by_digest_what_it_took(work: Work) -> None:
    (header,) = work.headers(work.write("a.jsonl", lines("one", "two")), limit=1)

    assert header.converted is not None
    assert header.converted.size == len(lines("one"))


def test_delimiter_is_that_of_the_command_line_in_every_profile() -> None:
    settings = Settings.model_validate({"profiles": {"own": {"delimiter": ","}, "silent": {}}}).with_delimiter(";")

    assert {settings.job_settings(name).delimiter for name in ("", "own", "silent")} == {";"}


# --- what merge and retry make of it ---------------------------------------------------------------------------------


def test_retries_of_several_files_are_found_by_each(work: Work) -> None:
    files = [work.write(f"{name}.jsonl", lines(f"{name}1", f"{name}2")) for name in "ab"]
    for header in work.headers(*files):
        record(work.layout, header.id, [failure(0), answer(1, f"{header.stem}2")])
        publish(work.layout, header.id, {})

    for header in work.headers(*(work.output / name / "retry.jsonl" for name in "ab")):
        record(work.layout, header.id, [answer(0, f"again {work.input_of(header).decode()[12:14]}")])
        publish(work.layout, header.id, {})

    retries = Retries()
    wholes = find_wholes([work.output], retries)
    assert [[item.response for item in read_whole(source, retries)] for source in wholes] == [  # type: ignore[union-attr]
        ["again a1", "a2"],
        ["again b1", "b2"],
    ]
