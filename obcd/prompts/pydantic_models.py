"""JSON schemas of pydantic models in a Python file, which is only parsed until the user names a model: then it runs."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

from pydantic import PydanticUserError, TypeAdapter

from obcd.errors import InputError, UsageError
from obcd.text import printable

#: The module name under which a file runs.
MODULE = "obcd_models"


def find_models(source: str, name: str) -> list[str]:
    """Return the names of the classes of a Python file, which is parsed but does not run.

    Raises:
        InputError: If it is not valid Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" (line {error.lineno})" if isinstance(error, SyntaxError) else ""
        raise InputError(f"{name} is not valid Python{line}") from None
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def model_schema(path: Path, model: str) -> dict[str, object]:
    """Run a Python file and return the JSON schema of one of its models, dataclasses or TypedDicts.

    Raises:
        InputError: If the file fails, or the name is not that of a model.
        UsageError: If the file has no such name.
    """
    name = printable(str(path))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{name} cannot be run: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # where pydantic looks up the names in annotations
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is a user's program: it may raise anything
        raise InputError(f"{name} cannot be run: {type(error).__name__}: {printable(str(error))[:200]}") from None
    if not hasattr(module, model):
        raise UsageError(f"{name} has no {printable(model)}")
    try:
        return TypeAdapter(getattr(module, model)).json_schema()
    except (PydanticUserError, TypeError, RecursionError) as error:
        raise InputError(f"{printable(model)} in {name} is not a pydantic model ({type(error).__name__})") from None
