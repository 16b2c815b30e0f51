"""Tests that are coroutines are run here."""

from __future__ import annotations

import asyncio
import inspect

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test without fixtures that is a coroutine, in a loop of its own; true means that it is run."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    asyncio.run(asyncio.wait_for(pyfuncitem.obj(), 10))
    return True
