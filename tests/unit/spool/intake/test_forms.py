"""Drops that are no plain JSONL: CSV, packed files, rows for a template."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.core.request.keys.ignored_keys import describe_ignored
from obcd.core.request.records import JobSettings
from obcd.core.tables.file_format import Form, form_of, stem_of, why_not_taken
from obcd.errors import InputError
from obcd.results.verify import Verdict, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Key
from obcd.spool.inbox.names import CONTROL, is_control
from obcd.spool.intake import acceptance, reading
from obcd.spool.intake.acceptance import Accepted, NotYet, Rejected, accept
from obcd.spool.intake.recovery import load_job
from obcd.spool.job.job_folder import JobHeader, read_header
from obcd.spool.outbox.publication import publish
from obcd.spool.submit.dropping import drop, submit
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

SETTINGS = JobSettings(model="llama3.2", template="Summarise: {note}", id_field="mrn")
ROWS = b'mrn,note\n7,"one,\nmore"\n8,two,x\n\n9,three\n'


def pack(text: bytes) -> bytes:
    return gzip.compress(text, mtime=0)  # the same at each collection of the tests


def taken(layout: Layout, content: bytes, name: str = "notes.csv", **changes: Any) -> JobHeader:
    return accept_bytes(layout, content, name=name, **{"settings": SETTINGS, **changes})


def refused(layout: Layout, content: bytes, name: str, **changes: Any) -> str:
    order = order_of(drop_of(put(layout, content, name)), **{"settings": SETTINGS, **changes})
    verdict = accept(layout, order)
    assert isinstance(verdict, Rejected), verdict
    return verdict.why


@pytest.mark.parametrize(
    ("name", "form", "stem"),
    [
        ("notes.jsonl", Form(), "notes"),
        ("notes.csv", Form("csv"), "notes"),
        ("a.b.tsv.gz", Form("tsv", "gz"), "a.b"),
        ("notes.jsonl.csv", Form("csv"), "notes.jsonl"),
        ("notes.jsonl.gz", Form(packing="gz"), "notes"),
        ("Notes.CSV", Form("csv"), "Notes"),
        ("notes.JSONL.Gz", Form(packing="gz"), "notes"),
        ("notes.gz", None, "notes.gz"),
        (".csv", None, ".csv"),
        ("notes.txt", None, "notes.txt"),
    ],
)
def test_name_tells_form_and_job(name: str, form: Form | None, stem: str) -> None:
    assert (form_of(name), stem_of(name)) == (form, stem)


def test_control_files_of_every_kind_of_drop_are_known() -> None:
    names = ("notes.CSV.cancel", "notes.jsonl.gz.pause", "a.tsv.gz.priority-10")

    assert all(map(is_control, names))
    assert [CONTROL.fullmatch(name)["drop"] for name in names] == ["notes.CSV", "notes.jsonl.gz", "a.tsv.gz"]  # type: ignore[index]
    assert not is_control("notes.txt.cancel")


def test_kind_that_the_profile_does_not_take_waits_and_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "clinical").mkdir()
    inbox = Inbox(tmp_path, ["clinical"], 0.0, require_marker=False, accepts={"clinical": {"csv"}})
    for name in ("notes.csv", "notes.csv.gz"):
        (tmp_path / name).write_bytes(ROWS)
        (tmp_path / "clinical" / name).write_bytes(ROWS)
        put_marker(tmp_path / "clinical" / name)

    assert [drop.key for drop in scan(inbox, 0.0)] == [Key("clinical", "notes.csv")]
    assert inbox.waiting == {
        Key("", "notes.csv"): why_not_taken("notes.csv", set()),
        Key("", "notes.csv.gz"): why_not_taken("notes.csv.gz", set()),
        Key("clinical", "notes.csv.gz"): why_not_taken("notes.csv.gz", {"csv"}),
    }
    assert inbox.waiting[Key("", "notes.csv")] == (wording("csv-is-not-taken-here-let"))
    assert inbox.waiting[Key("clinical", "notes.csv.gz")].startswith(wording("a-file-packed-by-gzip-is"))
    inbox.configure(["clinical"], 0.0, False, {"": {"csv", "gz"}})
    scan(inbox, 1.0)
    assert {drop.key.name for drop in scan(inbox, 2.0)} == {"notes.csv", "notes.csv.gz"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("notes.csv", wording("csv-is-not-taken-here-let-2")),
        ("notes.tsv", wording("csv-with-tabs-is-not-taken")),
        ("notes.jsonl.gz", wording("a-file-packed-by-gzip-is-2")),
        ("notes.jsonl", ""),
    ],
)
def test_kind_that_is_not_taken_is_named_with_what_would_take_it(name: str, sentence: str) -> None:
    why = why_not_taken(name, set())

    assert why.startswith(sentence)
    assert bool(why) == bool(sentence)


@pytest.mark.parametrize("name", ["notes.csv", "notes.csv.gz"])
def test_rows_become_a_job_whose_folder_verifies(layout: Layout, name: str) -> None:
    raw = pack(ROWS) if name.endswith(".gz") else ROWS
    header = taken(layout, raw, name)

    assert (header.requests, header.bad_lines, header.lines, header.size) == (3, 1, 3, len(raw))
    folder = finish(layout, header)
    assert folder.name == "notes"
    assert lines_of(folder / "input.jsonl") == [
        {"mrn": "7", "note": "one,\nmore"},
        ["8,two,x"],
        {"mrn": "9", "note": "three"},
    ]
    first, second = lines_of(folder / "responses.jsonl")
    assert (first["id"], first["line"], first["prompt"]) == ("7", 1, "Summarise: one,\nmore")
    assert first["extra"] == {"note": "one,\nmore"}
    assert (second["id"], second["line"]) == ("9", 3)
    error = lines_of(folder / "errors.jsonl")[0]
    assert (error["line"], error["message"]) == (
        2,
        wording("it-has-3-fields-where-the-3"),
    )
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert manifest["input"]["bytes"] == len(raw)
    assert manifest["input"]["converted"]["bytes"] == (folder / "input.jsonl").stat().st_size
    found = verify("notes", folder)
    assert (found.verdict, found.problems) == (Verdict.COMPLETE, ())
    (folder / "input.jsonl").write_bytes((folder / "input.jsonl").read_bytes().replace(b"9", b"6"))
    assert verify("notes", folder).verdict is Verdict.WRONG


def test_retry_of_rows_asks_the_same_again(layout: Layout) -> None:
    header = taken(layout, b"mrn,note\n7,one\n")
    record(layout, header.id, [failure_of(0)])
    folder = publish(layout, header.id, {})

    done = submit(layout.inbox, folder / "retry.jsonl", name="again", reading=SETTINGS.reading)

    assert (done.prompts, done.bad) == (1, 0)
    verdict = accept(layout, order_of(drop_of(layout.inbox / "again.jsonl"), "job2", settings=SETTINGS))
    assert isinstance(verdict, Accepted)
    assert verdict.header.bad_lines == 0


def failure_of(ordinal: int) -> bytes:
    return failure(ordinal, "no answer")


def test_packed_lines_are_taken_as_they_are(layout: Layout) -> None:
    text = b'\xef\xbb\xbf{"prompt": "one"}\n\n{"prompt": "two"}'
    header = taken(layout, pack(text), "notes.jsonl.gz", settings=JobSettings(model="m"))

    assert read_header(layout.jobs / "job1") == header
    assert (layout.jobs / "job1" / "input.jsonl").read_bytes() == text
    assert (header.requests, header.lines, header.stem) == (2, 3, "notes")
    assert verify("notes", finish(layout, header)).verdict is Verdict.COMPLETE


def test_columns_ask_by_their_names_where_there_is_no_template(layout: Layout) -> None:
    header = taken(layout, b"prompt,system,ward\nHi,Be brief,3b\n", settings=JobSettings(model="m"))

    response = lines_of(finish(layout, header) / "responses.jsonl")[0]
    assert (response["id"], response["prompt"], response["extra"]) == (1, "Hi", {"ward": "3b"})


def test_cells_of_obcds_own_keys_hold_json_and_say_nothing_where_they_are_empty(layout: Layout) -> None:
    rows = (
        b"id,prompt,model,options,images,think,ward\n"
        b'a,Hi,,"{""temperature"": 0}",,,\n'
        b",Ho,m2,,,low,3b\n"
        b"c,,,,,,\n"
        b"d,He,,{temperature,,,\n"
    )

    header = taken(layout, rows, settings=JobSettings(model="m"))

    lines = lines_of(layout.jobs / "job1" / "input.jsonl")
    assert lines[:3] == [
        {"id": "a", "prompt": "Hi", "options": {"temperature": 0}, "ward": ""},
        {"prompt": "Ho", "model": "m2", "think": "low", "ward": "3b"},
        {"id": "c", "prompt": "", "ward": ""},
    ]
    folder = finish(layout, header)
    assert [line["id"] for line in lines_of(folder / "responses.jsonl")] == ["a", 2]
    assert [(line["id"], line["message"]) for line in lines_of(folder / "errors.jsonl")] == [
        ("c", wording("prompt-is-empty")),
        (4, wording("the-cell-of-options-must-be-2")),
    ]
    assert verify("notes", folder).verdict is Verdict.COMPLETE


def test_cells_are_texts_whatever_their_columns_are_called_where_a_template_makes_the_prompts(layout: Layout) -> None:
    taken(layout, b"mrn,note,options,model\n7,x,{,\n")

    assert lines_of(layout.jobs / "job1" / "input.jsonl") == [{"mrn": "7", "note": "x", "options": "{", "model": ""}]


def test_delimiter_of_the_profile_divides_csv_and_leaves_tsv_alone(layout: Layout) -> None:
    settings = JobSettings(model="m", template="{note}", id_field="mrn", delimiter=";")

    taken(layout, b"mrn;note\n7;1,5\n", "notes.csv", settings=settings)
    taken(layout, b"mrn\tnote\n8\tx;y\n", "notes.tsv", settings=settings, job="job2")

    assert lines_of(layout.jobs / "job1" / "input.jsonl") == [{"mrn": "7", "note": "1,5"}]
    assert lines_of(layout.jobs / "job2" / "input.jsonl") == [{"mrn": "8", "note": "x;y"}]


def test_empty_field_of_a_template_is_the_failure_of_its_line_alone(layout: Layout) -> None:
    header = taken(layout, b"mrn,note\n7,\n,x\n,\n \n")

    folder = finish(layout, header)
    assert [line["id"] for line in lines_of(folder / "responses.jsonl")] == [2]
    assert [(line["id"], line["message"]) for line in lines_of(folder / "errors.jsonl")] == [
        ("7", wording("its-field-note-is-empty-which")),
    ]
    assert verify("notes", folder).verdict is Verdict.COMPLETE


@pytest.mark.parametrize(
    ("name", "raw", "requests", "unobeyed"),
    [
        ("r36.csv", b"mrn,note,\n" + b",,\n" * 100 + b"1,a,\n2,b,\n3,c,\n" + b",,\n" * 100, 3, {}),
        ("r37.csv", b",note\n0,a\n1,b\n2,c\n", 3, {"column_1": 1}),
        ("r38.csv", b"sep=,\r\nmrn,note\r\n1,a\r\n", 1, {}),
        ("r38.tsv", b"sep=;\r\nmrn;note\r\n1;a\r\n", 1, {}),
        ("r39.tsv", b'mrn\tnote\n8\t"No, he said.\n9\tHe said "no\n10\t"Yes" and\n11\tx"\n', 4, {}),
        ("dos.csv", b"mrn,note\r\n1,a\r\n\x1a", 1, {}),
        ("mac.csv", b"mrn,note\r1,a\r2,b", 2, {}),
    ],
)
def test_r36_to_r39_each_row_is_one_request_and_the_index_is_reported(
    layout: Layout, tmp_path: Path, name: str, raw: bytes, requests: int, unobeyed: dict[str, int]
) -> None:
    (tmp_path / name).write_bytes(raw)
    target = find_target(layout.inbox, "", name, SETTINGS.reading, {"csv", "tsv"})
    with open(tmp_path / name, "rb") as reader:
        submitted = drop(reader, name, target, 2**20)

    header = accept(layout, order_of(drop_of(layout.inbox / name), settings=SETTINGS))

    assert isinstance(header, Accepted)
    assert (submitted.prompts, submitted.bad, submitted.unobeyed) == (requests, 0, unobeyed)
    assert (header.header.requests, header.header.bad_lines, header.header.unobeyed) == (requests, 0, unobeyed)
    assert describe_ignored(unobeyed) == [wording("column-1-of-the-table-has-no-name")] * len(unobeyed)


def test_table_where_a_quote_swallows_rows_is_rejected_with_their_number(layout: Layout) -> None:
    raw = b'mrn,note\n1,a\n2,"open\n3,c\n4,"d, e"\n5,f\n'
    why = refused(layout, raw, "notes.csv")

    assert why.startswith(wording("a-quote-makes-one-row-of", 3, 3, 3, 5))
    settings = replace(SETTINGS, quotes=False)
    header = taken(layout, b'mrn,note\n2,"open\n3,c\n', "plain.csv", settings=settings)
    assert (header.requests, header.bad_lines) == (2, 0)
    assert JobSettings.from_json(header.settings.to_json()) == settings


def test_quote_that_never_ends_is_refused_before_a_marker_vouches_for_the_file(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_bytes(b'mrn,note\n1,"open\n2,b\n3,c\n')
    target = find_target(layout.inbox, "", "notes.csv", SETTINGS.reading, {"csv"})

    with open(tmp_path / "notes.csv", "rb") as reader, pytest.raises(InputError) as error:
        drop(reader, "notes.csv", target, 2**20)
    assert wording("its-last-row-ends-within-quotes-line", 2, 4) in str(error.value)


def test_latin_1_table_says_what_it_seems_to_be(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_bytes("mrn,note\n1,café\n2,Größe\n".encode("latin-1"))
    target = find_target(layout.inbox, "", "notes.csv", SETTINGS.reading, {"csv"})

    with open(tmp_path / "notes.csv", "rb") as reader, pytest.raises(InputError) as error:
        drop(reader, "notes.csv", target, 2**20)
    assert wording("line-1-it-is-not-utf-8") in str(error.value)
    why = refused(layout, "mrn,Größe\n1,a\n".encode("cp1252"), "header.csv")
    assert why.startswith(wording("its-header-the-first-line-is-latin"))


def test_table_without_a_prompt_is_rejected_as_a_whole_with_what_helps(layout: Layout) -> None:
    why = refused(layout, b"mrn,note\n7,one\n", "notes.csv", settings=JobSettings(model="m"))

    assert why.startswith(wording("none-of-its-columns-is-called"))
    assert "template =" in why
    assert wording("obcd-prepare-column-name") in why


def test_missing_field_is_the_failure_of_its_line_alone(layout: Layout) -> None:
    header = taken(layout, b'{"mrn": 1}\n{"mrn": 2, "note": "x"}\n', "notes.jsonl")

    error = lines_of(finish(layout, header) / "errors.jsonl")[0]
    assert error["message"] == wording("it-has-no-field-note-which")
    assert (error["id"], header.requests, header.bad_lines) == (1, 2, 1)


def test_bad_rows_fail_again_when_the_ledger_lost_them(layout: Layout) -> None:
    header = taken(layout, ROWS)
    (layout.jobs / "job1" / "ledger.log").write_bytes(b"")

    assert load_job(layout, header.id).replay.counts.failures == 1


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("notes.csv", b'mrn,note\n7,"one\n', wording("its-last-row-from-line-2-2")),
        ("notes.csv", b"mrn,note\n7,one\n8", wording("its-last-row-line-3-is")),
        ("notes.csv.gz", pack(ROWS)[:-3], wording("it-is-cut-off-the-end")),
        ("notes.jsonl.gz", pack(b'{"note": "a"}\n{"no'), wording("its-last-line-is-cut-off")),
        ("notes.csv", b"", wording("it-is-empty")),
        ("notes.csv", b"mr;no", wording("its-header-the-first-line-has")),
    ],
)
def test_file_that_looks_cut_off_waits_and_is_rejected_in_the_end(
    layout: Layout, name: str, raw: bytes, sentence: str
) -> None:
    order = order_of(drop_of(put(layout, raw, name)), settings=SETTINGS)

    verdict = accept(layout, order)
    assert isinstance(verdict, NotYet)
    assert verdict.until_rejected
    assert verdict.why.startswith(wording("an-upload-that-broke-off", sentence))
    assert (layout.inbox / name).exists()
    why = refused(layout, raw, name, reject_torn=True)
    assert why.startswith(sentence) or (
        sentence == wording("its-last-line-is-cut-off") and wording("is-cut-off") in why
    )


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("notes.csv", pack(ROWS), wording("it-is-a-gzip-file-unpack")),
        ("notes.csv", b"PK\x03\x04....", wording("it-is-a-zip-file-unpack")),
        ("notes.csv", "a,b\n".encode("utf-16"), wording("it-is-utf-16-text-save")),
        ("notes.csv.gz", pack(b"PK\x03\x04..."), wording("it-is-a-zip-file-unpack")),
        ("notes.csv.gz", ROWS, wording("it-is-no-gzip-file-although-2")),
        ("notes.csv", b"mrn,mrn\n1,2\n", wording("two-columns-of-its-header-are-2")),
        ("notes.csv", b"mrn;note\n1;2\n", wording("its-header-has-semicolons-where-commas-3")),
        ("notes.csv.gz", pack(b"mrn\tnote\n1\t2\n"), wording("its-header-has-tabs-where-commas")),
        ("notes.csv", b"m" * 201 + b",note\n", wording("the-name-of-column-1-is-2")),
        ("notes.csv", b"mrn,note\n", wording("there-is-no-prompt-in-it-4")),
        ("notes.csv", "mrn,note\n".encode("utf-16-le"), wording("it-is-utf-16-text-save")),
        ("notes.csv", "mrn,note\n".encode("utf-16-be"), wording("it-is-utf-16-text-save")),
        ("notes.csv", ROWS * 3000, wording("it-is-longer-than-100000-bytes")),
        ("notes.jsonl.gz", pack(b'{"note": "x"}\n' * 9000), wording("it-is-longer-than-100000-bytes-2")),
    ],
)
def test_file_that_is_not_what_its_name_says_is_rejected(layout: Layout, name: str, raw: bytes, sentence: str) -> None:
    assert refused(layout, raw, name, max_expanded_bytes=100_000) == sentence


def test_header_of_long_names_is_no_bomb(layout: Layout) -> None:
    names = b",".join(b"n%0180d" % number for number in range(100))

    why = refused(layout, names + b"\n" + (b"1" + b"," * 99 + b"\n") * 1000, "notes.csv", max_expanded_bytes=2**20)

    assert why == wording("it-is-longer-than-1048576-bytes-2")


def test_small_file_whose_rows_repeat_long_names_is_a_bomb(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FREE_BYTES", 2**16)
    names = b",".join(b"n%0180d" % number for number in range(100))

    why = refused(layout, pack(names + b"\n" + (b"1" + b"," * 99 + b"\n") * 3000), "notes.csv.gz")

    assert why == wording("as-json-lines-it-is-more")


def test_disk_that_becomes_full_while_a_file_is_unpacked_breaks_it_off(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROOM_BYTES", 1000)
    raw = pack(b'{"note": "x"}\n' * 1000)
    order = order_of(drop_of(put(layout, raw, "notes.jsonl.gz")), settings=SETTINGS, min_free_bytes=2**60)
    monkeypatch.setattr(acceptance, "_why_no_room", lambda *_: None)

    with pytest.raises(OSError, match="No space left"):
        accept(layout, order)


def test_submitted_csv_is_checked_with_the_template_of_its_profile(layout: Layout, tmp_path: Path) -> None:
    source = tmp_path / "notes.csv.gz"
    source.write_bytes(pack(ROWS))
    with pytest.raises(InputError, match=wording("notes-csv-gz-csv-is-not")):
        find_target(layout.inbox, "", source.name)
    target = find_target(layout.inbox, "", source.name, SETTINGS.reading, {"csv", "gz"})

    with open(source, "rb") as reader:
        done = drop(reader, str(source), target, 2**20)

    assert (done.prompts, done.bad) == (2, 1)
    assert done.bad_lines == ((2, wording("it-has-3-fields-where-the-3")),)
    verdict = accept(layout, order_of(drop_of(layout.inbox / source.name), settings=SETTINGS))
    assert isinstance(verdict, Accepted)  # what its marker promises holds


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("notes.csv", b'mrn,note\n1,"x', wording("its-last-row-from-line-2-3")),
        ("notes.csv.gz", b"mrn,note\n", wording("it-is-no-gzip-file-although-3")),
        ("notes.csv", "mrn,note\n1,x\n".encode("utf-16"), wording("notes-csv-it-is-utf-16")),
        ("NOTES.CSV", b"mrn;note\n1;x\n", wording("its-header-has-semicolons-where-commas-4")),
        ("notes.jsonl.gz", pack(b"x" * 3000), wording("line-1-is-longer-than-1024")),
        ("notes.csv", b"mrn,other\n1,2\n", wording("its-only-line-is-no-prompt")),
    ],
)
def test_submit_refuses_what_would_be_rejected(
    layout: Layout, tmp_path: Path, name: str, raw: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    target = find_target(layout.inbox, "", name, SETTINGS.reading, {"csv", "gz"})

    with open(tmp_path / name, "rb") as reader, pytest.raises(InputError) as error:
        drop(reader, name, target, 1024)

    assert sentence in str(error.value)
    assert not [item for item in layout.inbox.iterdir() if item.is_file()]


def test_answers_of_a_repeated_csv_are_found_by_what_was_dropped(layout: Layout) -> None:
    header = taken(layout, ROWS)
    record(layout, header.id, [answer(0)])

    twin = order_of(drop_of(put(layout, ROWS, "notes.csv")), "job2", settings=SETTINGS, unfinished=(header,))

    verdict = accept(layout, twin)
    assert isinstance(verdict, NotYet)
    assert wording("the-same-file-is-being-answered") in verdict.why
