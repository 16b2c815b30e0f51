"""The difference between two configurations, and how it is told."""

from __future__ import annotations

from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.coordinator.endpoints.changes import Change, compare, describe
from tests.golden.wording import wording


def settings(*endpoints: str, **tables: Any) -> Settings:
    instances = {name: {"slots": 2} for name in endpoints or ("a",)}
    return Settings.model_validate({"ollama_instances": instances, **tables})


def names(found: tuple[Any, ...]) -> list[str]:
    return [item.name for item in found]


def test_same_configuration_changes_nothing() -> None:
    same = settings("a", "b", profiles={"x": {"model": "m"}})

    assert compare(same, same) == Change()
    assert describe(Change(), 0, 3) == "nothing changed"


def test_endpoints_come_leave_change_and_are_taken_back() -> None:
    old = settings("a", "b", "c")
    new = Settings.model_validate({"ollama_instances": {"b": {"slots": 2}, "c": {"slots": 9}, "d": 0, "e": 0}})

    change = compare(old, new, {"e", "f"})

    assert change.left == ("a",)
    assert names(change.altered) == ["c"]
    assert names(change.came) == ["d"]
    assert names(change.back) == ["e"]


def test_slots_by_default_change_the_endpoints_that_name_none() -> None:
    old = Settings.model_validate({"ollama_instances": {"a": 0, "b": {"slots": 2}}})
    new = Settings.model_validate({"ollama_instances": {"a": 0, "b": {"slots": 2}}, "requests": {"slots": 8}})

    change = compare(old, new)

    assert [(item.name, item.slots) for item in change.altered] == [("a", 8)]
    assert change.keys == ("requests.slots",)
    assert not change.is_for_jobs


def test_profiles_come_leave_and_change() -> None:
    old = settings(profiles={"x": {}, "y": {"model": "m"}, "z": {}})
    new = settings(profiles={"y": {"model": "n"}, "z": {}, "w": {}})

    change = compare(old, new)

    assert (change.profiles_came, change.profiles_left, change.profiles_altered) == (("w",), ("x",), ("y",))
    assert change.is_for_jobs


def test_profile_that_switches_off_what_it_left_out_has_changed() -> None:
    old, new = (settings(template="{a}", profiles={"x": own}) for own in ({}, {"template": False}))

    change = compare(old, new)

    assert (change.profiles_altered, change.is_for_jobs) == (("x",), True)


def test_schema_file_of_the_same_name_with_other_content_is_a_change() -> None:
    tables: dict[str, Any] = {"schema": "s.json", "profiles": {"x": {"schema": "x.json"}}}
    old = settings(**tables).model_copy(update={"schemas": {"": {"type": "object"}, "x": {"type": "object"}}})
    new = settings(**tables).model_copy(update={"schemas": {"": {"type": "array"}, "x": {"type": "array"}}})

    change = compare(old, new)

    assert (change.keys, change.profiles_altered, change.is_for_jobs) == (("schema",), ("x",), True)


@pytest.mark.parametrize(
    ("tables", "keys", "is_for_jobs"),
    [
        ({"model": "m"}, ("model",), True),
        ({"requests": {"num_ctx": 100}, "think": True}, ("think", "requests.num_ctx"), True),
        ({"requests": {"request_timeout_seconds": 9.0}}, ("requests.request_timeout_seconds",), True),
        ({"requests": {"connect_timeout_seconds": 9.0}}, ("requests.connect_timeout_seconds",), False),
        ({"requests": {"drain_seconds": 9.0}}, ("requests.drain_seconds",), False),
        ({"spool": {"active_jobs": 2}}, ("spool.active_jobs",), False),
        ({"host": {"base_port": 2}}, (), False),
        ({"cache": True, "dedupe": True}, ("cache", "dedupe"), True),
        ({"template": "{a}", "id_field": "b", "accept": ("csv",)}, ("template", "id_field", "accept"), True),
        ({"repeat": "skip", "aliases": {"a": "b"}}, ("repeat", "aliases"), True),
    ],
    ids=lambda value: str(value)[:40],
)
def test_other_keys_are_named_and_the_hosts_are_not_ours(
    tables: dict[str, Any], keys: tuple[str, ...], is_for_jobs: bool
) -> None:
    change = compare(settings(), settings(**tables))

    assert (change.keys, change.is_for_jobs) == (keys, is_for_jobs)


@pytest.mark.parametrize(
    ("in_flight", "jobs", "line"),
    [
        (16, 1, wording("2-endpoints-came-1-endpoint-is")),
        (0, 2, wording("2-endpoints-came-1-endpoint-left")),
        (0, 0, "2 endpoints added, 1 endpoint removed, model changed"),
    ],
)
def test_change_is_told_in_one_line(in_flight: int, jobs: int, line: str) -> None:
    change = compare(settings("a"), settings("b", "c", model="m"))

    assert describe(change, in_flight, jobs).startswith(line)
    assert ("keep" in describe(change, in_flight, jobs)) == bool(jobs)


def test_what_becomes_of_a_repeated_drop_is_told_like_any_key() -> None:
    old = settings(repeat="run", profiles={"x": {"repeat": "run"}})
    new = settings(repeat="skip", spool={"keep_days": 7}, profiles={"x": {"repeat": "skip"}})

    change = compare(old, new)

    assert change.keys == ("repeat", "spool.keep_days")
    assert change.profiles_altered == ("x",)
    assert not change.is_for_jobs


@pytest.mark.parametrize(
    ("top", "profile", "keep_days", "since"),
    [
        ("run", None, 0, None),
        ("skip", None, 0, 0.0),
        ("skip", "run", 0, None),
        ("run", "skip", 2, 827_200.0),
        ("skip", None, 36_500, 0.0),
    ],
)
def test_drop_is_skipped_by_the_rule_of_its_profile_and_for_as_long_as_answers_are_kept(
    top: str, profile: str | None, keep_days: int, since: float | None
) -> None:
    own = {} if profile is None else {"repeat": profile}

    made = settings(repeat=top, spool={"keep_days": keep_days}, profiles={"x": own})

    assert made.answered_since("x", 1_000_000.0) == since
