"""Warnings of endpoints to which prompts travel in the open."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from obcd.config.endpoints import Endpoint

logger = logging.getLogger(__name__)


def warn_of_exposed(endpoints: Iterable[Endpoint]) -> None:
    """Say which endpoints are out in the open by the addresses in the configuration; a name is resolved later."""
    for endpoint in endpoints:
        _warn(endpoint, endpoint.exposure())


def warn_of_peer(endpoint: Endpoint, peer: str) -> None:
    """Say that an endpoint which the configuration names is out in the open, by the address it was reached at."""
    if not endpoint.exposure():  # else it was said already
        _warn(endpoint, endpoint.exposure(peer))


def _warn(endpoint: Endpoint, exposure: str) -> None:
    if exposure:
        extra = {"action": "public_endpoint", "endpoint": endpoint.name}
        logger.warning("endpoint %s: %s", endpoint.name, exposure, extra=extra)
