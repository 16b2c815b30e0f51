"""The sample configuration in etc/ says every key, and says the truth about the defaults."""

from __future__ import annotations

import re

import pytest

from obcd.config.loading import load_settings
from obcd.config.settings import Settings
from obcd.config.tables import Host, Profile, Requests, Spool
from obcd.config.values import Table
from obcd.package_data import shared

SAMPLE = shared("obcd.toml")


def test_sample_is_a_valid_configuration_and_changes_no_default() -> None:
    settings = load_settings(SAMPLE)

    assert settings.model_dump() == Settings().model_dump()


@pytest.mark.parametrize("table", [Settings, Requests, Host, Spool, Profile])
def test_sample_shows_every_key(table: type[Table]) -> None:
    text = SAMPLE.read_text("utf-8")

    for name, field in table.model_fields.items():
        if field.exclude:
            continue
        key = field.alias or name
        assert re.search(rf"^(# )?(\[{key}|{key} = )", text, re.MULTILINE), f"{key} is not in the sample"
