"""Metrics, alerts and dashboard before Prometheus's own programs: a real server scrapes a real run."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from obcd.coordinator.view import View
from obcd.metrics.samples import CONTENT_TYPE, exposition
from obcd.package_data import shared
from obcd.spool.folders import disk
from tests.integration.test_serve_gpu import free_ports
from tests.support import SOURCES, Cluster, CoordinatorProcess, Running, prompt_lines, prompts, wait_until
from tests.unit.metrics.test_samples import full_view
from tests.web.programs import find_program, find_promtool

pytestmark = pytest.mark.web

RULES = shared("prometheus/obcd.rules.yml")
DASHBOARD: dict[str, Any] = json.loads(shared("grafana/obcd.json").read_text("utf-8"))
#: A selector of a metric in an expression, with its matchers and its range.
SELECTOR = re.compile(r"\bobcd_[a-z_]+(?:\{[^}]*\})?(?:\[\w+\])?")
#: Seconds from one scrape to the next, and the range that stands for Grafana's.
SCRAPE, RANGE = 1, "20s"
CONFIGURATION = """\
global: {{scrape_interval: {scrape}s, evaluation_interval: {scrape}s}}
rule_files: [{rules}]
scrape_configs: [{{job_name: obcd, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]
"""


def promtool(*words: object, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [find_promtool(), *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("view", [None, full_view()], ids=["down", "up"])
def test_promtool_finds_nothing_to_say_about_the_metrics(view: View | None) -> None:
    done = promtool("check", "metrics", given=exposition(view))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_promtool_accepts_the_rules() -> None:
    done = promtool("check", "rules", RULES)

    assert done.returncode == 0, done.stderr


def test_each_alert_fires_when_it_should() -> None:
    done = promtool("test", "rules", SOURCES / "tests/web/obcd.rules.test.yml")

    assert done.returncode == 0, (done.stdout + done.stderr).decode()


# --- a real run ------------------------------------------------------------------------------------------------------


@contextmanager
def exporter(coordinator: CoordinatorProcess) -> Iterator[int]:
    """Serve a coordinator's metrics; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = coordinator.status()
            body = exposition(View.from_json(status) if status else None)
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Server:
    """A Prometheus that scrapes one exporter."""

    def __init__(self, program: str, folder: Path, exporter_port: int, environment: Mapping[str, str]) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        (folder / "prometheus.yml").write_text(
            CONFIGURATION.format(scrape=SCRAPE, rules=json.dumps(str(RULES)), port=exporter_port), "utf-8"
        )
        words = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder / 'tsdb'}")
        command = [program, f"--config.file={folder / 'prometheus.yml'}", *words]
        self.process = Running(command, environment, folder / "prometheus.log")
        wait_until(self.is_ready, what=self.process.text)

    def is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/-/ready", timeout=2).ok
        except requests.RequestException:
            return False

    def has_data(self, query: str) -> bool:
        found = requests.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10).json()
        assert found["status"] == "success", (query, found)
        return bool(found["data"]["result"])

    def rules(self) -> list[dict[str, Any]]:
        groups = requests.get(f"{self.url}/api/v1/rules", timeout=10).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


def queries() -> list[str]:
    """Return the queries of the dashboard, as Grafana sends them with "All", and the selectors of the rules."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    values = {"$__rate_interval": RANGE, "$instance": ".*", "$host": ".*"}
    for name, value in values.items():
        panels = [query.replace(name, value) for query in panels]
    return sorted({*panels, *SELECTOR.findall(RULES.read_text("utf-8").partition("groups:")[2])})


def write_cards(coordinator: CoordinatorProcess, joules: float) -> None:
    """Write what the watch of servers on this machine would write of one card."""
    reading = {
        "uuid": "GPU-1", "index": 0, "is_lost": False, "utilisation_percent": 90, "memory_used_bytes": 2**34,
        "memory_total_bytes": 2**36, "temperature_celsius": 61, "power_watts": 400.0, "energy_joules": joules,
    }  # fmt: skip
    document = {"updated": time.time(), "cards": {"GPU-1": reading}, "xid_counts": {"GPU-1": {"count": 1, "last": 79}}}
    runtime = next(Path(coordinator.environment["XDG_RUNTIME_DIR"]).glob("obcd-*/status.json")).parent
    disk.show_json(runtime / "watch.json", document, 0o600)


def test_every_query_has_data_from_a_real_run(cluster: Cluster, tmp_path: Path, started: list[Running]) -> None:
    program = find_program("prometheus", "OBCD_PROMETHEUS", "prometheus")
    servers = cluster.simulate("--seconds", 0.3, count=2)
    coordinator = cluster.coordinate(cluster.configure(servers.names))
    with exporter(coordinator) as port:
        prometheus = Server(program, tmp_path, port, coordinator.environment)
        started.append(prometheus.process)
        wait_until(lambda: prometheus.has_data("obcd_up == 1"), what="the first scrape")
        left, number, began = set(queries()), 0, time.monotonic()
        assert len(left) > 40
        while left and time.monotonic() < began + 60:
            number += 1
            busy = prompts(20, f"[[simulate:status=503*1]] busy {number}")
            coordinator.drop(prompt_lines([*prompts(20, f"n{number}"), *busy]) + b'{"prompt": 3}\n', f"n{number}.jsonl")
            write_cards(coordinator, 1e6 + 400 * (time.monotonic() - began))
            time.sleep(2.0)
            left = {query for query in left if not prometheus.has_data(query)}

        assert left == set(), coordinator.text()[-2000:]
        rules = prometheus.rules()
        assert {rule["health"] for rule in rules} == {"ok"}
        firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
        assert firing <= {
            "ObcdCardFault",
            "ObcdFailures",
        }  # the run has a fault of a card, and lines that are no prompts
