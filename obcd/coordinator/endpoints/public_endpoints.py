"""Warnings about endpoints to which prompts travel unencrypted over public networks."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from obcd.config.endpoints import Endpoint

logger = logging.getLogger(__name__)


def warn_of_exposed(endpoints: Iterable[Endpoint]) -> None:
    """Warn about endpoints that are exposed by their addresses in the configuration; a name is resolved later."""
    for endpoint in endpoints:
        _warn(endpoint, endpoint.exposure())


def warn_of_peer(endpoint: Endpoint, peer: str) -> None:
    """Warn about an endpoint, configured by name, that is exposed by the address at which it was reached."""
    if not endpoint.exposure():  # otherwise `warn_of_exposed` has logged it
        _warn(endpoint, endpoint.exposure(peer))


def _warn(endpoint: Endpoint, exposure: str) -> None:
    if exposure:
        extra = {"action": "public_endpoint", "endpoint": endpoint.name}
        logger.warning("endpoint %s: %s", endpoint.name, exposure, extra=extra)
