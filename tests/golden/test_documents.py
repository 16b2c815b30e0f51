"""What commands make of files that they are given: the same bytes as ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.errors import ExitCode
from tests.golden import drops
from tests.golden.golden import assert_bytes
from tests.golden.steps import obcd

EXAMPLES = [{"name": "Ann", "age": 7, "tags": ["a"]}, {"name": "Bo", "age": 8.5, "tags": [], "seen": True}]
FILES = {
    "mixed.jsonl": drops.MIXED,
    "asked.jsonl": drops.OPENAI,
    "visits.csv": drops.VISITS,
    "rows.csv": b'id,prompt,mood,options\nr1,"Hello, you.",glad,"{""seed"": 1}"\nr2,Bye.,,\n',
    "examples.jsonl": drops.lines(*EXAMPLES),
    "example.json": json.dumps(EXAMPLES).encode(),
}
PREPARED = ("prepare", "visits.csv", "--column", "note", "--id-column", "id", "--template", "Note: {text}")


@pytest.mark.parametrize(
    ("name", "command", "code"),
    [
        ("mixed.openai.jsonl", ("convert", "mixed.jsonl", "--to", "openai", "--model", "llama3.2"), ExitCode.PARTIAL),
        ("mixed.csv", ("convert", "mixed.jsonl", "--to", "csv", "--columns", "id,prompt,ward"), ExitCode.PARTIAL),
        ("mixed.seed.jsonl", ("convert", "mixed.jsonl", "--to", "seed"), ExitCode.PARTIAL),
        ("asked.ours.jsonl", ("convert", "asked.jsonl", "--to", "ours"), ExitCode.PARTIAL),
        ("rows.ours.jsonl", ("convert", "rows.csv", "--to", "ours"), ExitCode.DONE),
        ("visits.prepared.jsonl", PREPARED, ExitCode.DONE),
        ("visits.kept.jsonl", (*PREPARED, "--keep", "--system", "Be short."), ExitCode.DONE),
        ("examples.schema.json", ("schema", "examples.jsonl"), ExitCode.DONE),
        ("example.schema.json", ("schema", "example.json"), ExitCode.DONE),
        ("visits.schema.json", ("schema", "visits.csv"), ExitCode.DONE),
    ],
)
def test_same_document_is_written(tmp_path: Path, name: str, command: tuple[str, ...], code: ExitCode) -> None:
    for file, content in FILES.items():
        (tmp_path / file).write_bytes(content)

    assert obcd(*command, "-o", f"made.{name}") == code

    assert_bytes(name, (tmp_path / f"made.{name}").read_bytes())
