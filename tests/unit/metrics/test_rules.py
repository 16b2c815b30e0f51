"""Alerts, dashboard and manual name the metrics that there are, and the sections that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from obcd.package_data import shared
from tests.support import SOURCES
from tests.unit.metrics.test_samples import families, full_view

#: A metric's name in an expression or a table, with what a histogram appends.
METRIC = re.compile(r"\bobcd_[a-z_]+\b")
OF_A_HISTOGRAM = re.compile(r"_(bucket|sum|count)$")
ALERT = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)
RUNBOOK = re.compile(r"^ +runbook_url: (\S+)#(\S+)$", re.MULTILINE)
PAGE = "etc/manual/monitoring.md"
RULES = shared("prometheus/obcd.rules.yml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads(shared("grafana/obcd.json").read_text("utf-8"))
MANUAL = shared("manual/monitoring.md").read_text("utf-8")


def exposed() -> set[str]:
    return {name for family in families(full_view()) for name in (family.name, f"{family.name}_total")}


def named(text: str) -> set[str]:
    return {OF_A_HISTOGRAM.sub("", name) for name in METRIC.findall(text)}


@pytest.mark.parametrize("text", [RULES, json.dumps(DASHBOARD)], ids=["alerts", "dashboard"])
def test_what_they_name_is_exposed(text: str) -> None:
    found = named(text)

    assert len(found) >= 8
    assert found <= exposed()


def test_manual_lists_every_metric() -> None:
    table = MANUAL.partition("## The metrics")[2]
    there = {family.name + ("_total" if family.type == "counter" else "") for family in families(full_view())}

    assert named(table) == there


def test_each_alert_has_its_section_in_the_manual_and_its_unit_test() -> None:
    alerts, runbooks = ALERT.findall(RULES), RUNBOOK.findall(RULES)
    tested = set(re.findall(r"alertname: (\w+)", (SOURCES / "tests/web/obcd.rules.test.yml").read_text("utf-8")))

    assert len(alerts) >= 8
    assert runbooks == [(PAGE, alert.lower()) for alert in alerts]
    assert re.findall(r"^### (\w+)$", MANUAL, re.MULTILINE) == alerts
    assert tested == set(alerts)


def test_dashboard_can_be_replaced_and_asks_only_its_variables() -> None:
    variables = [item["name"] for item in DASHBOARD["templating"]["list"]]
    used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(DASHBOARD["panels"]))) - {"__rate_interval"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]

    assert (DASHBOARD["uid"], variables) == ("obcd-cluster", ["datasource", "instance", "host"])
    assert used == set(variables)
    assert len(set(numbers)) == len(numbers)
    assert "id" not in DASHBOARD  # Grafana gives it: a fixed one would replace another dashboard
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "targets" in panel} == {"${datasource}"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_installed_files_are_named_where_they_lie() -> None:
    assert Path("/etc/obcd/prometheus.rules.yml").name in RULES
    assert all(path in MANUAL for path in ("/etc/obcd/prometheus.rules.yml", "/etc/obcd/grafana.json"))
