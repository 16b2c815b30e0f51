"""Fixtures of the tests with other programs."""

from __future__ import annotations

from tests.unit.client.conftest import stand_in_daemon

__all__ = ["stand_in_daemon"]
