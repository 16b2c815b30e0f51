"""Files of JSON that are not a value a line, other names of JSONL, Parquet, and what else people drop."""

from __future__ import annotations

import hashlib
import json
import lzma
from dataclasses import replace
from itertools import islice
from pathlib import Path
from resource import RLIMIT_AS, RUSAGE_SELF, getrlimit, getrusage
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from obcd.config.settings import Settings
from obcd.coordinator.batch import BatchOrder, plan_batch
from obcd.core.request.json_objects import may_go_on
from obcd.core.request.records import JobSettings
from obcd.core.tables import file_format, parquet_rows
from obcd.core.tables.file_format import kept_name, why_not_taken
from obcd.core.tables.parquet_rows import ParquetSheet
from obcd.errors import FormError, InputError
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.names import is_ignored
from obcd.spool.intake.acceptance import NotYet, Rejected, accept
from obcd.spool.intake.recovery import load_job
from obcd.spool.outbox.publication import publish
from obcd.spool.submit.dropping import drop
from obcd.spool.submit.target import find_target
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    accept_bytes,
    answer,
    drop_of,
    failure,
    finish,
    lines_of,
    order_of,
    put,
    put_marker,
    record,
    scan,
)

ALL = frozenset(file_format.WORDS)
TWO = [{"prompt": "a"}, {"prompt": "b"}]
CHATS = [
    {"id": "x", "messages": [{"role": "system", "content": "Be\nbrief"}, {"role": "user", "content": name}]}
    for name in ("Ann", "Bob [", "Cid }\\")
]


def prompts_of(layout: Layout, raw: bytes, name: str = "notes.jsonl", **changes: Any) -> list[str]:
    """Accept a file, publish its job, verify that, and return the prompts in the order of the lines."""
    header = accept_bytes(layout, raw, name=name, **changes)
    folder = finish(layout, header)
    found = verify("notes", folder)
    assert (found.verdict, found.problems) == (Verdict.COMPLETE, ())
    responses = lines_of(folder / "responses.jsonl")
    assert [response["line"] for response in responses] == list(range(1, len(responses) + 1))
    assert not (folder / "errors.jsonl").exists()
    return [response["prompt"] for response in responses]


def verdict_of(layout: Layout, raw: bytes, name: str, **changes: Any) -> Any:
    return accept(layout, order_of(drop_of(put(layout, raw, name)), **changes))


@pytest.mark.parametrize("name", ["notes.json", "notes.jsonl", "notes.ndjson"])
def test_r30_array_in_one_line_without_a_line_feed_is_two_requests(layout: Layout, name: str) -> None:
    assert prompts_of(layout, json.dumps(TWO).encode(), name, accepts=ALL) == ["a", "b"]


def test_r31_array_over_lines_is_one_request_an_element(layout: Layout) -> None:
    raw = json.dumps(CHATS, indent=4).encode()
    header = accept_bytes(layout, raw)
    folder = layout.jobs / header.id

    assert (header.requests, header.lines, header.bad_lines, header.size) == (3, 3, 0, len(raw))
    lines = b"".join(json.dumps(chat, separators=(",", ":")).encode() + b"\n" for chat in CHATS)
    assert (folder / "input.jsonl").read_bytes() == lines
    assert header.sha256 == hashlib.sha256(raw).hexdigest()
    assert header.converted is not None
    assert header.converted.sha256 == hashlib.sha256(lines).hexdigest()
    folder = finish(layout, header)
    assert [line["line"] for line in lines_of(folder / "responses.jsonl")] == [1, 2, 3]
    assert verify("notes", folder).verdict is Verdict.COMPLETE


@pytest.mark.parametrize(
    ("between", "indent"),
    [*((between, 2) for between in ("\n", "", "\n\n", ",\n", " ")), ("", None), (" ", None), (", ", None)],
)
def test_r32_objects_one_after_another_are_one_request_each(layout: Layout, between: str, indent: int | None) -> None:
    raw = between.join(json.dumps(item, indent=indent) for item in TWO).encode()

    assert prompts_of(layout, raw) == ["a", "b"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt": "a"},\n{"prompt": "b"},\n',
        b'{"prompt": "a"},\r\n{"prompt": "b"}\r\n',
        b'{"prompt": "a"}\n,{"prompt": "b"}\n',
        b'{"prompt": "a"}\n{"prompt": "b"} , \n\x1a',
        b'{"prompt": "a"}\r{"prompt": "b"}\r',
        b'\x1e{"prompt": "a"}\n\x1e{"prompt": "b"}\n\x1e',
        b'\x1e{\n"prompt": "a"}\n\x1e{"prompt": "b"}\n',
        b'[{"role": "user", "content": "a"}],\n[{"role": "user", "content": "b"}]',
    ],
)
def test_r33_lines_with_a_comma_are_as_without(layout: Layout, raw: bytes) -> None:
    assert prompts_of(layout, raw) == ["a", "b"]


@pytest.mark.parametrize("name", ["p.ndjson", "p.jl", "p.jsonlines", "P.NDJSON", "p.jl.gz"])
def test_r34_other_names_of_jsonl_are_taken(tmp_path: Path, name: str) -> None:
    inbox = Inbox(tmp_path, [], 0.0, require_marker=False, accepts={"": {"gz"}})
    (tmp_path / name).write_bytes(b'{"prompt": "a"}\n')
    put_marker(tmp_path / name)

    assert [drop.key for drop in scan(inbox, 0.0)] == [Key("", name)]
    assert kept_name(name) in ("input.jsonl", "input.jsonl.gz")


def parquet(table: dict[str, Any], path: Path) -> bytes:
    pq.write_table(pa.table(table), path)
    return path.read_bytes()


def test_r35_rows_of_parquet_are_lines_with_nested_values(layout: Layout, tmp_path: Path) -> None:
    table = {
        "id": ["x", None],
        "messages": [[{"role": "user", "content": "Hi", "images": None}], [{"role": "user", "content": "Ho"}]],
        "options": [{"temperature": 0.0, "seed": None}, {"temperature": None, "seed": 7}],
        "when": pa.array([0, 10**9 + 1], pa.timestamp("ns")),
        "raw_bytes": [b"\xff\x00", b"text"],
        "score": [float("nan"), 1.5],
        "think": ["low", None],
    }
    raw = parquet(table, tmp_path / "p")

    header = accept_bytes(layout, raw, name="p.parquet")

    assert lines_of(layout.jobs / header.id / "input.jsonl") == [
        {
            "id": "x", "messages": [{"role": "user", "content": "Hi"}], "options": {"temperature": 0.0},
            "when": "1970-01-01T00:00:00", "raw_bytes": "/wA=", "score": None, "think": "low",
        },
        {
            "messages": [{"role": "user", "content": "Ho"}], "options": {"seed": 7},
            "when": "1970-01-01T00:00:01", "raw_bytes": "text", "score": 1.5,
        },
    ]  # fmt: skip
    folder = finish(layout, header)
    assert [line["id"] for line in lines_of(folder / "responses.jsonl")] == ["x", 2]
    assert verify("p", folder).verdict is Verdict.COMPLETE


def test_rows_of_parquet_fill_a_template_and_fail_alone(layout: Layout, tmp_path: Path) -> None:
    raw = parquet({"note": ["one", None, "three"], "age": [1, 2, 3]}, tmp_path / "p")
    settings = JobSettings(model="m", template="{age}: {note}")

    header = accept_bytes(layout, raw, name="p.parquet", settings=settings)

    assert (header.requests, header.bad_lines) == (3, 1)
    responses = lines_of(finish(layout, header) / "responses.jsonl")
    assert [(line["line"], line["prompt"]) for line in responses] == [(1, "1: one"), (3, "3: three")]


def test_bad_cells_of_parquet_fail_alone_and_again(layout: Layout, tmp_path: Path) -> None:
    raw = parquet({"prompt": ["a", "b", None], "options": ["{bad", '{"seed": 1}', None]}, tmp_path / "p")

    header = accept_bytes(layout, raw, name="p.parquet")
    (layout.jobs / "job1" / "ledger.log").write_bytes(b"")

    assert (header.requests, header.bad_lines) == (3, 2)
    assert load_job(layout, header.id).replay.counts.failures == 2


@pytest.mark.parametrize("is_known", [False, True])
def test_parquet_whose_dictionary_is_a_bomb_takes_bounded_memory(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 2**24]))
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "p", compression="zstd", store_schema=is_known)
    monkeypatch.setattr(parquet_rows, "MAX_MEMORY_BYTES", 3 * 2**29)
    rows = ParquetSheet(JobSettings(model="m").reading).rows
    before, limits = getrusage(RUSAGE_SELF).ru_maxrss, getrlimit(RLIMIT_AS)

    with open(tmp_path / "p", "rb") as file:
        if is_known:  # as texts of a dictionary, which are in memory once
            assert [len(row.line) > 2**24 for row in islice(rows(file), 4)] == [True] * 4
        else:
            with pytest.raises(FormError, match=wording("a-part-of-it-needs-more")):
                list(rows(file))

    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB
    assert getrlimit(RLIMIT_AS) == limits


@pytest.mark.parametrize("end", [-1, -100, 5])
def test_parquet_that_is_cut_off_waits(layout: Layout, tmp_path: Path, end: int) -> None:
    raw = parquet({"prompt": ["a" * 200]}, tmp_path / "p")

    verdict = verdict_of(layout, raw[:end], "p.parquet")

    assert isinstance(verdict, NotYet)
    assert verdict.until_rejected
    assert wording("the-end-of-the-parquet-file") in verdict.why


@pytest.mark.parametrize("place", [10, 60, -20, -60])
def test_damaged_parquet_is_refused_or_read_and_never_more(layout: Layout, tmp_path: Path, place: int) -> None:
    raw = bytearray(parquet({"prompt": ["a" * 200, "b"]}, tmp_path / "p"))
    raw[place] ^= 0xFF

    assert not isinstance(verdict_of(layout, bytes(raw), "p.parquet"), NotYet)


@pytest.mark.parametrize(("ending", "pack"), [("zst", zstd.compress), ("xz", lzma.compress)])
def test_r35_packed_lines_are_taken_as_they_are(layout: Layout, ending: str, pack: Any) -> None:
    raw = pack(b'{"prompt": "a"}\n') + pack(b'{"prompt": "b"}\n')

    assert prompts_of(layout, raw, f"p.jsonl.{ending}") == ["a", "b"]
    cut = verdict_of(layout, raw[:-3], f"q.jsonl.{ending}", job="job2")
    assert isinstance(cut, NotYet)
    assert cut.until_rejected
    assert kept_name(f"p.csv.{ending}") == f"input.csv.{ending}"


@pytest.mark.parametrize(("name", "extra"), [("p.parquet", "obcd[parquet]"), ("p.jsonl.zst", "obcd[zst]")])
def test_r35_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr(file_format, "_has_module", lambda module: False)

    assert extra in why_not_taken(name, ALL)
    assert "accept = " in why_not_taken(name, frozenset())


@pytest.mark.parametrize("raw", [json.dumps(TWO).encode(), json.dumps(TWO[0], indent=1).encode()])
@pytest.mark.parametrize("name", ["notes.jsonl", "notes.jsonl.xz"])
def test_profile_that_does_not_accept_json_names_what_would_take_it(layout: Layout, name: str, raw: bytes) -> None:
    packed = lzma.compress(raw) if name.endswith("xz") else raw

    verdict = verdict_of(layout, packed, name, accepts=frozenset({"jsonl", "xz"}))

    assert isinstance(verdict, NotYet)
    assert not verdict.until_rejected
    assert 'accept = ["jsonl", "json", "xz"]' in verdict.why
    assert (layout.inbox / name).exists()


def test_lines_in_a_file_called_json_are_lines(layout: Layout) -> None:
    raw = b'{"prompt": "a"}\n\n{"prompt": "b"}'

    header = accept_bytes(layout, raw, name="notes.json", accepts=ALL)

    assert (header.lines, header.converted) == (3, None)
    assert (layout.jobs / header.id / "input.jsonl").read_bytes() == raw


@pytest.mark.parametrize("end", [b"]", b"", b'"}]'])
def test_array_without_its_end_waits_as_a_cut_off_file_does(layout: Layout, end: bytes) -> None:
    whole = json.dumps(TWO, indent=1).encode()
    raw = whole.removesuffix(b"\n]") if end == b"]" else whole[:-7] if end else whole[:-1]

    verdict = verdict_of(layout, raw, "notes.json")

    assert isinstance(verdict, NotYet)
    assert verdict.until_rejected
    assert "its end is missing" in verdict.why
    rejected = verdict_of(layout, raw, "notes.json", reject_torn=True)
    assert isinstance(rejected, Rejected)
    assert (rejected.folder / "input.json").read_bytes() == raw


def test_elements_that_are_not_objects_fail_alone_and_are_retried_by_their_lines(layout: Layout) -> None:
    raw = b'["Why?", {"prompt": "b",\n "options": {"temperature": 1.50e0}}, 7, {"prompt": "d", "id": "\\u00e9"}]'
    header = accept_bytes(layout, raw, name="notes.json")
    record(layout, header.id, [answer(1), failure(3, line=4)])

    folder = publish(layout, header.id, {})

    assert (header.requests, header.lines, header.bad_lines) == (4, 4, 2)
    assert [line["line"] for line in lines_of(folder / "responses.jsonl")] == [2]
    assert [line["line"] for line in lines_of(folder / "errors.jsonl")] == [1, 3, 4]
    found = verify("notes", folder)
    assert (found.verdict, found.problems) == (Verdict.COMPLETE, ())
    retry = (folder / "retry.jsonl").read_bytes()
    assert retry == b'"Why?"\n7\n{"prompt":"d","id":"\\u00e9"}\n'


def test_array_of_messages_is_refused_with_the_line_that_it_would_be(layout: Layout) -> None:
    verdict = verdict_of(layout, json.dumps(CHATS[0]["messages"], indent=1).encode(), "notes.json")

    assert isinstance(verdict, Rejected)
    assert '{"messages": […]}' in verdict.why


def test_each_line_of_arrays_of_messages_is_a_conversation(layout: Layout) -> None:
    raw = b"".join(json.dumps(chat["messages"]).encode() + b"\n" for chat in CHATS)

    assert prompts_of(layout, raw) == ["Ann", "Bob [", "Cid }\\"]


def test_file_over_a_megabyte_a_line_fails_that_element_alone(layout: Layout) -> None:
    raw = json.dumps([{"prompt": "a" * 5000}, {"prompt": "b"}]).encode()

    header = accept_bytes(layout, raw, name="notes.json", max_line_bytes=1024)

    assert (header.requests, header.bad_lines) == (2, 1)


def test_empty_array_holds_no_prompt(layout: Layout) -> None:
    verdict = verdict_of(layout, b"[]\n", "notes.json")

    assert isinstance(verdict, Rejected)
    assert wording("there-is-no-prompt-in-it-3") in verdict.why


@pytest.mark.parametrize("raw", [json.dumps(TWO, indent=2).encode(), json.dumps(TWO).encode()])
def test_submitted_array_is_checked_as_the_daemon_reads_it(layout: Layout, tmp_path: Path, raw: bytes) -> None:
    source = tmp_path / "notes.json"
    source.write_bytes(raw)
    target = find_target(layout.inbox, "", source.name, accepts={"json"})

    with open(source, "rb") as reader:
        done = drop(reader, str(source), target, 2**20)

    assert (done.name, done.prompts, done.bad) == ("notes.json", 2, 0)
    header = accept(layout, order_of(drop_of(layout.inbox / "notes.json"), accepts=ALL)).header  # type: ignore[union-attr]
    assert header.requests == 2
    with open(source, "rb") as reader, pytest.raises(InputError, match="accept = "):
        drop(reader, str(source), find_target(layout.inbox, "", "again.json"), 2**20)


def test_submitted_parquet_is_checked(layout: Layout, tmp_path: Path) -> None:
    parquet({"prompt": ["a", None]}, tmp_path / "p.parquet")
    target = find_target(layout.inbox, "", "p.parquet", accepts={"parquet"})

    with open(tmp_path / "p.parquet", "rb") as reader:
        done = drop(reader, "p.parquet", target, 2**20)

    assert (done.prompts, done.bad) == (1, 1)
    parquet({"note": ["a"]}, tmp_path / "p.parquet")
    with open(tmp_path / "p.parquet", "rb") as reader, pytest.raises(InputError, match="none of its columns"):
        drop(reader, "p.parquet", replace(target, path=layout.inbox / "q.parquet"), 2**20)


@pytest.mark.parametrize("name", ["notes.json", "notes.jsonl", "notes.txt", "notes"])
def test_batch_takes_an_array_whatever_the_name_of_the_file_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(TWO, indent=2))

    plan = plan_batch(Settings(), BatchOrder([tmp_path / name], tmp_path / "out"))
    plan.lock.release()

    header = plan.jobs[0].header
    assert header is not None
    assert (header.requests, header.bad_lines, header.stem) == (2, 0, name.partition(".json")[0])


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        (b"PAR1" + b"\0" * 60, "Parquet"),
        (lzma.compress(b"x" * 100), ".xz"),
        (zstd.compress(b"x" * 100), ".zst"),
        (b"BZh91AY&SY" + b"\0" * 50, "bzip2"),
        (b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml" + b"\0" * 300 + b"xl/workbook.xml", "Excel"),
        (b"PK\x03\x04" + b"\0" * 26 + b"word/document.xml", "Word"),
        (b"PK\x03\x04" + b"\0" * 26 + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "OpenDocument"),
        (b"PK\x03\x04" + b"\0" * 26 + b"arr_0.npy", "NumPy"),
        (b"%PDF-1.7\n%\xe2\xe3", "obcd prepare"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Office"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x80\x04\x95\x10\0", "pickle"),
        (b"\x93NUMPY\x01\0v\0", "NumPy"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"{\\rtf1\\ansi", "RTF"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
    ],
)
@pytest.mark.parametrize("name", ["notes.jsonl", "notes.csv"])
def test_file_of_another_kind_is_named_with_the_way_out(layout: Layout, name: str, raw: bytes, part: str) -> None:
    verdict = verdict_of(layout, raw, name)

    assert isinstance(verdict, Rejected)
    assert verdict.why.startswith("it is ")
    assert part in verdict.why
    assert "cut off" not in verdict.why


@pytest.mark.parametrize(
    "name",
    [
        *("Thumbs.db", "desktop.ini", ".DS_Store", "._notes.jsonl", "~$x.csv", "~$notes.jsonl", "4913", "5036"),
        *("notes.jsonl.bak", "notes.jsonl.download", "notes.jsonl.crdownload", "x.part", "x.filepart", "notes.jsonl~"),
        *(".notes.jsonl.swp", "notes.jsonl.swp", "#notes.jsonl#", ".~lock.notes.csv#", "5C4B8000", "notes.JSONL.BAK"),
        *("notes.csv.sb-1f2e3d4c-AbCdEf", "~WRL0001.tmp", "notes.jsonl.opdownload", "notes.jsonl.orig"),
    ],
)
def test_files_of_editors_and_systems_are_passed_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    inbox = Inbox(tmp_path, [], 0.0, require_marker=False)
    scan(inbox, 0.0)

    assert scan(inbox, 10.0) == []
    assert (inbox.waiting, inbox.ignored) == ({}, 1)


@pytest.mark.parametrize("name", ["notes.jsonl", "bak.jsonl", "old.json", "4913.jsonl", "download.csv", "4914.txt"])
def test_nothing_that_could_hold_prompts_is_passed_over(name: str) -> None:
    assert not is_ignored(name)


def test_folders_of_systems_are_no_profiles_that_lack(tmp_path: Path) -> None:
    for name in ("$RECYCLE.BIN", "#recycle", "visits"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.jsonl").write_bytes(b"x")
    inbox = Inbox(tmp_path, [], 0.0, require_marker=False)
    scan(inbox, 0.0)

    assert list(inbox.waiting) == [Key("", "visits")]


@pytest.mark.parametrize(
    ("name", "part"),
    [("a.xlsx", "CSV UTF-8"), ("a.docx", "obcd prepare"), ("a.zip", "unpack"), ("a.txt", "obcd prepare")],
)
def test_name_of_another_kind_waits_with_the_way_out(tmp_path: Path, name: str, part: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    inbox = Inbox(tmp_path, [], 0.0, require_marker=False)
    scan(inbox, 0.0)

    assert part in inbox.waiting[Key("", name)]


@pytest.mark.parametrize("name", ["notes.csv", "notes.jsonl"])
def test_file_in_latin_1_is_named_as_that(layout: Layout, tmp_path: Path, name: str) -> None:
    text = "prompt\nWo liegt Köln?\n" if name.endswith("csv") else '{"prompt": "Wo liegt Köln?"}\n'
    (tmp_path / name).write_text(text, "latin-1")

    with pytest.raises(InputError, match=r"is not UTF-8 .*CSV UTF-8"):
        plan_batch(Settings(), BatchOrder([tmp_path / name], tmp_path / "out"))
    with open(tmp_path / name, "rb") as reader, pytest.raises(InputError, match=r"is not UTF-8 .*CSV UTF-8"):
        drop(reader, name, find_target(layout.inbox, "", name, accepts=ALL), 2**20)


def test_lines_of_plain_text_hear_of_prepare(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Why is the sky blue?\nWhy is grass green?\n")

    with pytest.raises(InputError, match=r"obcd prepare - < FILE"):
        plan_batch(Settings(), BatchOrder([tmp_path / "notes.txt"], tmp_path / "out"))


@pytest.mark.parametrize(
    ("behind", "part"), [("// x", "a comment begins at column 18"), ("# x", "comment"), ("x", "second")]
)
def test_what_follows_an_object_is_named(layout: Layout, behind: str, part: str) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}  ' + behind.encode() + b'\n{"prompt": "b"}\n')

    assert (header.requests, header.bad_lines) == (2, 1)
    assert part in lines_of(finish(layout, header) / "errors.jsonl")[0]["message"]


@pytest.mark.parametrize("is_ascii", [True, False])
def test_every_beginning_of_a_line_counts_as_cut_off(is_ascii: bool) -> None:
    document = {"prompt": 'a "b" \\ ü\n€😀', "n": -1.5e-10, "t": [True, False, {"a": None}], "x": {}}
    raw = json.dumps(document, ensure_ascii=is_ascii).encode()

    assert [end for end in range(1, len(raw)) if not may_go_on(raw[:end])] == []


@pytest.mark.parametrize(
    "last",
    [b"Why is grass green?", b'{"prompt": "b"} // x', b'{"prompt": "b",, "id": 1}', b"['b']", b'["b"]', b"7", b"]"],
)
def test_bad_line_at_the_end_of_a_complete_file_fails_alone(layout: Layout, last: bytes) -> None:
    header = accept_bytes(layout, b'{"prompt": "a"}\n' + last)

    assert (header.requests, header.bad_lines) == (2, 1)


def test_object_around_the_list_of_prompts_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({"version": 1, "data": TWO}, indent=1))

    with pytest.raises(InputError, match="`data` is a list of objects"):
        plan_batch(Settings(), BatchOrder([tmp_path / "notes.json"], tmp_path / "out"))
