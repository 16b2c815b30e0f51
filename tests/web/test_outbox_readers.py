"""Hugging Face datasets, DuckDB, pandas and polars read the outbox as it is: no key changes its type between lines."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.unit.spool.spools import accept_bytes, answer, failure, finish, make_layout, record

pytestmark = pytest.mark.web

#: More than a reader looks at to find the types of columns (DuckDB: 20480 lines).
LINES = 25_000


@pytest.fixture(scope="module")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a published folder in which rare keys come late, and which has failures."""
    layout, chance = make_layout(tmp_path_factory.mktemp("spool")), random.Random(7)
    lines = [json.dumps({"id": number, "prompt": f"prompt {number}"}) for number in range(LINES)]
    header = accept_bytes(layout, "\n".join(lines).encode())
    rare: list[dict[str, Any]] = [
        {"thinking": "hm"}, {"cached": True}, {"hedged": True}, {"repairs": 1}, {"seed": 7}, {"cached_tokens": 2},
        {"raw": "```", "mended": True}, {"load_seconds": 0.1, "prompt_eval_seconds": 1.0, "eval_seconds": 0.0},
        {"tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Bonn"}}}]},
    ]  # fmt: skip
    records = []
    for number in range(LINES):
        if number % 50 == 49:
            records.append(failure(number, "it broke"))
            continue
        fields = chance.choice(rare) if number > LINES - 2000 or number % 1000 == 0 else {}
        value = {"age": number % 90, "name": chance.choice(["Ann", None])}
        records.append(
            answer(number, f"answer {number}", seconds=chance.choice([0.0, 1.0, 0.25]), parsed=value, **fields)
        )
    record(layout, header.id, records)
    return finish(layout, header)


def test_every_key_has_one_type_in_all_lines(outbox: Path) -> None:
    for name in ("responses.jsonl", "errors.jsonl"):
        kinds: dict[str, set[str]] = {}
        for line in (outbox / name).read_bytes().splitlines():
            for key, value in json.loads(line).items():
                kinds.setdefault(key, set()).add(type(value).__name__)
        assert {key: kind for key, kind in kinds.items() if len(kind) > 1} == {}


def test_hugging_face_datasets_loads_it(outbox: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'obcd[test-web]'")

    loaded = datasets.load_dataset(
        "json", data_files=str(outbox / "responses.jsonl"), split="train", cache_dir=str(tmp_path)
    )

    assert len(loaded) == LINES * 49 // 50
    assert loaded[0]["response"] == "answer 0"
    assert loaded[-1]["parsed"]["age"] == (LINES - 2) % 90


def test_duckdb_reads_it(outbox: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'obcd[test-web]'")

    count, tokens, age = duckdb.sql(
        f"SELECT count(*), sum(eval_tokens), max(parsed.age) FROM '{outbox / 'responses.jsonl'}'"
    ).fetchall()[0]

    assert (count, tokens, age) == (LINES * 49 // 50, 7 * LINES * 49 // 50, 89)
    assert duckdb.sql(f"SELECT class, count(*) FROM '{outbox / 'errors.jsonl'}' GROUP BY class").fetchall() == [
        ("server_error", LINES // 50)
    ]


def test_pandas_and_polars_read_it(outbox: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed: pip install 'obcd[test-web]'")
    polars = pytest.importorskip("polars", reason="polars is not installed: pip install 'obcd[test-web]'")

    frame = pandas.read_json(outbox / "responses.jsonl", lines=True)
    assert len(frame) == LINES * 49 // 50
    assert str(frame.dtypes["seconds"]) == "float64"
    assert str(frame.dtypes["line"]) == "int64"
    other = polars.read_ndjson(outbox / "responses.jsonl")
    assert other.height == len(frame)
    assert other.schema["seconds"] == polars.Float64
