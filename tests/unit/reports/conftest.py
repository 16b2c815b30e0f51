"""NVML of a GPU host, in this process."""

from __future__ import annotations

from tests.unit.host.conftest import stand_ins

__all__ = ["stand_ins"]
