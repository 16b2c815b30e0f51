"""A wish crosses to the node with all that a server needs, and nothing that belongs to the keeper's machine."""

from __future__ import annotations

import json

from obcd.config.settings import Settings
from obcd.ray.messages import ServerReport, ServerWish

SETTINGS = Settings.model_validate({
    "host": {"gpus": [3], "name": "gpu1", "num_parallel": 7, "models": "/m", "environment": {"OLLAMA_DEBUG": "1"}},
    "requests": {"load_timeout_seconds": 77.0, "num_ctx": 4096},
})  # fmt: skip


def test_a_wish_is_read_back_with_the_settings_of_a_server() -> None:
    wish = ServerWish.from_json(json.loads(json.dumps(ServerWish.of(SETTINGS).to_json())))
    found = wish.settings()

    assert (found.host.num_parallel, found.host.models) == (7, "/m")
    assert found.host.environment == {"OLLAMA_DEBUG": "1"}
    assert (found.requests.load_timeout_seconds, found.requests.usual_context) == (77.0, 4096)
    assert (found.host.gpus, found.host.name) == ("all", None)


def test_servers_of_a_node_have_ports_from_the_base_port_on() -> None:
    assert ServerWish.of(SETTINGS).ports == "11432-11687"
    assert ServerWish.of(SETTINGS, "0").ports == "0"


def test_the_mark_follows_every_value() -> None:
    other = SETTINGS.model_copy(update={"host": SETTINGS.host.model_copy(update={"num_parallel": 8})})

    assert ServerWish.of(SETTINGS).mark == ServerWish.of(SETTINGS).mark
    assert len({ServerWish.of(SETTINGS).mark, ServerWish.of(other).mark, ServerWish.of(SETTINGS, "0").mark}) == 3


def test_a_report_of_an_older_version_is_read() -> None:
    assert ServerReport.from_json({}) == ServerReport()
