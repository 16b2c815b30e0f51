"""Metrics against the ledgers and the servers' account, over a reload and kill -9."""

from __future__ import annotations

import signal
from collections import Counter, defaultdict

import pytest

from obcd.coordinator.metering.counters import CountersView
from obcd.coordinator.view import View
from obcd.metrics.samples import samples
from tests.support import (
    NEVER_HEDGED,
    Cluster,
    CoordinatorProcess,
    Published,
    prompt_key,
    prompt_lines,
    prompts,
    wait_until,
)

pytestmark = pytest.mark.integration

SLOTS, SERVERS = 4, 2
KILLS = 3
#: Counters that do not begin again with a coordinator.
GOING_ON = ("obcd_requests_finished_total", "obcd_tokens_total", "obcd_jobs_finished_total", "obcd_cache_hits_total")
Values = dict[str, float]


class Prometheus:
    """Adds up what counters grow by, as Prometheus does: after a lower value, all of it counts."""

    def __init__(self) -> None:
        self.last: Values = {}
        self.increase: dict[str, float] = defaultdict(float)
        self.resets = 0

    def scrape(self, coordinator: CoordinatorProcess) -> Values:
        """Take the values that a coordinator shows, or showed last."""
        now = values(coordinator)
        for name, value in now.items():
            before = self.last.get(name, 0.0)
            self.resets += value < before
            self.increase[name] += value - before if value >= before else value
        self.last = now
        return now


def values(coordinator: CoordinatorProcess) -> Values:
    status = coordinator.status()
    if not status:
        return {}
    return {
        f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
        for family in samples(View.from_json(status))
        for sample in family.samples
        if sample.name in GOING_ON
    }


def counters(coordinator: CoordinatorProcess) -> CountersView:
    return View.from_json(coordinator.status()).counters


def expected(*jobs: Published) -> Values:
    """Return what the published results say; equal requests have been computed once."""
    responses = [item for job in jobs for item in job.responses]
    computed = [item for item in responses if "same_as" not in item]
    failures = Counter(
        item["error"]["class"] if "error" in item else item["class"] for job in jobs for item in job.errors
    )
    return {
        "obcd_requests_finished_total response": len(responses),
        **{f"obcd_requests_finished_total failure {kind}": count for kind, count in failures.items()},
        "obcd_tokens_total prompt": sum(item["prompt_tokens"] for item in computed),
        "obcd_tokens_total output": sum(item["eval_tokens"] for item in computed),
        "obcd_jobs_finished_total": len(jobs),
    }


def test_metrics_equal_the_results_over_reloads_and_kills(cluster: Cluster) -> None:
    servers = cluster.simulate("--seconds", 0.15, "--parallel", SLOTS, count=SERVERS)
    config = cluster.configure(dict.fromkeys(servers.names, SLOTS), requests={"attempts": 20}, dedupe=True)
    coordinator, prometheus = cluster.coordinate(config, tweaks=NEVER_HEDGED), Prometheus()
    texts = [*prompts(90, "long"), *prompts(6, "long")]  # six are equal to earlier ones
    coordinator.drop(prompt_lines(texts) + b'{"prompt": 3}\n' * 4, "long.jsonl")

    def show(count: int) -> None:
        wait_until(lambda: counters(coordinator).responses >= count, what=lambda: str(coordinator.status()))
        prometheus.scrape(coordinator)

    show(5)
    coordinator.send(signal.SIGHUP)
    wait_until(lambda: coordinator.status()["reloads"], what="a reload")
    for number in range(KILLS):
        coordinator.drop(prompts(3, f"short{number}"), f"short{number}.jsonl")
        show(15 * (number + 1))
        coordinator.kill()
        prometheus.scrape(coordinator)
        coordinator = cluster.coordinate(config, tweaks=NEVER_HEDGED)
        prometheus.scrape(coordinator)
    jobs = [coordinator.published(stem) for stem in ("long", *(f"short{number}" for number in range(KILLS)))]
    truth = expected(*jobs)
    wait_until(
        lambda: prometheus.scrape(coordinator)["obcd_jobs_finished_total"] == len(jobs), what="the last status is shown"
    )

    assert {name: prometheus.last.get(name, 0.0) for name in truth} == truth
    assert {name: prometheus.increase[name] for name in truth} == truth
    assert sum(prometheus.last[name] for name in prometheus.last if "finished_total " in name) == sum(
        value for name, value in truth.items() if "finished_total " in name
    )
    assert prometheus.resets == 0
    sent = len({prompt_key(text) for text in texts}) + 3 * KILLS
    assert 0 <= len(servers.account()) - sent <= KILLS * SERVERS * SLOTS


def test_restart_in_order_shows_no_lower_counters(cluster: Cluster) -> None:
    servers = cluster.simulate("--seconds", 0.02)
    config = cluster.configure(servers.names)
    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(5), "one.jsonl")
    coordinator.published("one")
    coordinator.send(signal.SIGTERM)
    assert coordinator.wait() == 0

    coordinator = cluster.coordinate(config)
    coordinator.drop(prompts(5, "again"), "two.jsonl")
    coordinator.published("two")

    wait_until(lambda: counters(coordinator).responses == 10, what=lambda: str(counters(coordinator)))
    assert counters(coordinator).jobs_finished == 2
