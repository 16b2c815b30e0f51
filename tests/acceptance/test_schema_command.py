"""`obcd schema` as people meet it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.errors import ExitCode
from tests.golden.wording import wording

pytestmark = pytest.mark.acceptance

Capture = pytest.CaptureFixture[str]
MODELS = """from __future__ import annotations
from datetime import date
from pathlib import Path
from pydantic import BaseModel

Path({marker!r}).touch()

class Drug(BaseModel):
    name: str

class Visit(BaseModel):
    patient: str
    seen: date
    drugs: list[Drug] = []
"""


def test_record_becomes_a_schema_that_the_configuration_takes(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "record.json").write_text('{"name": "Mira", "age": 54}')
    target = tmp_path / "r.schema.json"

    assert run(["schema", str(tmp_path / "record.json"), "-o", str(target)]) == ExitCode.DONE
    assert json.loads(target.read_text())["required"] == ["name", "age"]
    assert 'next: schema = "' in capsys.readouterr().err

    assert run(["schema", str(tmp_path / "record.json"), "-o", str(target)]) == ExitCode.INPUT
    assert "--force" in capsys.readouterr().err
    assert run(["schema", str(target)]) == ExitCode.INPUT
    assert wording("it-is-a-json-schema-already") in capsys.readouterr().err


def test_program_is_read_and_runs_only_when_its_model_is_named(tmp_path: Path, capsys: Capture) -> None:
    marker, program = tmp_path / "ran", tmp_path / "models.py"
    program.write_text(MODELS.format(marker=str(marker)))

    assert run(["schema", str(program)]) == ExitCode.USAGE
    assert wording("say-model-name-which-runs-the") in capsys.readouterr().err
    assert not marker.exists()

    assert run(["schema", str(program), "--model", "Visit"]) == ExitCode.DONE
    drafted = json.loads(capsys.readouterr().out)
    assert drafted["properties"]["drugs"]["items"] == {"$ref": "#/$defs/Drug"}
    assert marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "why"),
    [
        ("x.txt", "a", [], ExitCode.USAGE, wording("a-schema-is-drafted-from-json")),
        ("x.json", "{", [], ExitCode.INPUT, wording("it-is-not-json")),
        ("x.jsonl", '{"a": 1}\n{\n', [], ExitCode.INPUT, wording("line-2-is-not-json")),
        ("x.csv", "a\n", [], ExitCode.INPUT, wording("there-is-no-example-in-it")),
        ("x.csv", "a;b\n1;2\n", [], ExitCode.INPUT, wording("x-csv-its-header-has-semicolons")),
        ("x.csv", "a;b\n1;2;3\n", ["--delimiter", ";"], ExitCode.INPUT, wording("line-2-has-3-fields-the")),
        ("x.csv", "a\n1\n", ["--delimiter", ";;"], ExitCode.USAGE, wording("delimiter-takes-one-character")),
        ("x.csv", "a\n1\n", ["--model", "A"], ExitCode.USAGE, wording("model-is-for-a-py-file")),
        ("x.json", "{}", ["--delimiter", ";"], ExitCode.USAGE, wording("delimiter-is-one-character-for-a")),
        ("x.py", "def (", ["--model", "A"], ExitCode.INPUT, wording("is-no-python-line-1")),
        ("x.py", "1/0", ["--model", "A"], ExitCode.INPUT, wording("cannot-be-run-zerodivisionerror")),
        ("x.py", "a = 1", ["--model", "B"], ExitCode.USAGE, "has no B"),
        ("x.py", "a = 1", ["--model", "a"], ExitCode.INPUT, "a in"),
        ("y.json", None, [], ExitCode.INPUT, "cannot read"),
    ],
)
def test_what_gives_no_schema_is_refused_with_a_sentence(
    tmp_path: Path, capsys: Capture, name: str, content: str | None, options: list[str], code: ExitCode, why: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)

    assert run(["schema", str(tmp_path / name), *options]) == code
    assert why in capsys.readouterr().err


def test_r11_r12_check_opens_an_envelope_and_refuses_a_record(tmp_path: Path, capsys: Capture) -> None:
    pattern = {"type": "object", "properties": {"zip": {"type": "string", "pattern": r"\d{5}"}}}
    (tmp_path / "openai.json").write_text(json.dumps({"name": "v", "strict": True, "schema": pattern}))
    (tmp_path / "record.json").write_text('{"name": "string", "age": 0}')
    (tmp_path / "right.toml").write_text('schema = "openai.json"\n[ollama_instances]\n"127.0.0.1:9" = 0\n')
    (tmp_path / "wrong.toml").write_text('schema = "record.json"\n')

    run(["check", "--config", str(tmp_path / "right.toml"), "--root", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)["installation"]
    assert [item["severity"] for item in found if item["subject"] == "schema"] == ["note", "warning"]

    assert run(["check", "--config", str(tmp_path / "wrong.toml")]) == ExitCode.CONFIGURATION
    assert wording("none-of-its-keys-is-a") in capsys.readouterr().err


def test_schema_that_is_one_already_is_named_with_what_the_server_gets(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "s.json").write_text('{"schema": {"type": "object", "properties": {"a": {"pattern": "x"}}}}')

    assert run(["schema", str(tmp_path / "s.json")]) == ExitCode.INPUT

    remark, refusal = capsys.readouterr().err.splitlines()
    assert "s.json: at properties/a" in remark
    assert "`schema`" in refusal
