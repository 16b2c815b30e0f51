"""A profile over the top level, for every key of a profile: what it says wins, and it can say that there is none."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import toml

from obcd.config.loading import load_settings
from obcd.config.settings import Settings
from obcd.config.tables import NONE, Profile, Requests
from obcd.config.writing import with_endpoints
from obcd.core.request.records import JobSettings
from obcd.errors import ConfigurationError
from tests.golden.wording import wording

SCHEMA, OTHER_SCHEMA = {"title": "top", "type": "object"}, {"title": "own", "type": "object"}
#: {key: (its table at the top, what the top level says, [(what the profile says, what holds)])}; a key whose values may
#: be 0, false, "" or [] has that among them.
CASES: dict[str, tuple[str, Any, list[tuple[Any, Any]]]] = {
    "model": ("", "one", [("two", "two")]),
    "system_message": ("", "Be brief.", [("", ""), ("Be long.", "Be long."), (False, None)]),
    "schema": ("", "top.json", [("own.json", OTHER_SCHEMA), (False, None)]),
    "send_schema": ("", True, [(False, False)]),
    "format": ("", "json", [("json", "json"), (False, None)]),
    "options": (
        "requests",
        {"seed": 1, "temperature": 0.5},
        [
            ({"seed": 0}, {"seed": 0, "temperature": 0.5}),
            ({}, {"seed": 1, "temperature": 0.5}),  # tables are added
            (False, {}),
        ],
    ),
    "think": ("", True, [(False, False), ("low", "low"), ("auto", None)]),
    "num_ctx": ("requests", 4096, [(2048, 2048), ("auto", 32768)]),
    "num_ctx_max": ("requests", 16384, [(8192, None)]),  # counts with "auto" alone, see test_loading
    "num_predict": ("requests", 100, [(1, 1)]),
    "attempts": ("requests", 3, [(1, 1)]),
    "n": ("requests", 3, [(1, 1)]),
    "template": ("", "About {note}", [("Of {text}", "Of {text}"), (False, None)]),
    "id_field": ("", "mrn", [("id", "id")]),
    "accept": ("", ["csv", "gz"], [([], frozenset()), (["jsonl"], frozenset({"jsonl"}))]),
    "delimiter": ("", ";", [(",", ",")]),
    "quotes": ("", False, [(True, True), ("auto", None)]),
    "repairs": ("requests", 3, [(0, 0)]),
    "repeat": ("", "skip", [("run", None)]),
    "cache": ("", True, [(False, False)]),
    "dedupe": ("", True, [(False, False)]),
    "thoughts": ("", "keep", [("move", "move")]),
    "empty": ("", "fail", [("keep", "keep"), ("retry", "retry")]),
    "drop_last_assistant": ("", True, [(False, False)]),
    "files": ("", True, [(False, False)]),
    "aliases": ("", {"a": "one"}, [({}, {"a": "one"}), ({"b": "two"}, {"a": "one", "b": "two"}), (False, {})]),
    "ignore": ("", ["logit_bias"], [([], []), (["tool_choice", "audio"], ["tool_choice", "audio"])]),
    "digest": ("requests", "any", [("same", "same")]),
    "prefix_affinity": ("requests", "off", [("auto", "auto")]),
    "window": (
        "",
        ["20:00-07:00"],
        [([], []), ("sat", ["sat"]), (["mon 08:00-09:00", "sun"], ["mon 08:00-09:00", "sun"])],
    ),
}
FIELDS = {"system_message": "system", "schema": "format"}


def load(folder: Path, key: str, **profile: Any) -> Settings:
    table, value, _ = CASES[key]
    document: dict[str, Any] = {"profiles": {"own": profile, "silent": {}}}
    (document.setdefault(table, {}) if table else document)[key] = value
    for name, schema in (("top.json", SCHEMA), ("own.json", OTHER_SCHEMA)):
        (folder / name).write_text(json.dumps(schema))
    path = folder / "obcd.toml"
    path.write_text(toml.dumps(document))
    return load_settings(path)


def found(settings: Settings, profile: str, key: str) -> Any:
    if key == "accept":
        return settings.accepts(profile)
    if key == "repeat":
        return settings.answered_since(profile, 0.0)
    return getattr(settings.job_settings(profile), FIELDS.get(key, key))


def test_every_key_of_a_profile_is_here_and_has_one_place_at_the_top() -> None:
    keys = {field.alias or name for name, field in Profile.model_fields.items()} - {"notify"}  # see test_notify_keys
    top = {field.alias or name for name, field in Settings.model_fields.items() if not field.exclude}

    assert set(CASES) == keys
    assert all(key in (Requests.model_fields if table else top) for key, (table, _, _) in CASES.items())
    assert not set(Requests.model_fields) & set(Settings.model_fields)
    known = {*Profile.model_fields, *Requests.model_fields, "system"}
    assert {item.name for item in fields(JobSettings)} <= known


@pytest.mark.parametrize(
    ("key", "said", "holds"), [(key, said, holds) for key, (_, _, cases) in CASES.items() for said, holds in cases]
)
def test_what_a_profile_says_wins(tmp_path: Path, key: str, said: Any, holds: Any) -> None:
    settings = load(tmp_path, key, **{key: said})

    assert found(settings, "own", key) == holds


@pytest.mark.parametrize("key", CASES)
def test_what_a_profile_leaves_out_comes_from_the_top(tmp_path: Path, key: str) -> None:
    settings = load(tmp_path, key)

    assert found(settings, "silent", key) == found(settings, "", key)
    assert key in ("send_schema", "num_ctx_max") or found(settings, "", key) != found(Settings(), "", key)


@pytest.mark.parametrize("key", [key for key in NONE if key not in ("options", "aliases")])
def test_none_at_the_top_is_as_if_it_were_left_out(tmp_path: Path, key: str) -> None:
    path = tmp_path / "obcd.toml"
    path.write_text(toml.dumps({key: NONE[key]}))

    assert load_settings(path).model_dump() == Settings().model_dump()


@pytest.mark.parametrize(
    ("top", "own", "holds"),
    [
        ("schema", {"format": "json"}, "json"),
        ("schema", {"format": False}, None),
        ("format", {"schema": "own.json"}, OTHER_SCHEMA),
        ("format", {"schema": False}, None),
        ("format", {"schema": False, "format": "json"}, "json"),
    ],
)
def test_schema_and_format_are_one_wish(tmp_path: Path, top: str, own: dict[str, Any], holds: Any) -> None:
    assert load(tmp_path, top, **own).job_settings("own").format == holds


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("template", 0),
        ("template", ""),
        ("template", True),
        ("schema", 0),
        ("format", ""),
        ("think", "none"),
        ("options", 0),
        ("model", False),
        ("attempts", False),
        ("repairs", False),
        ("accept", False),
        ("id_field", False),
    ],
)
def test_what_is_no_value_and_not_none_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"at profiles\.own\.{key}: "):
        load(tmp_path, key, **{key: value})


@pytest.mark.parametrize("value", [5, True, ["mon", 5], {"days": "mon"}])
def test_window_of_another_type_is_refused_with_an_example(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(wording("must-be-text-or-a-list-of-texts", repr(value)))):
        load(tmp_path, "schema", window=value)


def test_none_is_written_again_as_it_was(tmp_path: Path) -> None:
    load(tmp_path, "schema", schema=False)

    text = with_endpoints(tmp_path / "obcd.toml", {"127.0.0.1:40001": {"gpu": 0, "slots": 4}})

    (tmp_path / "again.toml").write_text(text)
    assert load_settings(tmp_path / "again.toml").job_settings("own").format is None
