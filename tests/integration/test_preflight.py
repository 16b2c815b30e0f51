"""Endpoints that differ: other weights under the same name, a lowered context, a model that is not on its card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.golden.wording import wording
from tests.support import (
    Cluster,
    CoordinatorProcess,
    Simulated,
    prompt_lines,
    prompts,
    run_here,
    run_obcd,
    wait_until,
    write_config,
)

pytestmark = pytest.mark.integration


#: Looks and probes come quickly.
QUICK = {
    "obcd.core.endpoint.signature_health:LOOK_BASE": 0.3, "obcd.core.endpoint.signature_health:LOOK_LIMIT": 0.6,
    "obcd.coordinator.endpoints.control_calls:PROBE_IDLE": 0.3,
    "obcd.core.scheduling.missing_models:MODEL_WAIT_SECONDS": 1.0,
}  # fmt: skip


def tell(server: Simulated, **behaviour: Any) -> None:
    """Have all servers of a process behave otherwise."""
    for url in server.urls:
        requests.put(f"{url}/simulated/behaviour", json=behaviour, timeout=10).raise_for_status()


def by_endpoint(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return `{endpoint: answers}`."""
    return {name: share["responses"] for name, share in manifest["endpoints"].items()}


def left_out(coordinator: CoordinatorProcess) -> dict[str, list[str]]:
    """Return `{endpoint: why}` of those that are left out of something, as the status has it."""
    return {item["name"]: item["left_out"] for item in coordinator.status()["endpoints"] if item["left_out"]}


# --- weights ---------------------------------------------------------------------------------------------------------


def test_job_is_answered_by_the_weights_with_the_most_slots_alone(cluster: Cluster) -> None:
    # given two servers with the same weights and one with others, which tells its models as early
    odd, usual = cluster.simulate("--weights", "old", "--seconds", 0.1), cluster.simulate("--seconds", 0.1, count=2)
    config = cluster.configure([*odd.names, *usual.names])
    coordinator = cluster.coordinate(config, tweaks=QUICK)

    # when
    coordinator.drop(prompts(60))

    # then the odd one out is named while the job runs, once in the log, and answers nothing
    wait_until(partial(left_out, coordinator), what="it is named")
    (why,) = left_out(coordinator)[odd.names[0]]
    assert why.startswith(wording("its-llama3-2-is-another-one"))
    shown = run_here(cluster.environment, "status", "--root", coordinator.root)
    assert wording("its-llama3-2-is-another-one-2") in shown.stdout
    done = coordinator.published()
    done.assert_complete(60)
    assert set(by_endpoint(done.manifest)) == set(usual.names)
    assert odd.account() == []
    assert coordinator.text().count(wording("is-another-one-digest")) == 1
    assert len(done.manifest["digests"]["llama3.2:latest"]) == 1
    assert "weights" not in done.responses[0]


def test_job_that_may_mix_weights_is_asked_everywhere(cluster: Cluster) -> None:
    odd, usual = cluster.simulate("--weights", "old", "--seconds", 0.05), cluster.simulate("--seconds", 0.05)
    profiles = {"any": {"digest": "any"}}
    config = cluster.configure([*odd.names, *usual.names], profiles=profiles)
    coordinator = cluster.coordinate(config)

    coordinator.drop(prompts(40), profile="any")

    done = coordinator.published("any/notes")
    done.assert_complete(40)
    assert set(by_endpoint(done.manifest)) == {*odd.names, *usual.names}


@pytest.mark.case("C21")
def test_job_stays_with_its_weights_over_a_crash_though_others_have_more_slots_by_then(
    tmp_path: Path, cluster: Cluster
) -> None:
    # given a job that was begun by the only endpoint there was
    first = cluster.simulate("--weights", "old", "--seconds", 0.2)
    path = tmp_path / "obcd.toml"
    coordinator = cluster.coordinate(write_config(path, first.names), tweaks=QUICK)
    coordinator.drop(prompts(30))
    wait_until(lambda: sum(item["done"] for item in coordinator.status()["jobs"]) >= 4, what="some are answered")
    coordinator.kill()

    # when it is taken up again beside endpoints with other weights and more slots
    others = cluster.simulate("--seconds", 0.01, count=2)
    coordinator = cluster.coordinate(write_config(path, [*others.names, *first.names]), tweaks=QUICK)

    # then these get nothing of it, and all of the next job
    done = coordinator.published()
    done.assert_complete(30)
    assert set(by_endpoint(done.manifest)) == set(first.names)
    assert others.account() == []
    coordinator.drop(prompts(20, "later"), "later.jsonl")
    assert set(by_endpoint(coordinator.published("later").manifest)) == set(others.names)


def test_job_whose_weights_are_gone_waits_and_fails_with_what_to_do(cluster: Cluster) -> None:
    # given a job under way
    server = cluster.simulate("--seconds", 0.1)
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=QUICK)
    coordinator.drop(prompts(60))
    wait_until(lambda: sum(item["done"] for item in coordinator.status()["jobs"]) >= 4, what="some are answered")

    # when somebody pulls a newer model under the same name
    tell(server, weights="new")

    # then that is told, and the rest can be dropped again
    wait_until(lambda: "that a job started with" in str(coordinator.status()["troubles"]), what="it is told")
    done = coordinator.published()
    done.assert_complete(60)
    assert done.responses
    assert {item["class"] for item in done.errors} == {"weights_missing"}
    assert wording("drop-retry-jsonl-to-have-the") in done.errors[0]["message"]
    assert all(item["attempts"] == 0 for item in done.errors)


def test_model_that_is_pulled_anew_answers_nothing_of_a_job_under_way_even_before_the_next_probe(
    cluster: Cluster,
) -> None:
    # given a job under way, and a coordinator that probes twice a minute
    server = cluster.simulate("--seconds", 0.2, "--load-seconds", 1, "--parallel", 2)
    tweaks = {"obcd.core.scheduling.missing_models:MODEL_WAIT_SECONDS": 1.0}
    coordinator = cluster.coordinate(cluster.configure(server.names), tweaks=tweaks)
    coordinator.drop(prompts(100))
    wait_until(lambda: len(server.account()) >= 8, what="some are answered")

    # when
    tell(server, weights="new")
    before = len(server.account())

    # then what was not asked by then has no answer
    done = coordinator.published()
    done.assert_complete(100)
    assert before - 2 <= len(done.responses) <= before + 2
    assert {item["class"] for item in done.errors} == {"weights_missing"}


def test_check_names_the_endpoint_with_another_digest(tmp_path: Path, cluster: Cluster) -> None:
    odd, usual = cluster.simulate("--weights", "old"), cluster.simulate(count=2)
    config = cluster.configure([*odd.names, *usual.names])

    found = run_obcd(cluster.environment, "check", "--config", config, "--root", tmp_path / "root")
    document = json.loads(
        run_obcd(cluster.environment, "check", "--config", config, "--root", tmp_path, "--json").stdout
    )

    line = next(line for line in found.stdout.splitlines() if line.startswith(f"endpoint {odd.names[0]}"))
    assert wording("its-llama3-2-is-another-one") in line
    assert found.stdout.count(wording("is-another-one")) == 1
    assert [bool(item["warnings"]) for item in document["endpoints"]] == [True, False, False]


# --- what is loaded --------------------------------------------------------------------------------------------------


def test_endpoint_that_lowers_the_context_is_named_left_out_and_taken_back(cluster: Cluster) -> None:
    # given one server whose card is too small for the context
    small, large = cluster.simulate("--most-context", 2048, "--seconds", 0.1), cluster.simulate("--seconds", 0.1)
    config = cluster.configure([*small.names, *large.names], requests={"attempts": 1})
    coordinator = cluster.coordinate(config, tweaks=QUICK)

    # when
    coordinator.drop(prompts(20))

    # then the other one answers all, and no request pays for it
    done = coordinator.published()
    done.assert_complete(20)
    assert by_endpoint(done.manifest) == {large.names[0]: 20}
    assert all(item["attempts"] == 1 for item in done.responses)
    (why,) = left_out(coordinator)[small.names[0]]
    assert why.startswith(wording("llama3-2-the-server-gave-it"))

    # when it has room again, then a later look finds that, and it is asked again
    tell(small, most_context=0)
    coordinator.drop(prompts(60, "more"), "more.jsonl")
    assert set(by_endpoint(coordinator.published("more").manifest)) == {*small.names, *large.names}
    assert left_out(coordinator) == {}


@pytest.mark.parametrize(
    ("lies", "words"), [("partial", wording("only-50-of-it-lies-on")), ("cpu", wording("on-the-cpu"))]
)
def test_model_off_its_card_is_not_asked_where_the_gpu_is_required(cluster: Cluster, lies: str, words: str) -> None:
    off, on = cluster.simulate("--size-vram", lies, "--seconds", 0.05), cluster.simulate("--seconds", 0.05)
    wishes = {"attempts": 1, "require_gpu": True}
    coordinator = cluster.coordinate(cluster.configure([*off.names, *on.names], requests=wishes), tweaks=QUICK)

    coordinator.drop(prompts(20))

    done = coordinator.published()
    done.assert_complete(20)
    assert by_endpoint(done.manifest) == {on.names[0]: 20}
    assert words in left_out(coordinator)[off.names[0]][0]


def test_job_waits_while_every_endpoint_is_off_its_card_and_goes_on_when_one_is_mended(cluster: Cluster) -> None:
    server = cluster.simulate("--size-vram", "cpu", "--seconds", 0.05)
    wishes = {"attempts": 1, "require_gpu": True}
    coordinator = cluster.coordinate(cluster.configure(server.names, requests=wishes), tweaks=QUICK)
    coordinator.drop(prompts(5))
    wait_until(lambda: "no endpoint serves llama3.2 as it should" in str(coordinator.status()["troubles"]))

    tell(server, size_vram="full")

    done = coordinator.published()
    done.assert_complete(5)
    assert done.errors == []
    assert server.account()
    assert coordinator.status()["troubles"] == []


def test_where_the_gpu_is_not_required_a_model_on_the_cpu_is_asked(cluster: Cluster) -> None:
    server = cluster.simulate("--size-vram", "cpu")
    coordinator = cluster.coordinate(cluster.configure(server.names))

    (coordinator.inbox / "notes.jsonl").write_bytes(prompt_lines(prompts(3)))

    coordinator.published().assert_complete(3)


# --- models that are missing -----------------------------------------------------------------------------------------


def test_missing_model_is_fetched_by_one_server_of_the_host_and_the_job_goes_on(cluster: Cluster) -> None:
    # given two servers of one host, with one folder of models that is empty
    servers = cluster.simulate("--models", "", "--pull-seconds", 2, count=2)
    config = cluster.configure(servers.names, requests={"pull": True})
    coordinator = cluster.coordinate(config, tweaks={**QUICK, "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.2})

    # when
    coordinator.drop(prompts(10))

    # then its progress is told, it waits longer than for a model that is not fetched, and all is answered
    wait_until(lambda: any(item["percent"] > 20 for item in coordinator.status()["pulls"]), what="it is fetched")
    assert [item["model"] for item in coordinator.status()["pulls"]] == ["llama3.2"]
    assert coordinator.status()["troubles"] == []
    done = coordinator.published()
    done.assert_complete(10)
    assert done.errors == []
    log = coordinator.text()
    assert [log.count(f": {tenth} %") for tenth in range(10, 101, 10)] == [1] * 10
    assert log.count(wording("llama3-2-is-there-fetched-by")) == 1


def test_model_that_only_a_line_names_is_not_fetched(cluster: Cluster) -> None:
    server = cluster.simulate()
    config = cluster.configure(server.names, requests={"pull": True})
    coordinator = cluster.coordinate(config, tweaks={**QUICK, "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.2})

    coordinator.drop(b'{"prompt": "one", "model": "evil.example.org/x/y"}\n{"prompt": "two"}\n')

    done = coordinator.published()
    assert [item["class"] for item in done.errors] == ["model_missing"]
    assert len(done.responses) == 1
    assert "fetched" not in coordinator.text()


def test_model_that_no_registry_knows_fails_its_lines_after_the_usual_wait(cluster: Cluster) -> None:
    server = cluster.simulate()
    config = cluster.configure(server.names, model="no-such", requests={"pull": True})
    coordinator = cluster.coordinate(config, tweaks={**QUICK, "obcd.coordinator.main_loop:HOUSEKEEPING_SECONDS": 0.2})

    coordinator.drop(prompts(2))

    done = coordinator.published()
    assert [item["class"] for item in done.errors] == ["model_missing"] * 2
    assert wording("no-such-could-not-be-fetched") in coordinator.text()
    assert wording("file-does-not-exist") in coordinator.text()
