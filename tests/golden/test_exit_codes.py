"""The exit codes; and, by the names that classes happen to have, which error ends as which."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import obcd
from obcd.errors import ExitCode, ObcdError
from tests.golden.golden import assert_golden


def test_exit_codes_are_what_they_were() -> None:
    assert_golden("exit_codes.json", {code.name: code.value for code in ExitCode})


def test_each_error_ends_as_the_code_that_it_did() -> None:
    for module in pkgutil.walk_packages(obcd.__path__, "obcd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    found = {error.__name__: error.exit_code.name for error in _errors(ObcdError)}

    assert_golden("error_codes.json", dict(sorted(found.items())))


def _errors(root: type[ObcdError]) -> Iterator[type[ObcdError]]:
    """Yield an error of obcd's and all below it; those that tests make are none."""
    if root.__module__.partition(".")[0] == "obcd":
        yield root
    for error in root.__subclasses__():
        yield from _errors(error)
