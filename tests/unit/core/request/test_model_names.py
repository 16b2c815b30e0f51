"""Advice about a model that nobody has: it can be followed where it is given."""

from __future__ import annotations

import pytest

from obcd.coordinator.endpoints.state_messages import describe_shortage
from obcd.core.endpoint.faults import model_missing
from obcd.core.request.model_names import how_to_get, is_cloud, is_name, is_of_service
from obcd.core.scheduling.missing_models import MissingModel
from tests.golden.wording import wording

LOCAL, REMOTE = "http://127.0.0.1:11434", "http://gpu1:11432"


@pytest.mark.parametrize(
    "name",
    ["llama3.2", "llama3.2:1b", "user/model", "hf.co/user/model:Q4_K_M", "localhost:5000/library/m:x", "_x"],
)
def test_name_that_a_model_can_have(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "two words", "a/b/c/d", "-x", "x:", "gemma: 2b", "größe", 401 * "x", "x;reboot"])
def test_name_that_no_model_can_have_is_not_to_be_pulled(name: str) -> None:
    assert not is_name(name)
    told = [
        how_to_get(name, LOCAL),
        model_missing(name, 2, LOCAL).message,
        describe_shortage(MissingModel(name), LOCAL),
    ]
    assert not any("ollama pull" in text for text in told)
    assert all(wording("no-model-can-have-that-name") in text for text in told)


@pytest.mark.parametrize("name", ["gpt-oss:120b-cloud", "kimi-k2:cloud", "Glm:CLOUD", "user/m:x-Cloud"])
def test_model_of_the_cloud_is_not_to_be_pulled(name: str) -> None:
    assert is_cloud(name)
    told = [
        how_to_get(name, LOCAL),
        model_missing(name, 2, LOCAL).message,
        describe_shortage(MissingModel(name), LOCAL),
    ]
    assert not any("ollama pull" in text for text in told)
    assert all("ollama.com" in text for text in told)


@pytest.mark.parametrize("name", ["gpt-4o-mini", "gpt-4o-mini:latest"])
def test_model_of_another_service_is_not_to_be_pulled_but_replaced(name: str) -> None:
    told = [
        how_to_get(name, LOCAL),
        model_missing(name, 2, LOCAL).message,
        describe_shortage(MissingModel(name), LOCAL),
    ]
    assert not any("ollama pull" in text for text in told)
    assert all(wording("no-ollama-has-it-put-a") in text for text in told)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("o3-mini", True),
        ("claude-sonnet-4", True),
        ("text-embedding-3-small", True),
        ("gemini-2.5-flash", True),
        ("gpt-oss:20b", False),
        ("gpt-neo", False),
        ("olmo2", False),
        ("o", False),
    ],
)
def test_model_of_another_service_is_known_by_its_name(name: str, is_one: bool) -> None:
    assert is_of_service(name) is is_one


@pytest.mark.parametrize("name", ["cloud", "my-cloud", "cloud/model", "m:cloudy", "host:5000/my-cloud"])
def test_name_with_a_cloud_elsewhere_is_any_model(name: str) -> None:
    assert not is_cloud(name)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        (LOCAL, "ollama pull phi4"),
        ("http://localhost:11434", "ollama pull phi4"),
        ("http://127.0.0.1:11432", wording("ollama-host-127-0-0-1")),
        (REMOTE, "OLLAMA_HOST=gpu1:11432 ollama pull phi4"),
        ("https://gpu1/ollama", "OLLAMA_HOST=https://gpu1/ollama ollama pull phi4"),
        ("", wording("ollama-pull-phi4-on-its-machine")),
    ],
)
def test_model_is_pulled_where_it_is_missing(url: str, advice: str) -> None:
    assert how_to_get("phi4", url) == advice
    assert describe_shortage(MissingModel("phi4"), url) == wording("no-endpoint-has-the-model-phi4", advice)
    assert wording("pull-it-then-drop-retry-jsonl", advice) in model_missing("phi4", 1, url).message
