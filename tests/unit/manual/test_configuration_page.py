from __future__ import annotations

import re

import pytest

from obcd.config.loading import KEYS
from obcd.manual.configuration_page import TABLES, configuration_page


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page as it is made now."""
    return configuration_page()


def test_every_key_has_its_place(page: str) -> None:
    terms = {
        name
        for line in page.splitlines()
        if line.startswith("- `")
        for name in re.findall(r"`(\w+)`", line.split(":")[0])
    }

    assert set(KEYS) - set(TABLES) - terms == set()


def test_every_key_has_type_default_and_description(page: str) -> None:
    items = [line for line in page.splitlines() if re.match(r"- `\w+`", line)]

    poor = [line for line in items if not re.match(r"- (?:`\w+`(?:, )?)+: .+; default .+?\. \S.+", line)]

    assert poor == []


@pytest.mark.parametrize(
    "words",
    [
        '`num_ctx`: An integer from 16 to 16777216, or `"auto"`; default `8192`. ',
        '`quotes`: `true`, `false`, or `"auto"`; default `"auto"`. ',
        "`attempts`: An integer from 1 to 100; default `4`. ",
        '`accept`: An array of `"jsonl"`',
        "`request_timeout_seconds`: A number above 0, at most 604800; default `5.0`, `900.0`, `600.0`. ",
        "`per_user`: `true` or `false`; default `false`. ",
        "`system_message`: A string; default none. ",
    ],
)
def test_type_limits_and_default_come_from_the_models(page: str, words: str) -> None:
    assert words in page
