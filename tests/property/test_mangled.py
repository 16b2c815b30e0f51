"""Whatever bytes lie where obcd reads: it answers with its own errors, or with a line that says what is wrong."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.config.loading import load_settings
from obcd.core.answer.openai.openai_response import to_record
from obcd.errors import ConfigurationError, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.markers import Marker
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, NotYet, Rejected, accept, accept_claimed
from obcd.spool.job import ledger
from obcd.spool.outbox import publication, status_folders
from tests.faults.checks import quick_syncs
from tests.unit.spool.spools import (
    THREE,
    accept_bytes,
    answer,
    drop_of,
    failure,
    finish,
    lines_of,
    make_layout,
    order_of,
    put,
    record,
    scan,
)

#: Lines of every shape, good and bad: what is mangled from here on.
SEEDS = [
    b'{"prompt": "one"}',
    b'{"role": "user", "content": "two"}',
    b'{"id": "a-3", "prompt": "three", "model": "phi4", "system": "brief", "think": true}',
    b'{"id": 4, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "four"}]}',
    b'{"id": [5], "prompt": "f\\u00fcnf \\ud83d\\ude00", "options": {"num_ctx": 4096, "stop": ["\\n"]}}',
    b'{"prompt": "six", "format": {"type": "object", "properties": {"a": {"type": "null"}}}, "extra": [[1]]}',
    b'{"prompt": "seven", "images": ["aGVsbG8="], "tools": [{"type": "function"}]}',
    b'{"custom_id": "8", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": []}}',
    b'{"id": 9, "embed": ["nine", "ten"]}',
    '{"prompt": "zehn \u2028 Zürich 東京"}'.encode(),
    b"",
    b"  \t\r",
    b"not json",
    b"[1, 2, {}]",
    b'"text"',
    b"null",
    b'{"prompt": ""}',
    b'{"prompt": "a", "prompt": "b"}',
    b'{"prompt": "a", "x": NaN}',
    b'{"prompt": "a", "x": 1e999}',
    b'{"prompt": "lone \\ud800"}',
    b'{"prompt": "nul \\u0000"}',
    b'\xef\xbb\xbf{"prompt": "mark"}',
    b"\xff\xfe{\x00}\x00",
    b"\x1f\x8b\x08\x00",
    b"\x00" * 12,
    b'{"prompt": "cut o',
    b'{"prompt": "a"} {"prompt": "b"}',
    b'{"prompt": "a", "model": 3}',
    b'{"prompt": "a", "endpoint": "http://evil", "output": "../../x"}',
    b'{"prompt": "a", "options": {"heat": 1}}',
    b"[" * 200,
    b'{"prompt": "a", "x": ' + b"[" * 110 + b"]" * 110 + b"}",
]
#: What is put in the place of some bytes of a seed.
TOKENS = [
    *(bytes([byte]) for byte in b'\n\r"{}[],:\\- \x00\xff\xc3'),
    *(b"\\u", b"\\ud800", b"e9", b"1e999", b"NaN", b"9" * 4301, b"null", b"true", b'"prompt"', b'"id":', b"[" * 40),
    "\u2028".encode(),
]


@st.composite
def mangled_lines(draw: st.DrawFn) -> bytes:
    """Return a seed with some of its bytes cut out, doubled, or replaced by what means something to a parser."""
    line = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(line)))
        end = draw(st.integers(start, min(len(line), start + 12)))
        middle = draw(st.sampled_from(TOKENS) | st.binary(max_size=4) | st.just(line[start:end] * 2))
        line = line[:start] + middle + line[end:]
    return line


files = st.lists(mangled_lines(), max_size=8).map(b"\n".join) | st.lists(mangled_lines(), max_size=8).map(
    lambda lines: b"".join(line + b"\n" for line in lines)
)
#: JSON that is fine, and not what is expected.
documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@contextmanager
def spool() -> Iterator[Layout]:
    """Yield a spool of one example; hypothesis asks for many within one test."""
    folder = Path(tempfile.mkdtemp(prefix="obcd-mangled-"))
    with pytest.MonkeyPatch.context() as patch, quick_syncs():
        patch.setenv("XDG_RUNTIME_DIR", str(folder))
        try:
            yield make_layout(folder / "root")
        finally:
            shutil.rmtree(folder)


@pytest.mark.case("E4", "E6", "E7", "E9")
@given(content=files, reject_torn=st.booleans())
def test_any_file_becomes_a_job_with_a_result_for_each_line_or_is_given_back_with_a_reason(
    content: bytes, reject_torn: bool
) -> None:
    with spool() as layout:
        verdict = accept(layout, order_of(drop_of(put(layout, content)), reject_torn=reject_torn, max_line_bytes=4000))
        if isinstance(verdict, Accepted):
            folder = finish(layout, verdict.header)
            lines = content if verdict.header.converted is None else (folder / "input.jsonl").read_bytes()
            assert_one_result_a_line(lines, folder)
        elif isinstance(verdict, Rejected):
            assert verdict.why.isprintable()
            assert (verdict.folder / "input.jsonl").read_bytes() == content
        else:
            assert isinstance(verdict, NotYet)
            assert (layout.inbox / "notes.jsonl").read_bytes() == content


def assert_one_result_a_line(content: bytes, folder: Path) -> None:
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    told = lines_of(folder / "errors.jsonl") if (folder / "errors.jsonl").exists() else []
    errors: list[dict[str, Any]] = [to_record(item) for item in told]
    found: list[Any] = [to_record(item)["line"] for item in lines_of(folder / "responses.jsonl")]
    found += [item["line"] for item in errors]
    assert sorted(found) == sorted(expected)
    if errors:
        given_back = (folder / "retry.jsonl").read_bytes()
        assert given_back == b"".join(expected[item["line"]] + b"\n" for item in errors)


@given(content=st.binary(max_size=60) | documents.map(lambda value: json.dumps(value).encode()) | mangled_lines())
def test_any_marker_is_a_marker_or_makes_its_file_wait(content: bytes) -> None:
    with suppress(ValueError):
        marker = Marker.parse(content)
        assert marker.sha256.isprintable()
        assert marker.drop_id.isprintable()
    with spool() as layout:
        path = put(layout, THREE)
        path.with_name("notes.jsonl.done").write_bytes(content)
        inbox = Inbox(layout.inbox, [], 0.0, require_marker=False)
        for drop in scan(inbox, 1.0):
            verdict = accept(layout, order_of(drop))
            assert isinstance(verdict, Accepted | Rejected)
        assert not path.exists() or inbox.waiting


HEADER = Path("jobs/job1/job.json")


@given(data=st.data())
def test_any_header_is_read_refused_or_kept_as_damaged(data: st.DataObject) -> None:
    with spool() as layout:
        accept_bytes(layout, THREE)
        path = layout.root / HEADER
        document = {**disk.read_json(path), "accepted_at": 1795387266.5}  # the same each time, as hypothesis needs it
        path.write_bytes(data.draw(mangled_json(json.dumps(document).encode())))
        if data.draw(st.booleans()):
            shutil.rmtree(layout.claim("job1", ""))
        try:
            found = recovery.recover(layout)
        except InputError as error:
            assert "newer obcd" in str(error)  # noqa: PT017 - one of several outcomes
            return
        known = [header.id for header in found.jobs] + [*found.damaged] + [claim.job for claim in found.claims]
        assert len(known) == 1
        for claim in found.claims:
            assert isinstance(accept_claimed(layout, order_of(claim.drop, claim.job)), Accepted)


@st.composite
def mangled_json(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return a JSON object with one key's value replaced or gone, or with its bytes cut or exchanged."""
    document = json.loads(raw)
    if draw(st.booleans()):
        key = draw(st.sampled_from(sorted(document)))
        if draw(st.booleans()):
            document[key] = draw(documents)
        else:
            del document[key]
        return json.dumps(document).encode()
    start = draw(st.integers(0, len(raw)))
    end = draw(st.integers(start, len(raw)))
    return raw[:start] + draw(st.sampled_from([b"", *TOKENS])) + raw[end:]


@pytest.mark.case("B20")
@given(data=st.data())
def test_any_ledger_is_read_as_far_as_it_is_whole_and_the_job_is_finished(data: st.DataObject) -> None:
    with spool() as layout:
        header = accept_bytes(layout, THREE + b"bad\n")
        record(layout, "job1", [answer(1), failure(0)])
        path = layout.jobs / "job1" / ledger.NAME
        raw = path.read_bytes()
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 30)))
        path.write_bytes(raw[:start] + data.draw(st.binary(max_size=20) | st.sampled_from(TOKENS)) + raw[end:])

        loaded = recovery.load_job(layout, "job1")

        assert loaded.header == header
        assert loaded.replay.done[3] == 1, "a bad line is to be asked"
        assert_one_result_a_line(THREE + b"bad\n", finish(layout, header))


@given(content=st.binary(max_size=80) | documents.map(lambda value: json.dumps(value).encode()))
def test_any_strangers_manifest_is_passed_over(content: bytes) -> None:
    with spool() as layout:
        for name in ("notes", "notes.partial"):
            (layout.outbox / name).mkdir()
            (layout.outbox / name / "manifest.json").write_bytes(content)
            (layout.outbox / name / "progress.json").write_bytes(content)

        assert publication.find_published(layout.outbox, "d1", "notes.jsonl", "") is None
        assert status_folders.find_progress(layout.outbox, "d1", "notes.jsonl", "") is None
        accept_bytes(layout, THREE)
        assert finish_again(layout).name == "notes.job1"


def finish_again(layout: Layout) -> Path:
    return finish(layout, recovery.load_job(layout, "job1").header)


TOML = b"""model = "llama3.2"
system_message = "Be brief."
[ollama_instances]
"server1:11432" = 0
"server1:11433" = {gpu = 1, slots = 16}
[spool]
root = "/var/spool/obcd"
settle_seconds = 5
[requests]
num_ctx = 4096
temperature = 0.5
[profiles.clinical]
num_predict = 50
"""
TOML_TOKENS = [
    *(bytes([byte]) for byte in b"[]='\"\n{}.#\x00\xff"),
    *(b"-1", b"1e400", b"nan", b"inf", b"true", b'"""', b"[[profiles]]", b"1979-05-27", b"0x", b"9" * 5000, b"[" * 40),
]


@given(data=st.data())
def test_any_configuration_is_read_or_refused_with_a_sentence(data: st.DataObject) -> None:
    raw = TOML
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 15)))
        raw = raw[:start] + data.draw(st.sampled_from([b"", *TOML_TOKENS]) | st.binary(max_size=3)) + raw[end:]
    with spool() as layout:
        path = layout.root / "obcd.toml"
        path.write_bytes(raw)
        try:
            load_settings(path)
        except ConfigurationError as error:
            assert len(str(error)) > 10  # noqa: PT017 - one of two outcomes
