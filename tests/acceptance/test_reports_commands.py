"""`obcd prepare`, `print`, `merge`, `vectors` as people and scripts meet them: output, remarks, exit codes, files."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from obcd.cli.main import run
from obcd.errors import ExitCode
from tests.golden.wording import wording

pytestmark = pytest.mark.acceptance

Capture = pytest.CaptureFixture[str]


def publish(folder: Path, answers: dict[int, str], failed: int = 0) -> Path:
    folder.mkdir(parents=True)
    last = max(answers, default=0)
    responses = [
        {"id": f"mrn-{line}", "line": line, "prompt": f"question {line}", "response": text, "model": "llama3.2"}
        for line, text in answers.items()
    ]
    errors = [
        {"line": last + n, "id": n, "class": "timeout", "message": "m", "attempts": 3} for n in range(1, failed + 1)
    ]
    counts = {"requests": len(responses) + failed, "responses": len(responses), "failures": failed, "cut_short": 0}
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in responses))
    if errors:
        (folder / "errors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in errors))
    (folder / "manifest.json").write_text(json.dumps({"job": "x", "name": "notes.jsonl", "counts": counts}))
    return folder


def seed_file(folder: Path, name: str, record: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(record, indent=4, ensure_ascii=False), encoding="utf-8")


def obcd(*arguments: str, feed: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "obcd", *arguments]
    return subprocess.run(
        command, input=feed, capture_output=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def test_print_shows_the_seeds_files_in_the_seeds_format_and_a_stable_order(tmp_path: Path, capsys: Capture) -> None:
    seed_file(tmp_path, "1700000000-10.json", {"prompt": "Second?", "response": "Grüße"})
    seed_file(tmp_path, "1700000000-9.json", {"prompt": "First?"})
    (tmp_path / "1700000001-1.json").write_text("{")

    code = run(["print", str(tmp_path)])

    rule = "#" * 40
    out, err = capsys.readouterr()
    assert out == (wording("file-1700000000-9-json-prompt-first", rule, rule, rule, rule))
    assert err == wording("obcd-1-file-or-line-could")
    assert code == ExitCode.PARTIAL


def test_print_shows_published_folders_and_tells_their_failures(tmp_path: Path, capsys: Capture) -> None:
    publish(tmp_path / "outbox" / "notes", {line: f"answer {line}" for line in range(1, 29)}, failed=2)

    code = run(["print", str(tmp_path / "outbox")])

    out, err = capsys.readouterr()
    assert "# File: notes/responses.jsonl line 7\n" in out
    assert "Prompt:\nquestion 7\n\nResponse:\nanswer 7\n\n" in out
    assert err == wording("notes-2-of-30-failed-see")
    assert code == ExitCode.DONE


def test_print_json_is_one_object_a_line(tmp_path: Path, capsys: Capture) -> None:
    publish(tmp_path / "notes", {3: "zwei\nZeilen ä"})

    assert run(["print", "--json", str(tmp_path / "notes")]) == ExitCode.DONE

    [line] = capsys.readouterr().out.splitlines()
    document = json.loads(line)
    assert document["file"] == "notes/responses.jsonl"
    assert (document["line"], document["id"], document["response"]) == (3, "mrn-3", "zwei\nZeilen ä")


def test_print_names_a_damaged_line_and_shows_the_others(tmp_path: Path, capsys: Capture) -> None:
    folder = publish(tmp_path / "notes", {1: "one", 2: "two"})
    with open(folder / "responses.jsonl", "a") as file:
        file.write('{"line": 3, "respon')

    code = run(["print", str(folder)])

    out, err = capsys.readouterr()
    assert out.count("# File:") == 2
    assert err.startswith(wording("left-out-notes-responses-jsonl-line"))
    assert code == ExitCode.PARTIAL


@pytest.mark.parametrize("name", ["missing", "empty", "notes.partial"])
def test_print_of_nothing_is_one_sentence(tmp_path: Path, capsys: Capture, name: str) -> None:
    if name != "missing":
        (tmp_path / name).mkdir()

    assert run(["print", str(tmp_path / name)]) == ExitCode.INPUT

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_print_survives_a_terminal_without_utf_8_and_hostile_names(tmp_path: Path) -> None:
    record = {"prompt": "Größe → 5 µm", "response": "\ud800 lone"}
    (tmp_path / "a\x1b]0;owned\x07.json").write_text(json.dumps(record))

    done = obcd("print", str(tmp_path), PYTHONIOENCODING="ascii", LC_ALL="C")

    assert done.returncode == ExitCode.DONE, done.stderr
    assert rb"# File: a\x1b]0;owned\x07.json" in done.stdout
    assert rb"Gr\xf6\xdfe \u2192 5 \xb5m" in done.stdout
    assert rb"\ud800 lone" in done.stdout
    assert b"\x1b" not in done.stdout


def test_control_characters_of_an_answer_reach_a_pipe_but_no_terminal(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_file(tmp_path, "1-1.json", {"prompt": "p\tq", "response": "\x1b[2Jgone\x9b\nline"})

    assert run(["print", str(tmp_path)]) == ExitCode.DONE
    assert "\x1b[2Jgone\x9b\nline" in capsys.readouterr().out

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["print", str(tmp_path)]) == ExitCode.DONE
    out = capsys.readouterr().out
    assert "p\tq\n" in out
    assert r"\x1b[2Jgone\x9b" + "\nline" in out


def test_print_into_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    publish(tmp_path / "notes", {line: "x" * 1000 for line in range(1, 2000)})

    command = f"{sys.executable} -m obcd print {tmp_path}/notes | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60, check=False)

    assert done.stdout == b"#" * 40 + b"\n"
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_behind_standard_output_is_no_fault_of_ours(tmp_path: Path) -> None:
    publish(tmp_path / "notes", {line: "x" * 1000 for line in range(1, 2000)})

    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "obcd", "print", str(tmp_path / "notes")]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)

    assert done.returncode == ExitCode.INPUT
    assert done.stderr == b"obcd: No space left on device (standard output)\n"


def test_merge_writes_the_seeds_bytes_in_a_stable_order(tmp_path: Path, capsys: Capture) -> None:
    values = [{"name": "Grüße", "tags": [1, {}]}, [], {"name": "B"}]
    for number, value in zip([2, 9, 10], values, strict=True):
        seed_file(tmp_path / "in", f"1700000000-{number}.json", {"prompt": "p", "response": json.dumps(value)})

    code = run(["merge", "--input_dir", str(tmp_path / "in"), "--output_file", str(tmp_path / "out.json")])

    assert code == ExitCode.DONE
    assert (tmp_path / "out.json").read_text() == json.dumps(values, indent=2)
    assert capsys.readouterr() == ("", wording("3-answers-in", tmp_path / "out.json"))


def test_merge_tells_what_it_left_out_without_the_answers_text_and_still_writes(
    tmp_path: Path, capsys: Capture
) -> None:
    folder = publish(
        tmp_path / "notes", {1: '```json\n{"a": 1}\n```', 2: "SECRET diagnosis", 4: 'So: {"a": 4}'}, failed=1
    )
    out = tmp_path / "out.jsonl"

    code = run(["merge", "--input-dir", str(folder), "--output-file", str(out)])

    assert code == ExitCode.PARTIAL
    assert out.read_text() == '{"a": 1}\n{"a": 4}\n'
    assert capsys.readouterr().err.splitlines() == [
        wording("left-out-notes-responses-jsonl-line-2"),
        wording("left-out-notes-errors-jsonl-line"),
        wording("2-answers-in", out),
        wording("obcd-2-of-4-answers-left", out),
    ]


def test_merge_to_csv_with_fields(tmp_path: Path) -> None:
    publish(tmp_path / "in" / "b", {1: '{"dose": 5, "unit": "mg, oral"}'})
    publish(tmp_path / "in" / "a", {7: '{"dose": 2.5}', 8: "[1]"})
    out = tmp_path / "out.csv"

    assert run(["merge", "--input-dir", str(tmp_path / "in"), "-o", str(out), "--with", "line,id"]) == ExitCode.DONE

    assert list(csv.reader(io.StringIO(out.read_bytes().decode(), newline=""))) == [
        ["line", "id", "dose", "value", "unit"],
        ["7", "mrn-7", "2.5", "", ""],
        ["8", "mrn-8", "", "[1]", ""],
        ["1", "mrn-1", "5", "", "mg, oral"],
    ]


def test_merge_to_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = publish(tmp_path / "notes", {1: '{"dose": 5, "ok": true}', 2: '{"dose": 2.5, "note": ["x"]}'})

    assert (
        run(["merge", "--input-dir", str(folder), "-o", str(tmp_path / "out.parquet"), "--with", "id"]) == ExitCode.DONE
    )

    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"id": "mrn-1", "dose": 5.0, "ok": True, "note": None},
        {"id": "mrn-2", "dose": 2.5, "ok": None, "note": '["x"]'},
    ]


def test_merge_again_into_the_same_folder_gives_the_same_document(tmp_path: Path) -> None:
    seed_file(tmp_path, "1700000000-1.json", {"prompt": "p", "response": "[1]"})
    arguments = ["merge", "--input-dir", str(tmp_path), "--output-file", str(tmp_path / "merged.json")]

    assert [run(arguments), run(arguments)] == [ExitCode.DONE, ExitCode.DONE]

    assert json.loads((tmp_path / "merged.json").read_text()) == [[1]]


def test_merge_of_nothing_leaves_the_old_document(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out.csv").write_text("old")

    assert run(["merge", str(tmp_path / "in"), "-o", str(tmp_path / "out.csv"), "--force"]) == ExitCode.INPUT

    assert capsys.readouterr().err.startswith(wording("obcd-nothing-to-merge-in"))
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["in", "out.csv"]


@pytest.mark.parametrize("options", [["--with", "lime"], ["--format", "xml"], ["--spreadsheet"]])
def test_merge_that_cannot_be_meant_is_a_usage_error(tmp_path: Path, options: list[str]) -> None:
    folder = publish(tmp_path / "notes", {1: "{}"})

    assert run(["merge", "--input-dir", str(folder), "-o", str(tmp_path / "out.json"), *options]) == ExitCode.USAGE
    assert not (tmp_path / "out.json").exists()


def test_merge_without_a_folder_asks_for_one(tmp_path: Path, capsys: Capture) -> None:
    assert run(["merge", "-o", str(tmp_path / "out.json")]) == ExitCode.USAGE

    assert capsys.readouterr().err == wording("obcd-where-are-the-answers-obcd")


def test_merge_takes_folders_as_arguments_and_as_options(tmp_path: Path) -> None:
    for name, answer in (("a", "[1]"), ("b", "[2]"), ("c", "[3]")):
        publish(tmp_path / name, {1: answer})
    out = tmp_path / "out.json"

    code = run(["merge", str(tmp_path / "b"), str(tmp_path / "a"), "--input-dir", str(tmp_path / "c"), "-o", str(out)])

    assert code == ExitCode.DONE
    assert json.loads(out.read_text()) == [[2], [1], [3]]


@pytest.mark.parametrize(
    ("name", "old"),
    [("out.csv", "mrn,note\n"), ("out.jsonl", "[1]\n"), ("out.json", '{"type": "object"}'), ("out.json", "[1, 2]")],
)
def test_merge_does_not_overwrite_without_force(tmp_path: Path, capsys: Capture, name: str, old: str) -> None:
    folder, out = publish(tmp_path / "notes", {1: '{"a": 1}'}), tmp_path / name
    out.write_text(old)

    assert run(["merge", str(folder), "-o", str(out)]) == ExitCode.INPUT
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == old

    assert run(["merge", str(folder), "-o", str(out), "--force"]) == ExitCode.DONE
    assert "1" in out.read_text()
    assert out.read_text() != old


@pytest.mark.parametrize("earlier", [[], [{"a": 0}, "ä"]])
def test_merge_writes_an_array_of_an_earlier_time_anew_as_the_seeds_script_did(tmp_path: Path, earlier: Any) -> None:
    folder, out = publish(tmp_path / "notes", {1: '{"a": 1}'}), tmp_path / "out"
    out.write_text(json.dumps(earlier, indent=2))

    assert run(["merge", "--input_dir", str(folder), "--output_file", str(out)]) == ExitCode.DONE

    assert json.loads(out.read_text()) == [{"a": 1}]


def publish_several(folder: Path) -> Path:
    """Publish two lines, of three answers and of one, with fields of their rows."""
    publish(folder, {1: '{"joke": "a"}', 2: '{"joke": "d"}'})
    lines = [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]
    lines[0]["responses"] = [{"response": f'{{"joke": "{text}"}}', "seed": 40 + n} for n, text in enumerate("abc")]
    for number, line in enumerate(lines):
        line["extra"] = {"mrn": f"00{number}", "joke": "about rain"}
    (folder / "responses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_merge_joins_every_answer_to_its_row(tmp_path: Path, capsys: Capture) -> None:
    folder, out = publish_several(tmp_path / "jokes"), tmp_path / "out.csv"

    assert run(["merge", str(folder), "-o", str(out), "--with", "id,index,seed,extra"]) == ExitCode.DONE

    assert out.read_text().splitlines() == [
        "id,index,seed,mrn,_joke,joke",
        "mrn-1,0,40,000,about rain,a",
        "mrn-1,1,41,000,about rain,b",
        "mrn-1,2,42,000,about rain,c",
        "mrn-2,0,,001,about rain,d",
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"4 answers of 2 lines in {out}",
        wording("named-otherwise-since-the-name-is"),
    ]


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_merge_puts_fields_into_json_too(tmp_path: Path, suffix: str) -> None:
    folder, out = publish_several(tmp_path / "jokes"), tmp_path / f"out.{suffix}"

    assert run(["merge", str(folder), "-o", str(out), "--with", "line,index"]) == ExitCode.DONE

    text = out.read_text()
    found = json.loads(text) if suffix == "json" else [json.loads(line) for line in text.splitlines()]
    assert found == [
        {"line": 1, "index": 0, "joke": "a"},
        {"line": 1, "index": 1, "joke": "b"},
        {"line": 1, "index": 2, "joke": "c"},
        {"line": 2, "index": 0, "joke": "d"},
    ]


def test_merge_of_plain_text(tmp_path: Path, capsys: Capture) -> None:
    folder = publish(tmp_path / "notes", {1: "Because of\nRayleigh.", 2: "No, [sic]."})

    assert run(["merge", str(folder), "-o", str(tmp_path / "a.jsonl")]) == ExitCode.PARTIAL
    assert wording("no-answer-holds-json-text-merges") in capsys.readouterr().err

    assert run(["merge", str(folder), "-o", str(tmp_path / "b.csv"), "--text", "--with", "id"]) == ExitCode.DONE
    assert list(csv.reader(io.StringIO((tmp_path / "b.csv").read_bytes().decode(), newline=""))) == [
        ["id", "response"],
        ["mrn-1", "Because of\nRayleigh."],
        ["mrn-2", "No, [sic]."],
    ]

    assert run(["merge", str(folder), "-o", str(tmp_path / "c.json"), "--text"]) == ExitCode.DONE
    assert json.loads((tmp_path / "c.json").read_text())[1] == {"response": "No, [sic]."}


def test_merge_tells_which_columns_sqlite_has_by_another_name(tmp_path: Path, capsys: Capture) -> None:
    folder = publish(tmp_path / "notes", {1: '{"i": 1, "I": 2}'})

    assert run(["merge", str(folder), "-o", str(tmp_path / "out.db")]) == ExitCode.DONE

    assert wording("named-otherwise-since-the-name-is-2") in capsys.readouterr().err


def test_merge_for_spreadsheets_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder, out = publish(tmp_path / "notes", {1: '{"name": "Größe"}'}), tmp_path / "out.csv"

    assert run(["merge", str(folder), "-o", str(out), "--spreadsheet"]) == ExitCode.DONE
    assert out.read_bytes() == "\ufeffname\r\nGröße\r\n".encode()

    assert run(["merge", str(folder), "-o", str(out), "--force"]) == ExitCode.DONE
    assert out.read_bytes() == "name\r\nGröße\r\n".encode()


def test_vectors_do_not_overwrite_without_force(tmp_path: Path, capsys: Capture) -> None:
    folder, out = publish(tmp_path / "texts", {1: "x"}), tmp_path / "out.jsonl"
    (folder / "responses.jsonl").write_text('{"id": 1, "line": 1, "prompt": "x", "embeddings": [[0.5]]}\n')
    out.write_text("mine")

    assert run(["vectors", str(folder), "-o", str(out)]) == ExitCode.INPUT
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "mine"

    assert run(["vectors", str(folder), "-o", str(out), "--force"]) == ExitCode.DONE
    assert json.loads(out.read_text())["embedding"] == [0.5]


def test_merge_to_standard_output_keeps_remarks_apart(tmp_path: Path) -> None:
    folder = publish(tmp_path / "notes", {1: "[1]"})

    done = obcd("merge", "--input-dir", str(folder), "--output-file", "-", "--format", "jsonl")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"[1]\n", b"1 answer in standard output\n")


def test_prepare_makes_a_prompt_file_from_a_folder(tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    (tmp_path / "notes" / "ward").mkdir(parents=True)
    (tmp_path / "notes" / "b.txt").write_text("Second {text}\n")
    (tmp_path / "notes" / "a.md").write_text("First\n")
    (tmp_path / "notes" / "ward" / "c.txt").write_bytes(b"caf\xe9")
    monkeypatch.chdir(tmp_path)

    code = run(["prepare", "notes/", "-o", "notes.jsonl", "--template", "Sum: {text}!", "--system", "Be short."])

    assert code == ExitCode.PARTIAL
    assert [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text().splitlines()] == [
        {"id": "a.md", "system": "Be short.", "prompt": "Sum: First!"},
        {"id": "b.txt", "system": "Be short.", "prompt": "Sum: Second {text}!"},
    ]
    assert capsys.readouterr().err.splitlines() == [
        wording("left-out-ward-c-txt-it"),
        wording("2-prompts-in-notes-jsonl-next"),
        "obcd: 1 text left out",
    ]


def test_prepare_does_not_overwrite_without_force(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("new")
    out = tmp_path / "out.jsonl"
    out.write_text("old")

    assert run(["prepare", str(tmp_path / "in"), "-o", str(out)]) == ExitCode.INPUT
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == "old"

    assert run(["prepare", str(tmp_path / "in"), "-o", str(out), "--force"]) == ExitCode.DONE
    assert json.loads(out.read_text())["prompt"] == "new"


def test_prepare_takes_a_csv_column(tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "visits.csv"
    source.write_bytes(b"\xef\xbb\xbfmrn,note,ward\r\n007," + b"x" * 200_000 + b",3b\r\n")
    base = ["prepare", str(source), "--column", "note", "--id-column", "mrn"]

    assert run([*base, "-o", str(tmp_path / "a.jsonl")]) == ExitCode.DONE
    assert run([*base, "--keep", "-o", str(tmp_path / "b.jsonl")]) == ExitCode.DONE

    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"id": "007", "prompt": "x" * 200_000}
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {"id": "007", "prompt": "x" * 200_000, "ward": "3b"}
    capsys.readouterr()

    assert run(["prepare", str(source), "--column", "nota", "-o", str(tmp_path / "c.jsonl")]) == ExitCode.INPUT
    assert capsys.readouterr().err.endswith(wording("has-no-column-named-nota-its"))
    assert not (tmp_path / "c.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("visits.csv", [], wording("its-columns-are-mrn-note")),
        ("notes.jsonl", [], wording("a-prompt-file-already")),
        ("notes", ["--column", "note"], wording("is-a-folder")),
        ("visits.csv", ["--keep"], wording("say-with-column")),
        ("visits.csv", ["--column", "note", "--delimiter", "||"], "one character"),
        ("notes", ["--template", "no place"], "no {text}"),
        ("notes", ["--template", "{age}: {text}"], wording("names-age-and-a-text-has")),
        ("notes", ["--template", '{text} as {"a": {text}}'], wording("a-stands-alone-in-it-at")),
    ],
)
def test_prepare_that_cannot_be_meant_is_a_usage_error(
    tmp_path: Path, capsys: Capture, name: str, options: list[str], reason: str
) -> None:
    (tmp_path / "notes").mkdir()
    for file in ("visits.csv", "notes.jsonl"):
        (tmp_path / file).write_text("mrn,note\n1,x\n")

    assert run(["prepare", str(tmp_path / name), *options]) == ExitCode.USAGE
    assert reason in capsys.readouterr().err


def test_template_of_prepare_is_that_of_a_profile(tmp_path: Path, capsys: Capture) -> None:
    source, out = tmp_path / "visits.csv", tmp_path / "visits.jsonl"
    source.write_text("mrn,age,note\n7,54,cough\n,9,rash\n")
    base = ["prepare", str(source), "--column", "note", "--id-column", "mrn", "-o", str(out)]

    assert run([*base, "--template", "{nota}: {text}"]) == ExitCode.INPUT
    told = capsys.readouterr().err
    assert wording("no-column-named-nota-its-columns") in told
    assert not out.exists()
    assert run([*base, "--template", wording("aged-age-text-x")]) == ExitCode.DONE
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": "7", "prompt": "Aged 54: cough {x}"},
        {"id": 2, "prompt": "Aged 9: rash {x}"},
    ]


def test_column_named_text_is_not_mistaken_for_the_text(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "a.csv").write_text("note,text\nx,y\n")
    base = ["prepare", str(tmp_path / "a.csv"), "--column", "note"]

    assert run([*base, "--template", "{text}!"]) == ExitCode.INPUT
    assert wording("and-text-stands-for-the-column") in capsys.readouterr().err
    assert run([*base, "--template", "{note}!"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["prompt"] == "x!"


def test_prepare_of_csv_with_semicolons_says_how_to_name_them(tmp_path: Path, capsys: Capture) -> None:
    source = tmp_path / "semi.csv"
    source.write_text("mrn;note\n7;x,y\n")

    assert run(["prepare", str(source)]) == ExitCode.INPUT
    assert wording("semicolons-where-commas-are-needed-say") in capsys.readouterr().err
    assert run(["prepare", str(source), "--column", "note"]) == ExitCode.INPUT
    assert wording("delimiter-on-command-lines") in capsys.readouterr().err
    assert run(["prepare", str(source), "--delimiter", ";"]) == ExitCode.USAGE
    assert wording("its-columns-are-mrn-note") in capsys.readouterr().err
    assert run(["prepare", str(source), "--column", "note", "--delimiter", ";"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["prompt"] == "x,y"


def test_prepare_takes_lines_from_standard_input(tmp_path: Path) -> None:
    out = tmp_path / "prompts.jsonl"

    done = obcd("prepare", "-", "-o", str(out), feed=b"one\r\n\nthree")

    assert done.returncode == ExitCode.DONE, done.stderr
    assert out.read_text() == '{"id": 1, "prompt": "one"}\n{"id": 3, "prompt": "three"}\n'


def test_prepare_writes_to_standard_output_all_or_nothing() -> None:
    done = obcd("prepare", "-", "--column", "q", feed=b"q\nWhy?\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"id": 1, "prompt": "Why?"}\n', b"1 prompt\n")

    broken = obcd("prepare", "-", "--column", "q", feed=b'q\nWhy?\n"never ends\n')
    assert (broken.returncode, broken.stdout) == (ExitCode.INPUT, b"")
    assert broken.stderr.startswith(b"obcd: standard input: its last row, from line 3 on, ends within quotes")


@pytest.mark.parametrize("command", ["prepare", "print", "merge"])
def test_help_shows_examples(command: str, capsys: Capture) -> None:
    assert run([command, "--help"]) == ExitCode.DONE
    assert f"obcd {command}" in capsys.readouterr().out.split("Examples:")[1]
