"""The JSON Schema of the configuration takes what obcd takes, and has the form that taplo reads."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from obcd.cli.main import run
from obcd.config.descriptions import describe_key
from obcd.config.json_schema import configuration_schema
from obcd.config.settings import Settings
from obcd.install.found import Machine
from obcd.install.plan import SCHEMA, make_plan
from obcd.package_data import shared

SCHEMA_OF_SETTINGS = configuration_schema()


def fits(document: Any) -> bool:
    return jsonschema_rs.Draft7Validator(SCHEMA_OF_SETTINGS).is_valid(document)


def is_accepted(document: Any) -> bool:
    try:
        Settings.model_validate(document)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["obcd.toml", "examples/obcd.toml"])
def test_sample_fits(name: str) -> None:
    faults = jsonschema_rs.Draft7Validator(SCHEMA_OF_SETTINGS).iter_errors(
        tomllib.loads(shared(name).read_text("utf-8"))
    )

    assert [str(fault) for fault in faults] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        'model = "llama3.2"\nsystem_message = false\nformat = "json"',
        'think = "auto"',
        "think = false",
        'think = "loud"',
        'accept = ["csv", "gz"]',
        'accept = ["xls"]',
        'delimiter = "\\t"',
        'delimiter = ";;"',
        'modle = "llama3.2"',
        "model = 3",
        'aliases = {"gpt-4o-mini" = "llama3.2"}',
        "[ollama_instances]",
        '[ollama_instances]\n"127.0.0.1:11434" = 0\n"https://a/b" = {gpu = 1, slots = "auto"}',
        '[ollama_instances]\n"127.0.0.1:11434" = "0"',
        '[ollama_instances]\n"127.0.0.1:11434" = {slots = 0}',
        '[ollama_instances]\n"127.0.0.1:11434" = {slot = 1}',
        '[requests]\nnum_ctx = "auto"',
        "[requests]\nnum_ctx = 8",
        "[requests]\nattempts = 0",
        '[requests]\noptions = {temperature = 0.0, stop = ["."]}',
        "[requests]\noptions = {temprature = 0.0}",
        "[requests]\noptions = {num_ctx = 4096}",
        '[requests]\nslots = "many"',
        "[requests]\nslots = 16",
        '[host]\ngpus = [0, "GPU-1"]',
        "[host]\ngpus = 1",
        "[host]\ncontext_length = 4096",
        "[spool]\nkeep_days = 30",
        "[spool]\nmin_free_bytes = -1",
        '[profiles.visits]\nschema = "visit.schema.json"\noptions = false\naliases = false\nn = 5',
        '[profiles.visits]\nmodel = ""',
        "[profiles.visits]\nslots = 4",
        '[profiles."a/b"]',
    ],
)
def test_schema_and_program_accept_the_same(text: str) -> None:
    document = tomllib.loads(text)

    assert fits(document) == is_accepted(document)


def test_schema_has_no_form_that_taplo_does_not_follow() -> None:
    text = json.dumps(SCHEMA_OF_SETTINGS)

    assert SCHEMA_OF_SETTINGS["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert not {word for word in ('"$ref"', '"$defs"', '"null"', ": null") if word in text}


def test_keys_have_the_comments_of_the_sample() -> None:
    keys = SCHEMA_OF_SETTINGS["properties"]

    assert sum("description" in item for item in keys["requests"]["properties"].values()) > 10
    assert describe_key("requests", "attempts")
    assert keys["requests"]["properties"]["attempts"]["description"] == describe_key("requests", "attempts")
    assert keys["profiles"]["additionalProperties"]["properties"]["model"]["description"] == describe_key("", "model")


def test_command_prints_what_the_installation_puts_where_the_sample_looks(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["check", "--schema"])

    printed = capsys.readouterr().out
    installed = {item.path: item for item in make_plan(Machine()).items}[SCHEMA]
    assert code == 0
    assert json.loads(printed) == SCHEMA_OF_SETTINGS
    assert installed.content.decode() == printed
    assert shared("obcd.toml").read_text("utf-8").splitlines()[0] == f"#:schema {SCHEMA}"
