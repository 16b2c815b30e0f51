from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from obcd.cli.main import run
from obcd.core.tables.converting import LineShape, read_ours, write_cells, write_line
from obcd.core.tables.csv_cells import read_cells
from obcd.core.tables.file_format import Form
from obcd.errors import InputError, LineError
from obcd.prompts.convert import Wanted, convert
from obcd.text_files import LeftOut
from tests.golden.wording import wording

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {"name": "weather", "strict": True}}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
PNG = "iVBORw0KGgo" + "A" * 53


@pytest.mark.parametrize(
    ("ours", "body"),
    [
        (
            {"prompt": "a", "system": "s"},
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]},
        ),
        ({"prompt": "a", "options": {"num_predict": 5, "stop": ["x"]}}, {"max_completion_tokens": 5, "stop": ["x"]}),
        (
            {"prompt": "a", "format": {"type": "object"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": {"type": "object"}},
                }
            },
        ),
        ({"prompt": "a", "tools": [TOOL]}, {"tools": [TOOL]}),
        ({"prompt": "a", "tools": [STRICT]}, {"tools": [STRICT]}),
        ({"prompt": "a", "format": ""}, {"response_format": {"type": "text"}}),
        ({"prompt": "a", "think": False, "logprobs": True}, {"reasoning_effort": "none", "logprobs": True}),
        (
            {"prompt": "a", "images": [PNG]},
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "a"},
                            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                        ],
                    }
                ]
            },
        ),
        ({"complete": "a", "raw": True, "options": {"num_predict": 5}}, {"prompt": "a", "max_tokens": 5}),
        ({"complete": "a", "suffix": "b"}, {"prompt": "a", "suffix": "b"}),
        ({"embed": ["a", "b"], "dimensions": 3}, {"input": ["a", "b"], "dimensions": 3}),
    ],
)
def test_line_of_openais_asks_what_ours_does(ours: dict[str, Any], body: dict[str, Any]) -> None:
    found = json.loads(write_line(ours, 4, LineShape.OPENAI, "m"))

    assert found["custom_id"] == "4"
    assert found["body"].items() >= {"model": "m", **body}.items()


@pytest.mark.parametrize(
    ("ours", "shape", "sentence"),
    [
        ({"prompt": "a"}, LineShape.OPENAI, wording("no-model-in-it-say-with")),
        ({"id": [1], "prompt": "a", "model": "m"}, LineShape.OPENAI, wording("id-must-be-a-text-or")),
        ({"prompt": "a", "model": "m", "think": True}, LineShape.OPENAI, wording("think-true-has-no-place-in")),
        ({"prompt": "a", "model": "m", "system": ""}, LineShape.OPENAI, wording("system-is-an-empty-text-which")),
        ({"complete": "a", "model": "m"}, LineShape.OPENAI, wording("complete-goes-through-the-model-s")),
        (
            {"prompt": "a", "model": "m", "options": {"num_ctx": 99}},
            LineShape.OPENAI,
            wording("options-num-ctx-has-no-place"),
        ),
        (
            {"messages": [{"role": "user", "content": "a", "thinking": "b"}], "model": "m"},
            LineShape.OPENAI,
            wording("messages-0-thinking-is-not-converted"),
        ),
        (
            {"messages": [{"role": "user", "content": "a"}, CALL], "model": "m"},
            LineShape.OPENAI,
            wording("messages-1-tool-calls-is-not"),
        ),
        (
            {"prompt": "a", "model": "m", "tools": [{"function": {"name": "weather"}}]},  # without a type
            LineShape.OPENAI,
            wording("it-would-be-refused-in-that"),
        ),
        ({"prompt": "a", "tools": [TOOL]}, LineShape.SEED, wording("tools-has-no-place-in-a")),
        ({"embed": "a", "model": "m", "system": "x"}, LineShape.OPENAI, wording("system-has-no-place-in-a")),
        ({"prompt": "a", "model": "m"}, LineShape.SEED, wording("model-has-no-place-in-a")),
        ({"embed": "a"}, LineShape.SEED, wording("a-line-of-the-seed-s")),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, LineShape.SEED, wording("a-line-of-the-seed-s-2")),
    ],
)
def test_what_has_no_place_is_refused_by_name(ours: dict[str, Any], shape: LineShape, sentence: str) -> None:
    with pytest.raises(LineError) as error:
        write_line(ours, 1, shape)
    assert sentence in str(error.value)


def test_seeds_line_whose_echoed_key_would_be_obeyed_is_refused() -> None:
    with pytest.raises(LineError, match=wording("model-is-echoed-in-a-line")):
        read_ours(b'{"role": "user", "content": "a", "model": "x"}', 1)


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        ({"prompt": "a", "ward": "x"}, wording("ward-has-no-column-the-first")),
        ({"prompt": "a", "system": ""}, wording("system-is-an-empty-text-which-2")),
        ({"embed": "[1]"}, wording("it-would-be-refused-in-that-2")),
        ({"embed": '["a"]'}, wording("embed-would-ask-something-else")),
    ],
)
def test_what_a_table_cannot_hold_is_refused_by_name(ours: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LineError) as error:
        write_cells(ours, 1, ["prompt", "system", "embed"])
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("key", "cell"),
    [(key, "{") for key in ("options", "format", "tools", "n")] + [("options", '1, "cell": 2'), ("options", "nope")],
)
def test_cell_that_must_be_json_is_refused_with_an_example(key: str, cell: str) -> None:
    with pytest.raises(LineError) as error:
        read_cells({"prompt": "a", key: cell})
    assert str(error.value) == wording("the-cell-of-must-be-json", key)


def test_half_a_character_is_left_out_of_a_table() -> None:
    left = list[LeftOut]()
    raw = b'{"prompt": "a"}\n{"prompt": "\\ud83d"}\n'

    done = convert(
        io.BytesIO(raw), Form(), Wanted(shape=LineShape.TABLE, columns=("prompt",)), io.BytesIO(), left.append
    )

    assert (done.lines, done.left_out) == (1, 1)
    assert left == [LeftOut("line 2", wording("it-has-half-a-character-in"))]


def test_disk_that_fails_is_told() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO), size)

    with pytest.raises(InputError, match="cannot convert: Input/output error"):
        convert(Broken(), Form(), Wanted(shape=LineShape.OURS), io.BytesIO(), print)


def test_wish_for_any_text_has_a_cell() -> None:
    cells = write_cells({"prompt": "a", "format": ""}, 1, ["prompt", "format"])

    assert cells == ["a", '""']
    assert read_cells(dict(zip(["prompt", "format"], cells, strict=True))) == {"prompt": "a", "format": ""}


def test_cell_that_begins_as_a_list_and_is_none_is_refused() -> None:
    with pytest.raises(LineError, match=wording("the-cell-of-embed-begins-as")):
        read_cells({"embed": "[1"})


@pytest.mark.parametrize(
    ("row", "document"),
    [
        (
            {"prompt": "a", "options": '{"seed": 1}', "n": "", "x": "[1", "y": ""},
            {"prompt": "a", "options": {"seed": 1}, "x": "[1", "y": ""},
        ),
        ({"prompt": "a", "format": "json", "think": "low"}, {"prompt": "a", "format": "json", "think": "low"}),
        (
            {"prompt": "a", "format": '{"type": "object"}', "think": "true"},
            {"prompt": "a", "format": {"type": "object"}, "think": True},
        ),
        ({"prompt": "a", "raw": "as it came"}, {"prompt": "a", "raw": "as it came"}),  # means nothing beside `prompt`
        ({"complete": "a", "raw": "true", "prompt": ""}, {"complete": "a", "raw": True}),
        ({"embed": '["a", "b"]', "dimensions": "3", "format": ""}, {"embed": ["a", "b"], "dimensions": 3}),
        (
            {"role": "user", "content": "a", "images": "", "options": "x"},
            {"role": "user", "content": "a", "options": "x"},
        ),
        ({"id": "7", "prompt": "", "embed": "", "x": ""}, {"id": "7", "prompt": "", "x": ""}),
    ],
)
def test_cells_are_read_as_what_their_columns_mean_to_what_is_asked(
    row: dict[str, str], document: dict[str, Any]
) -> None:
    assert read_cells(row) == document


def test_command_names_each_line_that_it_leaves_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\nx\n{"prompt": "b", "model": "m"}\n')

    assert run(["convert", str(tmp_path / "a.jsonl"), "-o", str(tmp_path / "b.csv")]) == 3

    assert (tmp_path / "b.csv").read_text() == '"prompt"\n"a"\n'
    told = capfd.readouterr().err
    assert wording("2-lines-left-out") in told
    assert "left out: line 2: not JSON: Expecting value at column 1" in told
    assert wording("left-out-line-3-model-has") in told
    assert "1 lines converted, in" in told


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["missing.csv"], 5, wording("cannot-read-missing-csv-no-such")),
        (["a.csv", "-o", "b.csv.gz"], 2, wording("what-is-written-is-not-packed")),
        (["a.csv", "--columns", "a"], 2, wording("columns-is-for-to-csv")),
        (["a.csv", "--to", "csv", "--columns", "a,a"], 2, wording("columns-names-a-column-twice")),
        (["a.csv", "--to", "ours"], 5, wording("a-csv-none-of-its-columns")),
        (["b.csv", "--to", "openai"], 5, wording("nothing-was-written-every-line-was")),
        (["semi.csv"], 5, wording("delimiter-on-command-lines")),
        (["b.csv", "--delimiter", ";;"], 2, wording("delimiter-takes-one-character")),
        (["b.tsv", "--to", "openai", "--delimiter", ";"], 2, wording("delimiter-is-for-csv-and-none")),
        (["utf16.csv"], 5, wording("utf16-csv-it-is-utf-16")),
        (["cut.csv"], 5, wording("its-last-row-from-line-2")),
    ],
)
def test_command_refuses_by_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    sentence: str,
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("prompt\na\n")
    (tmp_path / "semi.csv").write_text("id;prompt\n1;a\n")
    (tmp_path / "utf16.csv").write_text("prompt\na\n", "utf-16")
    (tmp_path / "cut.csv").write_text('prompt\n"a')
    monkeypatch.chdir(tmp_path)

    assert run(["convert", *arguments]) == code

    assert sentence in capfd.readouterr().err


def test_table_to_table_keeps_the_columns_of_its_header_and_its_empty_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,prompt,options,ward\na,Hi,,\nb,Ho,"{""seed"": 1}",3b\n')

    assert run(["convert", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.tsv")]) == 0
    assert run(["convert", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.jsonl")]) == 0

    assert (tmp_path / "a.tsv").read_text().splitlines() == [
        '"id"\t"prompt"\t"options"\t"ward"',
        '"a"\t"Hi"\t""\t""',
        '"b"\t"Ho"\t"{""seed"": 1}"\t"3b"',
    ]
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        {"id": "a", "prompt": "Hi", "ward": ""},
        {"id": "b", "prompt": "Ho", "options": {"seed": 1}, "ward": "3b"},
    ]


def test_seeds_rows_become_rows_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("role,content,ward\nuser,Hi,\n")

    assert run(["convert", str(tmp_path / "a.csv"), "-o", str(tmp_path / "a.tsv")]) == 0

    assert (tmp_path / "a.tsv").read_text() == '"prompt"\t"ward"\n"Hi"\t""\n'


def test_delimiter_holds_for_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;prompt\n1;a,b\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "x"}\n')

    assert run(["convert", str(tmp_path / "a.csv"), "--delimiter", ";", "-o", str(tmp_path / "a.tsv")]) == 0
    assert (
        run(
            [
                "convert",
                str(tmp_path / "b.jsonl"),
                "--delimiter",
                ";",
                "-o",
                str(tmp_path / "b.csv"),
                "--columns=id,prompt",
            ]
        )
        == 0
    )

    assert run(["convert", str(tmp_path / "a.csv"), "--delimiter", ";", "-o", str(tmp_path / "c.csv")]) == 0

    assert (tmp_path / "c.csv").read_text() == '"id","prompt"\n"1","a,b"\n'
    assert (tmp_path / "a.tsv").read_text() == '"id"\t"prompt"\n"1"\t"a,b"\n'
    assert (tmp_path / "b.csv").read_text() == '"id";"prompt"\n"";"x"\n'


def test_what_says_nothing_is_no_reason_to_refuse_and_what_is_echoed_is_kept() -> None:
    ours = read_ours(b'{"id": 1, "prompt": "a", "model": "m", "images": [], "system": null, "note": null}', 1)

    assert ours == {"id": 1, "prompt": "a", "model": "m", "images": [], "note": None}
    assert json.loads(write_line(ours, 1, LineShape.OPENAI))["note"] is None
    assert write_cells(ours, 1, ["id", "prompt", "model", "images", "note", "ward"]) == ["1", "a", "m", "[]", "", ""]


def test_commands_for_files_read_tables_as_people_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("index.csv").write_text(",prompt,\n0,a,\n,,\n1,b,\n")
    Path("glue.tsv").write_text('prompt\tlabel\n"No, he said.\t0\nHe said "no\t1\n')
    Path("broken.csv").write_text('prompt,label\n"open,0\nb,1\n"c, d",2\n')

    assert run(["convert", "index.csv", "-o", "again.csv"]) == 0
    assert wording("column-1-of-the-table-has-no-name") in capfd.readouterr().err
    assert Path("again.csv").read_text() == '"column_1","prompt"\n"0","a"\n"1","b"\n'
    for command in (["convert", "glue.tsv"], ["prepare", "glue.tsv", "--column", "prompt", "--keep"]):
        assert run([*command, "-o", "glue.jsonl", "--force"]) == 0
        lines = list(map(json.loads, Path("glue.jsonl").read_text().splitlines()))
        assert [(line["prompt"], line["label"]) for line in lines] == [('"No, he said.', "0"), ('He said "no', "1")]
    assert run(["schema", "glue.tsv", "-o", "glue.schema.json"]) == 0
    for command in (["convert"], ["prepare", "--column", "prompt"], ["schema"]):
        capfd.readouterr()
        assert run([*command, "broken.csv", "-o", "out"]) == 5
        assert wording("a-quote-makes-one-row-of", 2, 3, 2, 4) in (said := capfd.readouterr().err)
        assert wording("or-give-no-quotes") in said
        assert not Path("out").exists()
    assert run(["convert", "broken.csv", "--no-quotes", "-o", "out.jsonl"]) == 3
    assert run(["convert", "out.jsonl", "--no-quotes"]) == 2
    assert run(["prepare", "index.csv", "--column", "prompt", "--template", "{text} {style?}", "-o", "p.jsonl"]) == 0
    assert json.loads(Path("p.jsonl").read_text().splitlines()[1])["prompt"] == "b "
