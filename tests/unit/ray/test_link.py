"""What Ray does to a process becomes one sentence: texts recorded with Ray 2.60, and sessions that hang or end."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from obcd.errors import AlreadyRunningError, NoEndpointError, ObcdError
from obcd.ray import link
from obcd.ray.link import RaySession, Said, explain
from tests.golden.wording import wording

ORDER = {"do": "look", "address": "10.0.0.1:6379"}
NO_TOKEN = (
    "[2026-11-30 23:49:38,557 W 28195 28195] gcs_client.cc:210: Failed to get cluster ID from GCS server: "
    "Unauthenticated: RPC error: InvalidAuthToken: Authentication token is missing or incorrect"
)
NO_TOKEN_FILE = (
    "AuthenticationError: Token authentication is enabled but no authentication token was found. Ensure that the token "
    "for the cluster is available in a local file (e.g., ~/.ray/auth_token or via RAY_AUTH_TOKEN_PATH)"
)
NO_HEAD = (
    "[2026-11-30 23:50:53,094 E 30325 30327] rpc_client.h:204: Failed to connect to GCS within 5 seconds. GCS may have "
    "been killed. It's either GCS is terminated by `ray stop` or is killed unexpectedly."
)
NO_CLUSTER = (
    "ConnectionError: Could not find any running Ray instance. Please specify the one to connect to by setting "
    "`--address` flag or `RAY_ADDRESS` environment variable."
)


@pytest.mark.parametrize("text", [NO_TOKEN, NO_TOKEN_FILE, f"{NO_TOKEN}\nConnectionError: Failed to connect to Ray"])
def test_a_missing_or_wrong_token_is_named(text: str) -> None:
    assert wording("the-ray-cluster-requires-a-token", "at 10.0.0.1:6379") in explain(text, "at 10.0.0.1:6379")


def test_nobody_is_advised_to_switch_the_token_off() -> None:
    assert "disable" not in explain(NO_TOKEN, "here")


@pytest.mark.parametrize("text", [NO_HEAD, NO_CLUSTER, "timed out", "ConnectionError: No Ray head answers"])
def test_a_head_that_is_not_there_is_named(text: str) -> None:
    assert wording("no-ray-head-answers", "at 10.0.0.1:6379") in explain(text, "at 10.0.0.1:6379")


def test_other_words_of_ray_are_quoted_shortly_and_escaped() -> None:
    sentence = explain("first\n\x1b[31m" + "x" * 1000, "here")
    assert "\x1b" not in sentence
    assert len(sentence) < 600
    assert "\n" not in sentence


def test_versions_that_do_not_fit_are_named() -> None:
    text = "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.58.0\n    Python: 3.12.1\n"
    assert "Ray: 2.58.0 Python: 3.12.1" in explain(text, "here")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a session whose process is a line of Python."""

    def run(script: str) -> RaySession:
        monkeypatch.setattr(link, "COMMAND", (sys.executable, "-ISc", f"import json, os, sys, time\n{script}"))
        return RaySession(ORDER)

    return run


def line(kind: str, **document: object) -> str:
    return f"print({json.dumps({'kind': kind, **document})!r}, flush=True)\n"


def test_lines_come_until_the_result_and_what_else_is_printed_does_not_matter(session: Any) -> None:
    noise = "print('Ray says hello', flush=True); print('{\"kind\": 7}', flush=True); print('[]', flush=True)\n"
    with session(line("connected") + noise + line("result", gpus=8)) as running:
        found = list(running.lines())

    assert [item.kind for item in found] == [Said.CONNECTED, Said.RESULT]
    assert found[-1].document == {"gpus": 8}


def test_a_refused_token_ends_the_session_at_once(session: Any) -> None:
    with (
        session(f"sys.stderr.write({NO_TOKEN!r}); sys.stderr.flush(); time.sleep(60)") as running,
        pytest.raises(NoEndpointError, match="requires a token"),
    ):
        list(running.lines())


def test_a_session_that_is_not_connected_in_time_is_no_head(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "CONNECT_SECONDS", 0.1)
    with session("time.sleep(60)") as running, pytest.raises(NoEndpointError, match="no Ray head answers"):
        list(running.lines())
    assert running.is_connected is False


def test_a_session_that_hangs_later_ends_too(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.1)
    with session(line("connected") + "time.sleep(60)") as running, pytest.raises(NoEndpointError):
        list(running.lines())
    assert running.is_connected is True


def test_a_session_that_is_killed_says_so(session: Any) -> None:
    with session(line("connected") + "os.kill(os.getpid(), 9)") as running, pytest.raises(NoEndpointError, match="9"):
        list(running.lines())


def test_an_error_keeps_its_exit_code(session: Any) -> None:
    script = line("failed", text="held by m2/9", code=int(AlreadyRunningError.exit_code))
    with session(script) as running, pytest.raises(ObcdError, match="m2/9") as caught:
        list(running.lines())
    assert caught.value.exit_code == AlreadyRunningError.exit_code
