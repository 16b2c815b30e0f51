from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.results.verify import Verdict, Verification, find_folders, verify
from obcd.spool.folders.layout import Layout
from obcd.spool.intake.acceptance import Accepted, Rejected, Repeated, accept
from obcd.spool.outbox import publication
from tests.golden.wording import wording
from tests.unit.spool.spools import (
    SETTINGS,
    accept_bytes,
    answer,
    drop_of,
    failure,
    finish,
    make_layout,
    order_of,
    put,
    record,
)

#: Seven lines, one of them blank; line 4 is no prompt, and line 6 will fail.
INPUT = (
    b'\xef\xbb\xbf{"id": "a", "prompt": "one", "ward": 9}\r\n'
    b'{"prompt": "two"}\n'
    b"\n"
    b'{"id": [4], "prompt": ""}\n'
    b'{"id": 1.0, "prompt": "f\xc3\xbcnf \\ud800"}\n'
    b'{"id": true, "prompt": "six"}\n'
    b'{"role": "user", "content": "seven"}'
)

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        return publish_notes(make_layout(tmp_path_factory.mktemp("spool") / "root"))


@pytest.fixture
def notes(published: Path, tmp_path: Path) -> Path:
    """Return a copy of a published folder, to be damaged."""
    return Path(shutil.copytree(published, tmp_path / "notes"))


def publish_notes(layout: Layout) -> Path:
    header = accept_bytes(layout, INPUT)
    results = [
        answer(0, "I"),
        answer(1, "II", done_reason="length", endpoint="gpu1", seconds=1.25),
        answer(3, "V \udfff", line=5),
        failure(4, line=6),
        answer(5, "VII", line=7, eval_tokens=11),
    ]
    record(layout, header.id, results)
    return finish(layout, header)


def check(folder: Path) -> Verification:
    return verify("notes", folder)


def lines(folder: Path, name: str, change: Callable[[list[bytes]], object]) -> None:
    """Change a file as a list of lines, each with its LF."""
    path = folder / name
    content = path.read_bytes().splitlines(keepends=True)
    change(content)
    path.write_bytes(b"".join(content))


def set_key(name: str, number: int, key: str, value: Any) -> Damage:
    """Return a damage that sets (or with ... removes) a key of the number-th line of a file, from 0."""

    def damage(folder: Path) -> None:
        def change(content: list[bytes]) -> None:
            document = json.loads(content[number])
            document[key] = value
            if value is ...:
                del document[key]
            content[number] = json.dumps(document).encode() + b"\n"

        lines(folder, name, change)

    return damage


def set_manifest(key: str, value: Any) -> Damage:
    def damage(folder: Path) -> None:
        document = inner = json.loads((folder / "manifest.json").read_bytes())
        *path, last = key.split("/")
        for part in path:
            inner = inner[part]
        inner[last] = value
        (folder / "manifest.json").write_text(json.dumps(document), "utf-8")

    return damage


def change(name: str, act: Callable[[list[bytes]], object]) -> Damage:
    return lambda folder: lines(folder, name, act)


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Return a damage that puts something else in a file's place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return damage


def without_digests(folder: Path) -> None:
    """Make the folder one of an obcd that did not write digests of the outputs: the lines must speak for themselves."""
    document = json.loads((folder / "manifest.json").read_bytes())
    del document["outputs"]
    (folder / "manifest.json").write_text(json.dumps(document), "utf-8")


# --- what is right ---------------------------------------------------------------------------------------------------


def test_published_job_is_complete(notes: Path) -> None:
    assert check(notes) == Verification(
        name="notes", verdict=Verdict.COMPLETE, requests=6, responses=4, failures=2, cut_short=1
    )


def test_job_without_digests_of_its_outputs_is_complete(notes: Path) -> None:
    without_digests(notes)

    assert check(notes).verdict is Verdict.COMPLETE


def test_job_whose_lines_all_failed_is_complete(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, b'{"id": "x"}\n[1]\n"\xff"\n{"id": "\n' + b"9" * 5000 + b"\n"))

    assert (check(folder).verdict, check(folder).failures) == (Verdict.COMPLETE, 5)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("filler", [b" ", b"x"])
def test_lines_that_are_too_long_are_paired_too(layout: Layout, mark: bytes, filler: bytes) -> None:
    header = accept_bytes(layout, mark + filler * (5 * 2**20) + b'\n{"prompt": "two"}\n' + b" " * 5000 + b"\n")
    record(layout, header.id, [answer(header.requests - 1, line=2)])

    result = check(finish(layout, header))

    assert (result.verdict, result.problems) == (Verdict.COMPLETE, ())


def test_job_whose_original_was_written_on_is_complete_with_both(layout: Layout) -> None:
    header = accept_bytes(layout, INPUT)
    with open(layout.claim(header.id, "") / "notes.jsonl", "ab") as original:
        original.write(b'\n{"prompt": "late"}\n')
    folder = finish(layout, header)

    assert check(folder).verdict is Verdict.COMPLETE

    (folder / "input.modified.jsonl").unlink()
    assert check(folder).problems == (wording("input-modified-jsonl-is-missing"),)


def test_stamp_of_obcd_batch_belongs_to_the_folder(notes: Path) -> None:
    (notes / "response-files.json").write_text('{"epoch": 1}')

    assert check(notes).verdict is Verdict.COMPLETE


def test_files_of_single_answers_belong_to_the_folder_of_a_job_that_has_them(layout: Layout) -> None:
    files = b'{"prompt": "one", "n": 2}\n{"prompt": ""}\n{"prompt": "three"}\n'
    header = accept_bytes(layout, files, settings=replace(SETTINGS, files=True))
    record(layout, header.id, [answer(0, "a", seed=1), answer(1, "b", seed=2), answer(3, "c", line=3)])
    folder = finish(layout, header)
    epoch = int(header.accepted_at)

    assert {path.name for path in folder.glob("*-*.json")} == {f"{epoch}-{rest}.json" for rest in ("1-0", "1-1", "3")}
    assert check(folder).verdict is Verdict.COMPLETE

    (folder / f"{epoch}-3.json").rename(folder / f"{epoch + 1}-3.json")
    assert check(folder).verdict is Verdict.WRONG
    assert check(folder).problem_count == 2


def test_verifying_changes_nothing(notes: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in notes.iterdir()}
    folder = notes.stat().st_mtime_ns

    check(notes)

    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in notes.iterdir()} == before
    assert notes.stat().st_mtime_ns == folder


# --- each way to damage it -------------------------------------------------------------------------------------------

#: {what happened: (how, what is said of it)}
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a byte of the input changed": (
        lambda folder: (folder / "input.jsonl").write_bytes(INPUT.replace(b'"ward": 9', b'"ward": 8')),
        "manifest.json: input.sha256 is",
    ),
    "the input grew": (
        lambda folder: (folder / "input.jsonl").write_bytes(INPUT + b"\n"),
        f"manifest.json: input.bytes is {len(INPUT)}, but the files say {len(INPUT) + 1}",
    ),
    "a response is gone": (
        change("responses.jsonl", lambda all: all.pop(1)),
        "input.jsonl: line 2 of the input has no",
    ),
    "all responses are gone": (change("responses.jsonl", list.clear), "input.jsonl: lines 1 to 2 have no result"),
    "a failure is gone": (change("errors.jsonl", lambda all: all.pop(1)), "input.jsonl: line 6 of the input has no"),
    "a response is there twice": (
        change("responses.jsonl", lambda all: all.insert(1, all[0])),
        "responses.jsonl line 2: it is a second result of line 1",
    ),
    "a line is answered and failed": (
        set_key("responses.jsonl", 3, "line", 6),
        "errors.jsonl line 2: it is a second result of line 6",
    ),
    "responses are out of order": (
        change("responses.jsonl", list.reverse),
        "responses.jsonl line 2: line 5 comes after line 7, out of the input's order",
    ),
    "a response of a blank line": (
        set_key("responses.jsonl", 1, "line", 3),
        "responses.jsonl line 2: it belongs to line 3, which is blank in the input",
    ),
    "a response of no line": (
        set_key("responses.jsonl", 1, "line", 10**99),
        "responses.jsonl line 2: it belongs to line 10000000000000000000, which the input does not have",
    ),
    "a response of line 0": (
        set_key("responses.jsonl", 1, "line", 0),
        "responses.jsonl line 2: it belongs to line 0, which the input does not have",
    ),
    "a response that does not say its line": (
        set_key("responses.jsonl", 1, "line", True),
        "responses.jsonl line 2: it does not say to which line of the input it belongs",
    ),
    "an id that Python takes for the same": (
        set_key("responses.jsonl", 2, "id", 1),
        "responses.jsonl line 3: its id is not that of line 5",
    ),
    "an id of an answer that is missing": (
        set_key("responses.jsonl", 0, "id", ...),
        "responses.jsonl line 1: its id is not that of line 1",
    ),
    "an id of a failure": (set_key("errors.jsonl", 1, "id", 1), "errors.jsonl line 2: its id is not that of line 6"),
    "an id of a bad line": (set_key("errors.jsonl", 0, "id", 5), "errors.jsonl line 1: its id is not that of line 4"),
    "another prompt": (
        set_key("responses.jsonl", 1, "prompt", "three"),
        "responses.jsonl line 2: its prompt is not that of line 2",
    ),
    "no response": (set_key("responses.jsonl", 1, "response", None), "responses.jsonl line 2: there is no response"),
    "other extra keys": (
        set_key("responses.jsonl", 0, "extra", {"ward": 8}),
        "responses.jsonl line 1: the other keys it repeats are not those of line 1",
    ),
    "an answer to a bad line": (
        set_key("responses.jsonl", 1, "line", 4),
        "responses.jsonl line 2: line 4 is answered, but is not a valid prompt: prompt is empty",
    ),
    "tokens that are no number": (
        set_key("responses.jsonl", 1, "eval_tokens", "7"),
        "responses.jsonl line 2: endpoint, seconds or tokens are missing or not numbers",
    ),
    "other tokens": (
        set_key("responses.jsonl", 1, "eval_tokens", 70),
        "manifest.json: tokens.eval is 32, but the files say 95",
    ),
    "other prompt tokens": (
        set_key("responses.jsonl", 1, "prompt_tokens", 4),
        "manifest.json: tokens.prompt is 12, but the files say 13",
    ),
    "other seconds": (
        set_key("responses.jsonl", 1, "seconds", 1.26),
        "manifest.json: times.work_seconds is 2.75, but the files say 2.76",
    ),
    "another endpoint": (
        set_key("responses.jsonl", 1, "endpoint", "gpu\x1b0"),
        "manifest.json: the share of endpoint gpu\\x1b0 is not what the responses say",
    ),
    "no longer cut short": (
        set_key("responses.jsonl", 1, "done_reason", "stop"),
        "manifest.json: counts.cut_short is 1, but the files say 0",
    ),
    "a failure without a class": (
        set_key("errors.jsonl", 0, "class", ...),
        "errors.jsonl line 1: class, message or attempts are missing",
    ),
    "no UTF-8": (
        change("responses.jsonl", lambda all: all.__setitem__(0, b'"\xff"\n')),
        "responses.jsonl line 1: it is not UTF-8",
    ),
    "no JSON": (
        change("responses.jsonl", lambda all: all.insert(1, b"{,}\n")),
        "responses.jsonl line 2: it is not JSON",
    ),
    "nested too deeply": (
        change("responses.jsonl", lambda all: all.insert(1, b'{"line":' + b"[" * 90000 + b"\n")),
        "responses.jsonl line 2: it is not JSON",
    ),
    "a constant that JSON does not have": (
        change("responses.jsonl", lambda all: all.insert(1, b'{"line": NaN}\n')),
        "responses.jsonl line 2: it is not JSON",
    ),
    "an empty line": (change("errors.jsonl", lambda all: all.append(b"\n")), "errors.jsonl line 3: it is not JSON"),
    "JSON but no object": (
        change("errors.jsonl", lambda all: all.append(b"[]\n")),
        "errors.jsonl line 3: it is JSON, but not an object",
    ),
    "a torn end": (
        change("responses.jsonl", lambda all: all.__setitem__(3, all[3][:-1])),
        "responses.jsonl line 4: its end is missing",
    ),
    "retry in another order": (
        change("retry.jsonl", list.reverse),
        "retry.jsonl: its line 1 is not line 4 of the input, byte for byte",
    ),
    "another byte in retry": (
        change("retry.jsonl", lambda all: all.__setitem__(1, all[1].replace(b"six", b"sIx"))),
        "retry.jsonl: its line 2 is not line 6 of the input, byte for byte",
    ),
    "retry too short": (
        change("retry.jsonl", list.pop),
        "retry.jsonl: its line 2 is not line 6 of the input, byte for byte",
    ),
    "retry too long": (
        change("retry.jsonl", lambda all: all.append(b"\n")),
        "retry.jsonl: it has more than the 2 lines that errors.jsonl names",
    ),
    "retry without its last LF": (
        change("retry.jsonl", lambda all: all.__setitem__(1, all[1][:-1])),
        "retry.jsonl: its line 2 is not line 6 of the input, byte for byte",
    ),
    "no responses": (lambda folder: (folder / "responses.jsonl").unlink(), "responses.jsonl is missing"),
    "no errors": (lambda folder: (folder / "errors.jsonl").unlink(), "errors.jsonl is missing"),
    "no retry": (lambda folder: (folder / "retry.jsonl").unlink(), "retry.jsonl is missing"),
    "no input": (lambda folder: (folder / "input.jsonl").unlink(), "input.jsonl is missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "a manifest that is no JSON": (
        lambda folder: (folder / "manifest.json").write_text('{"counts":'),
        "manifest.json is not a JSON object",
    ),
    "a manifest that is a list": (
        lambda folder: (folder / "manifest.json").write_text("[]"),
        "manifest.json is not a JSON object",
    ),
    "a stranger's file": (
        lambda folder: (folder / "new\x1b[2J.txt").touch(),
        "new\\x1b[2J.txt: no such file belongs here",
    ),
    "a temporary file": (
        lambda folder: (folder / ".responses.jsonl.tmp").touch(),
        ".responses.jsonl.tmp: no such file belongs here",
    ),
    "a folder": (lambda folder: (folder / "sub").mkdir(), "sub: no such file belongs here"),
    "the other input though nothing was modified": (
        lambda folder: (folder / "input.modified.jsonl").touch(),
        "input.modified.jsonl: no such file belongs here",
    ),
    "a pipe": (
        instead("responses.jsonl", os.mkfifo),
        "responses.jsonl is not a regular file",
    ),
    "a link": (
        instead("retry.jsonl", lambda path: path.symlink_to("input.jsonl")),
        "retry.jsonl cannot be read: Too many levels of symbolic links",
    ),
    "other counts": (
        set_manifest("counts/responses", 5),
        "manifest.json: counts.responses is 5, but the files say 4",
    ),
    "other failures": (
        set_manifest("counts/failures", 3),
        "manifest.json: counts.failures is 3, but the files say 2",
    ),
    "no failures": (set_manifest("counts/failures", 0), "errors.jsonl: no such file belongs here"),
    "other requests": (
        set_manifest("counts/requests", 6.0),
        "manifest.json: counts.requests is 6.0, but the files say 6",
    ),
    "other lines": (set_manifest("counts/lines", 6), "manifest.json: counts.lines is 6, but the files say 7"),
    "counts that are none": (
        set_manifest("counts", [1]),
        "manifest.json: counts.lines is missing, but the files say 7",
    ),
    "a share too many": (
        set_manifest("endpoints/gpu2", {"responses": 0, "eval_tokens": 0}),
        "manifest.json: the share of endpoint gpu2 is not what the responses say",
    ),
}


@pytest.mark.parametrize(("damage", "sentence"), DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("has_digests", [True, False], ids=["digests", "no digests"])
def test_damage_is_found_and_said(notes: Path, damage: Damage, sentence: str, has_digests: bool) -> None:
    if not has_digests:
        without_digests(notes)
    damage(notes)

    result = check(notes)

    assert result.verdict is Verdict.WRONG
    assert [said for said in result.problems if said.startswith(sentence)], result.problems
    assert result.problem_count >= len(result.problems) >= 1


@pytest.mark.parametrize("name", ["responses.jsonl", "errors.jsonl", "retry.jsonl"])
def test_byte_that_only_the_digest_knows_is_found(notes: Path, name: str) -> None:
    changes = {"responses.jsonl": ("response", "II!"), "errors.jsonl": ("message", "other")}
    if name in changes:
        set_key(name, 1, *changes[name])(notes)
        expected = f"{name}: it was changed after it was published (its SHA-256 differs from manifest.json)"
    else:
        set_manifest("outputs/retry.jsonl/sha256", "0")(notes)
        expected = "retry.jsonl: it was changed after it was published (its SHA-256 differs from manifest.json)"

    assert check(notes).problems == (expected,)


@pytest.mark.parametrize("outputs", [[], {}, {"responses.jsonl": {}}])
def test_digests_of_other_files_are_no_digests(notes: Path, outputs: object) -> None:
    set_manifest("outputs", outputs)(notes)

    assert check(notes).problems == (wording("manifest-json-outputs-does-not-name"),)


def test_damage_that_moves_one_line_is_said_once(notes: Path) -> None:
    without_digests(notes)
    lines(notes, "responses.jsonl", lambda all: all.append(all.pop(0)))

    assert check(notes).problems == (wording("responses-jsonl-line-4-line-1"),)


def test_no_more_than_ten_problems_are_said_and_all_are_counted(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, b'{"prompt": "p"}\n' * 40))
    lines(folder, "responses.jsonl", lambda all: all.extend(list(all)))

    result = check(folder)

    # 40 second results, and the digest
    assert (len(result.problems), result.problem_count) == (10, 41)


def test_neither_prompt_nor_answer_is_quoted(notes: Path) -> None:
    set_key("responses.jsonl", 1, "prompt", "secret")(notes)
    set_key("responses.jsonl", 0, "id", "secret")(notes)

    assert "secret" not in " ".join(check(notes).problems)


# --- folders that are something else ---------------------------------------------------------------------------------


def test_rejected_file_is_verified_for_what_it_is(layout: Layout) -> None:
    verdict = accept(layout, order_of(drop_of(put(layout, b"\x1f\x8b\x08 zipped"))))
    assert isinstance(verdict, Rejected)

    right = verify("notes.rejected", verdict.folder)
    (verdict.folder / "input.jsonl").rename(verdict.folder / "other")
    wrong = verify("notes.rejected", verdict.folder)

    assert (right.verdict, right.reason) == (Verdict.REJECTED, wording("it-is-a-gzip-file-unpack"))
    assert (wrong.verdict, wrong.problems) == (
        Verdict.WRONG,
        (wording("other-no-such-file-belongs-here"), "input.jsonl is missing"),
    )


@pytest.mark.parametrize(("name", "kept"), [("notes.csv", "input.csv"), ("N.JSONL.gz", "input.jsonl.gz")])
def test_rejected_file_keeps_the_ending_of_its_name(layout: Layout, name: str, kept: str) -> None:
    verdict = accept(layout, order_of(drop_of(put(layout, b"PK\x03\x04", name))))
    assert isinstance(verdict, Rejected)

    assert {path.name for path in verdict.folder.iterdir()} == {kept, "manifest.json", "why.txt"}
    assert verify("notes.rejected", verdict.folder).verdict is Verdict.REJECTED
    (verdict.folder / kept).rename(verdict.folder / "input.jsonl")  # as an older obcd left it
    assert verify("notes.rejected", verdict.folder).verdict is Verdict.REJECTED


def test_repeated_file_is_verified_for_what_it_is(layout: Layout) -> None:
    content = b'{"prompt": "one"}\n'
    first = accept(layout, order_of(drop_of(put(layout, content)), "job1", answered_since=0.0))
    assert isinstance(first, Accepted)
    finish(layout, first.header)
    verdict = accept(layout, order_of(drop_of(put(layout, content)), "job2", answered_since=0.0))
    assert isinstance(verdict, Repeated)

    right = verify("notes.repeated", verdict.folder)
    (verdict.folder / "responses.jsonl").touch()
    wrong = verify("notes.repeated", verdict.folder)

    assert (right.verdict, right.reason) == (Verdict.REPEATED, wording("job-job1-in-notes-of-the"))
    assert (wrong.verdict, wrong.problems) == (Verdict.WRONG, (wording("responses-jsonl-no-such-file-belongs"),))
    set_manifest("repeats", None)(verdict.folder)
    assert verify("x", verdict.folder).problem_count == 2


def test_rejection_without_a_reason_is_wrong(layout: Layout) -> None:
    verdict = accept(layout, order_of(drop_of(put(layout, b"\n\n"))))
    assert isinstance(verdict, Rejected)
    set_manifest("rejected", None)(verdict.folder)

    assert verify("x", verdict.folder).problems == (wording("manifest-json-it-does-not-say"),)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("notes.partial", wording("it-stands-for-a-job-that")),
        ("notes.waiting", wording("it-stands-for-a-file-that")),
        ("empty", wording("it-holds-no-published-job-manifest")),
        ("file", wording("it-is-no-folder")),
        ("nothing", wording("there-is-no-such-folder")),
    ],
)
def test_folder_that_is_no_job_gets_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    for folder in ("notes.partial", "notes.waiting", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notes.partial" / "progress.json").write_text("{}")
    (tmp_path / "file").touch()

    [(shown, path)] = find_folders(tmp_path / name)
    result = verify(shown, path)

    assert (result.name, result.verdict) == (name, Verdict.NOT_A_JOB)
    assert result.reason.startswith(sentence)
    assert result.problems == ()


def test_folder_of_a_newer_obcd_is_not_judged(notes: Path) -> None:
    set_manifest("format", 2)(notes)

    result = check(notes)

    assert (result.verdict, result.reason) == (
        Verdict.NOT_A_JOB,
        wording("a-newer-obcd-wrote-it-format"),
    )


def test_folders_below_are_found_by_their_names(layout: Layout) -> None:
    publish_notes(layout)
    put(layout, INPUT, profile="clinical")
    accept(layout, order_of(drop_of(layout.inbox / "clinical" / "notes.jsonl", "clinical"), "job2"))
    record(layout, "job2", [answer(number, line=line) for number, line in enumerate((1, 2, 4, 5, 6, 7)) if number != 2])
    publication.publish(layout, "job2", {})
    (layout.outbox / "other.partial").mkdir()
    (layout.outbox / "torn\x1b").mkdir()
    (layout.outbox / "torn\x1b" / "responses.jsonl").touch()

    found = find_folders(layout.outbox)

    assert [name for name, _ in found] == ["clinical/notes", "notes", "torn\\x1b"]
    assert [verify(*item).verdict for item in found] == [Verdict.COMPLETE, Verdict.COMPLETE, Verdict.WRONG]


def test_original_that_grew_too_much_to_be_kept_is_no_fault(layout: Layout) -> None:
    header = accept_bytes(layout, INPUT)
    os.truncate(layout.claim(header.id, "") / "notes.jsonl", 2**40)

    assert check(finish(layout, header)).verdict is Verdict.COMPLETE


def test_job_that_is_called_as_a_file_of_a_job_hides_no_other(layout: Layout) -> None:
    finish(layout, accept_bytes(layout, INPUT, "job1"))
    finish(layout, accept_bytes(layout, INPUT, "job2", "manifest.json.jsonl"))

    assert sorted(name for name, _ in find_folders(layout.outbox)) == ["manifest.json", "notes"]


@pytest.mark.parametrize(("number", "verdict"), [(1, Verdict.COMPLETE), ("a", Verdict.COMPLETE), (7, Verdict.WRONG)])
def test_folder_of_an_obcd_that_only_echoed_a_custom_id_is_complete(
    layout: Layout, number: object, verdict: Verdict
) -> None:
    folder = finish(layout, accept_bytes(layout, b'{"custom_id": "a", "prompt": "one"}\n'))
    path, manifest = folder / "responses.jsonl", folder / "manifest.json"
    assert json.loads(path.read_bytes())["id"] == "a"

    path.write_text(json.dumps({**json.loads(path.read_bytes()), "id": number}) + "\n", "utf-8")
    document = json.loads(manifest.read_bytes())
    del document["outputs"]
    manifest.write_text(json.dumps(document), "utf-8")

    assert check(folder).verdict is verdict


def publish_files(layout: Layout) -> Path:
    """Publish a job with `files = true`: a failed line, a line with two answers, one with a single answer."""
    header = accept_bytes(
        layout,
        b'{"prompt": "one"}\n{"prompt": "two", "n": 2}\n{"prompt": "three"}\n',
        settings=replace(SETTINGS, files=True),
    )
    results = [failure(0), answer(1, "a", line=2, seed=1), answer(2, "b", line=2, seed=2), answer(3, "c", line=3)]
    record(layout, header.id, results)
    return finish(layout, header)


def test_files_of_the_answers_belong_to_the_folder(tmp_path: Path) -> None:
    folder = publish_files(make_layout(tmp_path / "root"))

    assert len(list(folder.glob("*-[123]*.json"))) == 3
    assert check(folder).problems == ()


OTHER_FILES: dict[str, tuple[str, str]] = {
    "EPOCH-1.json": ("line 1", wording("the-number-of-response-files-of")),
    "EPOCH-9.json": ("EPOCH-9.json", wording("no-such-file-belongs-here")),
    "0-3.json": ("0-3.json", wording("no-such-file-belongs-here")),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_other_files_of_answers_do_not_belong_there(tmp_path: Path, name: str) -> None:
    folder = publish_files(make_layout(tmp_path / "root"))
    (file,) = folder.glob("*-3.json")
    epoch = file.name.partition("-")[0]
    place, sentence = OTHER_FILES[name]

    shutil.copy(file, folder / name.replace("EPOCH", epoch))

    (problem,) = check(folder).problems
    assert place.replace("EPOCH", epoch) in problem
    assert sentence in problem


def test_a_missing_file_of_an_answer_is_noticed(tmp_path: Path) -> None:
    folder = publish_files(make_layout(tmp_path / "root"))
    (file,) = folder.glob("*-2-1.json")

    file.unlink()

    assert check(folder).problems == (wording("the-number-of-response-files-of-2"),)
