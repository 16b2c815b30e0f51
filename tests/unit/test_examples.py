"""The example jobs hold together: the notes, their schema, their key and the configuration."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "etc" / "examples"
FIELDS = ["patient_name", "mrn", "visit_date", "age"]


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EXAMPLES / name).read_text("utf-8").splitlines()]


def key() -> dict[str, dict[str, Any]]:
    return json.loads((EXAMPLES / "clinical-visits.key.json").read_text("utf-8"))  # type: ignore[no-any-return]


def schema() -> dict[str, Any]:
    return json.loads((EXAMPLES / "visit.schema.json").read_text("utf-8"))  # type: ignore[no-any-return]


def configuration() -> dict[str, Any]:
    return tomllib.loads((EXAMPLES / "obcd.toml").read_text("utf-8"))


def fits(value: object, rule: dict[str, Any]) -> bool:
    """Check the part of JSON Schema that the example uses; `jsonschema` is not among the test dependencies."""
    if rule["type"] == "integer":
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer and rule["minimum"] <= value <= rule["maximum"]
    return isinstance(value, str) and re.search(rule["pattern"], value) is not None


@pytest.mark.parametrize(("name", "count"), [("clinical-visits.jsonl", 30), ("questions.jsonl", 12)])
def test_every_line_is_one_chat_message_of_the_user(name: str, count: int) -> None:
    raw = (EXAMPLES / name).read_bytes()
    lines = lines_of(name)

    assert raw.endswith(b"\n")
    assert len(lines) == count == len({line["content"] for line in lines})
    for line in lines:
        assert list(line) == ["role", "content"]
        assert line["role"] == "user"
        assert line["content"].strip() == line["content"] != ""


def test_key_has_exactly_the_lines_of_the_notes() -> None:
    assert list(key()) == [str(number) for number in range(1, len(lines_of("clinical-visits.jsonl")) + 1)]


def test_every_value_of_the_key_stands_in_its_note() -> None:
    for note, record in zip(lines_of("clinical-visits.jsonl"), key().values(), strict=True):
        for value in record.values():
            assert re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", note["content"]), (value, note)


def test_no_two_patients_share_a_name_or_a_number() -> None:
    records = key().values()

    assert len({record["mrn"] for record in records}) == len({record["patient_name"] for record in records}) == 30


def test_every_record_of_the_key_fits_the_schema() -> None:
    rules = schema()["properties"]

    for record in key().values():
        assert list(record) == FIELDS
        assert [name for name, value in record.items() if not fits(value, rules[name])] == []


def test_schema_asks_for_every_field_and_allows_no_other() -> None:
    wanted = schema()

    assert list(wanted["properties"]) == wanted["required"] == FIELDS
    assert wanted["additionalProperties"] is False


def test_every_text_of_the_schema_has_a_largest_length_so_that_an_answer_ends() -> None:
    patterns = [rule["pattern"] for rule in schema()["properties"].values() if rule["type"] == "string"]

    for pattern in patterns:
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert not re.search(r"[*+]|,\}", pattern)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patient_name", "Solberg"),
        ("patient_name", "Mira " + "S" + "o" * 16),
        ("mrn", "48291"),
        ("mrn", "MRN 482913"),
        ("visit_date", "11 March 2025"),
        ("age", 121),
        ("age", "54"),
    ],
)
def test_schema_refuses_values_of_the_wrong_form(field: str, value: object) -> None:
    assert not fits(value, schema()["properties"][field])


def test_configuration_names_the_schema_and_loads_the_model_once() -> None:
    found = configuration()
    clinical = found["profiles"]["clinical"]

    assert (EXAMPLES / clinical["schema"]).is_file()
    # another num_ctx, or another model, would make a server reload between the two jobs
    assert clinical["num_ctx"] == found["requests"]["num_ctx"]
    assert "model" not in clinical
    assert found["system_message"]
    assert clinical["system_message"].count("\n") == 0
