"""What Ray does to a process becomes one sentence: texts recorded with Ray 2.60."""

from __future__ import annotations

import pytest

from obcd.ray.link import explain
from tests.golden.wording import wording

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
