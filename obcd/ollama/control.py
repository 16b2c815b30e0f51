"""Control calls, by `requests`: is it there, which version, which models. Never generates, never follows a redirect."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from obcd.core.records import canonical_model

#: (connect, read) seconds; version and tags take no lock in Ollama, so slowness means trouble.
TIMEOUTS = (5.0, 15.0)
MAX_CONTROL_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Probe:
    """What a control call found.

    Attributes:
        failure: Why the endpoint cannot be used, None when it can.
        version: E.g. `0.33.0`; stand-in servers say what they are in it.
        digests: `{canonical model name: digest}` of what it has.
    """

    failure: str | None
    version: str = ""
    digests: dict[str, str] = field(default_factory=dict)


def probe(url: str) -> Probe:
    """Ask for version and models; never raises."""
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy and no .netrc from the environment
            version = _get(session, f"{url}/api/version").get("version", "")
            models = _get(session, f"{url}/api/tags").get("models") or []
            digests = {canonical_model(str(item["name"])): str(item.get("digest", "")) for item in models}
            return Probe(None, str(version)[:60], digests)
    except requests.RequestException as error:
        return Probe(_sentence(error))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Probe("it answers, but not as Ollama does: is this the right port?")


def _get(session: requests.Session, url: str) -> dict[str, Any]:
    with session.get(url, timeout=TIMEOUTS, allow_redirects=False, stream=True) as response:
        if response.status_code != 200:
            raise requests.HTTPError(f"it answers with status {response.status_code}")
        body = response.raw.read(MAX_CONTROL_BYTES, decode_content=True)
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _sentence(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return str(error)
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the time limit"
    if isinstance(error, requests.Timeout):
        return "it accepts connections but does not answer"
    if "Name or service not known" in str(error) or "NameResolution" in str(error):
        return "its name cannot be resolved"
    if "refused" in str(error):
        return "connection refused: no server listens there"
    return f"not reachable ({type(error).__name__})"


def probe_all(urls: list[str]) -> list[Probe]:
    """Probe several endpoints at once; the slowest one decides how long it takes."""
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(urls)))) as pool:
        return list(pool.map(probe, urls))
