"""Fixtures of the integration tests."""

from __future__ import annotations

from tests.integration.systemd_sandbox import systemd

__all__ = ["systemd"]
