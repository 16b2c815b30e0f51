"""The rooms of the house: how many modules a package holds, how they and their classes are named, where tests stand."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "obcd"
#: The name of a class, in another one too.
CLASS = re.compile(r"^ *class (\w+)[(:]", re.MULTILINE)
#: Most modules of one folder, `__init__.py` not counted.
MOST_MODULES = 12


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_no_package_is_a_drawer() -> None:
    count: dict[Path, int] = defaultdict(int)
    for path in modules():
        count[path.parent] += 1

    assert {str(folder): number for folder, number in count.items() if number > MOST_MODULES} == {}


def test_no_module_is_named_like_its_folder() -> None:
    assert [str(path) for path in modules() if path.stem == path.parent.name] == []


def test_no_public_class_name_is_used_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        for name in CLASS.findall(path.read_text("utf-8")):
            if not name.startswith("_"):
                places[name].append(str(path.relative_to(PACKAGE)))

    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_every_package_is_in_the_wheel() -> None:
    manifest = ConfigParser()
    manifest.read(ROOT / "setup.cfg", "utf-8")
    named = set(manifest["options"]["packages"].split())

    there = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert there <= named


def test_every_package_is_one_line_that_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent == PACKAGE:
            continue  # holds the version too
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree), path
        assert len(tree.body) == 1, path


def test_unit_tests_stand_where_their_module_stands() -> None:
    mirrored = {path.relative_to(PACKAGE).parent for path in modules()}
    unit = ROOT / "tests" / "unit"
    folders = {path.relative_to(unit).parent for path in unit.rglob("test_*.py")}

    assert folders - mirrored == set()
