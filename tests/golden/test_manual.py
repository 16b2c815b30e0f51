"""The generated pages of the manual are what the generators make now; `OBCD_GOLDEN=write` rewrites them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from obcd.cli.main import cli
from obcd.manual.command_page import command_page
from obcd.manual.configuration_page import configuration_page
from tests.golden.golden import IS_WRITING
from tests.support import SOURCES

FOLDER = SOURCES / "etc" / "manual"
GENERATORS: dict[str, Callable[[], str]] = {
    "commands": lambda: command_page(cli, "obcd"),
    "configuration": configuration_page,
}


@pytest.mark.parametrize("name", GENERATORS)
def test_generated_page_is_what_commands_and_models_say_now(name: str) -> None:
    path, text = FOLDER / f"{name}.md", GENERATORS[name]()

    if IS_WRITING:
        path.write_text(text, "utf-8")

    assert path.read_text("utf-8") == text, "OBCD_GOLDEN=write rewrites it, see tests/README.md"


def test_page_of_commands_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = command_page(cli, "obcd")

    monkeypatch.setenv("COLUMNS", "40")

    assert command_page(cli, "obcd") == wide
