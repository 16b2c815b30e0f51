from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from obcd.core.request.context import ContextPlan
from obcd.core.request.records import Signature
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.job.job_folder import (
    FORMAT,
    RECORD_BYTES,
    JobHeader,
    Place,
    new_job_id,
    pack_place,
    read_header,
    read_place,
    read_places,
    read_request_line,
    renumber_signatures,
    signature_column,
)
from tests.golden.wording import wording
from tests.unit.spool.spools import SETTINGS


@pytest.fixture
def header() -> JobHeader:
    return JobHeader(
        id="20261122T180105-3f9a1c",
        name="notes.jsonl",
        profile="clinical",
        requests=3,
        settings=replace(SETTINGS, options={"temperature": 0}, format={"type": "object"}),
        signatures=(Signature("llama3.2:latest", (("num_ctx", 8192),)),),
    )


def write_job(folder: Path, lines: list[bytes], numbers: list[int] | None = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "input.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    offset, index = 0, b""
    for number, line in enumerate(lines):
        index += pack_place(Place(offset, len(line), number + 1, numbers[number] if numbers else 0))
        offset += len(line) + 1
    (folder / "index").write_bytes(index)


def test_header_comes_back_as_it_was_written(tmp_path: Path, header: JobHeader) -> None:
    disk.write_json(tmp_path / "job.json", header.to_json())

    assert read_header(tmp_path) == header


def test_planned_contexts_come_back_as_they_were_written(tmp_path: Path, header: JobHeader) -> None:
    plan = ContextPlan(num_ctx=2048, larger=8192, requests=3, outliers=1)
    disk.write_json(tmp_path / "job.json", replace(header, context=plan).to_json())

    assert read_header(tmp_path).context == plan


def test_header_of_a_version_that_knew_no_plan_has_none(header: JobHeader) -> None:
    document = header.to_json()
    del document["context"], document["settings"]["num_ctx_max"]

    assert JobHeader.from_json(document) == header
    assert header.settings_under(0) == header.settings


def test_signatures_are_numbered_anew_where_they_lie(tmp_path: Path) -> None:
    count = 9000
    write_job(tmp_path, [b"x"] * count, [number % 3 for number in range(count)])
    before = list(read_places(tmp_path))

    with open(tmp_path / "index", "r+b") as index:
        renumber_signatures(index, bytes([7, 8, 9]).ljust(256, b"\0"))

    assert list(read_places(tmp_path)) == [place._replace(signature=place.signature + 7) for place in before]
    assert signature_column(tmp_path) == bytes([7, 8, 9]) * (count // 3)


def test_header_of_a_newer_version_is_refused_with_what_to_do(tmp_path: Path, header: JobHeader) -> None:
    disk.write_json(tmp_path / "job.json", {**header.to_json(), "format": FORMAT + 1})

    with pytest.raises(InputError, match=wording("written-by-a-newer-obcd")):
        read_header(tmp_path)


def test_header_of_an_older_version_is_read(tmp_path: Path, header: JobHeader) -> None:
    """What an older one did not write yet has its default."""
    document = {**header.to_json(), "format": FORMAT - 1}
    del document["source"], document["drop_id"], document["bad_lines"]
    disk.write_json(tmp_path / "job.json", document)

    assert read_header(tmp_path) == replace(header, format=FORMAT - 1)


@pytest.mark.parametrize("change", [{"id": 3}, {"size": "big"}, {"requests": None}, {"signatures": [{"model": ""}]}])
def test_header_with_a_value_of_another_kind_is_damaged(
    tmp_path: Path, header: JobHeader, change: dict[str, object]
) -> None:
    disk.write_json(tmp_path / "job.json", {**header.to_json(), **change})

    with pytest.raises((ValueError, KeyError, TypeError)):
        read_header(tmp_path)


def test_keys_that_this_version_does_not_know_are_passed_over(tmp_path: Path, header: JobHeader) -> None:
    document = header.to_json()
    document["settings"]["new_setting"] = 1
    disk.write_json(tmp_path / "job.json", {**document, "new_key": 1})

    assert read_header(tmp_path) == header


def test_stem_and_label_are_what_people_see(header: JobHeader) -> None:
    assert (header.stem, header.label) == ("notes", "clinical/notes.jsonl")
    assert replace(header, profile="").label == "notes.jsonl"


def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = [new_job_id(float(second)) for second in range(0, 10**9, 10**6)]

    assert ids == sorted(ids)
    assert len({new_job_id(0.0) for _ in range(1000)}) == 1000


def test_each_line_is_found_by_its_ordinal(tmp_path: Path) -> None:
    lines = [b'{"prompt": "a"}', b"", b'{"prompt": "\xc3\xa4"}\r']
    write_job(tmp_path / "job", lines)

    for ordinal, line in enumerate(lines):
        place, raw = read_request_line(tmp_path / "job", ordinal)
        assert (place.line, raw) == (ordinal + 1, line)
        assert read_place(tmp_path / "job", ordinal) == place


def test_index_of_many_requests_is_read_in_order(tmp_path: Path) -> None:
    places = [Place(number * 2**20, 2**32 - 1, number + 1, number % 250) for number in range(10_000)]
    (tmp_path / "index").write_bytes(b"".join(map(pack_place, places)))

    assert list(read_places(tmp_path)) == places
    assert signature_column(tmp_path) == bytes(place.signature for place in places)
    assert RECORD_BYTES == 20
