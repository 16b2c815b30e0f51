"""The folder that all servers of `make real` share, and the table at the end: as expected, or what differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.server import why_not

#: The lines of the table, as tests write them.
TABLE = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin the table."""
    config.stash[TABLE] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip each test with the sentence that says what is missing."""
    reason = why_not()
    for item in items:
        if reason and item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    lines = config.stash[TABLE]
    if lines:
        terminalreporter.section("against the real Ollama")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> list[str]:
    """Return the lines of the table; a test adds to them."""
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def ollama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the servers' models and logs."""
    return tmp_path_factory.mktemp("ollama")
