"""Control calls, by `requests`: is it there, which version, which models. Never generates, never follows a redirect."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests
from urllib3.exceptions import HTTPError as BodyError
from urllib3.exceptions import ReadTimeoutError

from obcd.clock import monotonic
from obcd.core.records import canonical_model
from obcd.logs import printable

#: (connect, read) seconds; version and tags take no lock in Ollama, so slowness means trouble.
TIMEOUTS = (5.0, 15.0)
#: Seconds for the body of one reply: `read` above is the limit between two bytes, and one that drips never exceeds it.
BODY_SECONDS = 15.0
MAX_CONTROL_BYTES = 16 * 2**20
SILENT = "it accepts connections but does not answer"


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
            return Probe(None, printable(str(version)[:60]), digests)
    except requests.RequestException as error:
        return Probe(_sentence(error))
    except ReadTimeoutError:
        return Probe(SILENT)
    except BodyError:  # what `raw.read1` raises comes from urllib3 as it is
        return Probe("the connection broke in the middle of its answer")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Probe("it answers, but not as Ollama does: is this the right port?")


def _get(session: requests.Session, url: str) -> dict[str, Any]:
    with session.get(url, timeout=TIMEOUTS, allow_redirects=False, stream=True) as response:
        if response.is_redirect:
            raise requests.HTTPError(
                f"it answers with a redirect ({response.status_code}), which is not followed: configure its new address"
            )
        if response.status_code != 200:
            raise requests.HTTPError(f"it answers with status {response.status_code}")
        body = _read_body(response)
    document = json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _read_body(response: requests.Response) -> bytes:
    body, deadline = bytearray(), monotonic() + BODY_SECONDS
    read = getattr(response.raw, "read1", response.raw.read)  # urllib3 1 has no read1: it waits for the whole block
    while block := read(65536, decode_content=True):
        body += block
        if len(body) > MAX_CONTROL_BYTES:
            raise ValueError("larger than any list of models")
        if monotonic() > deadline:
            raise requests.Timeout
    return bytes(body)


def _sentence(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError):
        return str(error)
    if isinstance(error, requests.ConnectTimeout):
        return "no connection within the time limit"
    if isinstance(error, requests.Timeout):
        return SILENT
    if "Name or service not known" in str(error) or "NameResolution" in str(error):
        return "its name cannot be resolved"
    if "refused" in str(error):
        return "connection refused: no server listens there"
    return f"not reachable ({type(error).__name__})"


def probe_all(urls: list[str]) -> list[Probe]:
    """Probe several endpoints at once; the slowest one decides how long it takes."""
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(urls)))) as pool:
        return list(pool.map(probe, urls))
