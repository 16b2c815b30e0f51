"""The table of cases is whole and true: every id has an entry, every test in it exists and bears the id."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.faults.cases import CASES, DECIDED_AGAINST, MATRIX, NOT_YET

TESTS = Path(__file__).parents[1]
#: How many cases may be decided against.
AGAINST = 5


@cache
def read_tests(file: str) -> dict[str, set[str]]:
    """Return `{test, or Class::test: the ids that its marker names}` of one file."""
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    return {name: set(marked_ids(node)) for name, node in functions(tree)}


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}::{item.name}", item) for item in node.body if isinstance(item, ast.FunctionDef))
        elif isinstance(node, ast.FunctionDef):
            yield node.name, node


def marked_ids(node: ast.FunctionDef) -> Iterator[str]:
    for mark in node.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.case":
            yield from (str(argument.value) for argument in mark.args if isinstance(argument, ast.Constant))


def named(case: str) -> list[str]:
    entry = CASES[case]
    return [] if isinstance(entry, str) else entry


def test_every_case_of_the_matrix_has_an_entry() -> None:
    assert list(CASES) == [f"{letter}{number}" for letter, last in MATRIX.items() for number in range(1, last + 1)]


@pytest.mark.parametrize("case", CASES)
def test_entry_names_tests_that_exist_or_says_why_there_is_none(case: str) -> None:
    entry = CASES[case]
    if isinstance(entry, str):
        assert entry.startswith((NOT_YET, DECIDED_AGAINST))
        return
    assert entry
    for place in entry:
        file, _, name = place.partition("::")
        assert name in read_tests(file), f"{place} does not exist"


def test_marked_tests_and_the_table_say_the_same() -> None:
    marked = {
        (case, f"{path.relative_to(TESTS)}::{name}")
        for path in TESTS.glob("**/test_*.py")
        for name, ids in read_tests(str(path.relative_to(TESTS))).items()
        for case in ids
    }
    listed = {(case, place) for case in CASES for place in named(case)}

    assert marked <= listed
    assert {(case, place) for case, place in listed if place.startswith("faults/")} <= marked


def test_few_cases_are_decided_against_and_the_readme_gives_each_reason() -> None:
    readme = (TESTS / "README.md").read_text("utf-8")
    against = {case: entry for case, entry in CASES.items() if str(entry).startswith(DECIDED_AGAINST)}

    assert len(against) <= AGAINST
    assert all(str(entry).removeprefix(DECIDED_AGAINST) in readme for entry in against.values())
