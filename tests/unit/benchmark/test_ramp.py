"""Ramps: how long their steps are, what becomes of them in JSON, in the configuration and as a picture."""

from __future__ import annotations

import json
import tomllib
import xml.etree.ElementTree as ET

import pytest

from obcd.benchmark.plot import draw_curves
from obcd.benchmark.ramp import Ramp, RampPlan, configuration_line, find_odd, report, speedup
from obcd.benchmark.samples import LoadStep
from obcd.config.endpoints import parse_endpoint
from obcd.config.settings import Settings
from tests.golden.wording import wording


def step(in_flight: int, speed: float) -> LoadStep:
    return LoadStep(
        in_flight=in_flight,
        requests=16,
        requests_per_second=speed / 100,
        tokens_per_second=speed,
        p50_seconds=1.0,
        p95_seconds=2.0,
        wait_seconds=0.0,
        busy_slots=in_flight,
    )


def ramp(name: str, *speeds: float, token_file: str | None = None, version: str = "0.33.0") -> Ramp:
    steps = [step(1 << power, speed) for power, speed in enumerate(speeds)]
    return Ramp(parse_endpoint(name, 3, 4), version=version, token_file=token_file, steps=steps)


def line_of(given: Ramp) -> str:
    assert given.advice is not None
    return configuration_line(given, given.advice)


def test_step_counts_whole_rounds_and_two_at_least() -> None:
    plan = RampPlan(steps=(1, 3, 32), requests=16)

    assert [plan.goal(in_flight) for in_flight in plan.steps] == [1 + 16, 3 + 18, 32 + 64]
    assert RampPlan(steps=(4,), seconds=9.0).goal(4) == 8


def test_line_can_be_put_into_the_configuration() -> None:
    found = ramp("https://gpu.example.org/ollama", 60, 110, 115, token_file="/etc/obcd/tokens/proxy")

    read = tomllib.loads("[ollama_instances]\n" + line_of(found))
    (endpoint,) = Settings.model_validate(read).endpoints()

    assert (endpoint.gpu, endpoint.slots, endpoint.url) == (3, 2, "https://gpu.example.org:443/ollama")
    assert read["ollama_instances"][endpoint.name]["token_file"] == "/etc/obcd/tokens/proxy"
    assert line_of(ramp("gpu1:11432", 60, 110, 115)) == '"gpu1:11432" = {gpu = 3, slots = 2}'


def test_slow_endpoint_is_out_of_line_among_three_and_not_among_two() -> None:
    slow, first, second = ramp("slow:1", 20, 30), ramp("a:1", 60, 90), ramp("b:1", 61, 92)

    assert find_odd([slow, first, second]) == {"slow:1": pytest.approx(1 / 3)}
    assert find_odd([slow, first]) == {}


def test_speedup_is_over_one_in_flight() -> None:
    found = ramp("a:1", 60, 90)

    assert speedup(found.steps, found.steps[1]) == pytest.approx(1.5)
    assert speedup([step(2, 90)], step(2, 90)) is None


def test_report_is_json_and_says_what_was_left_out() -> None:
    ramps = [ramp("a:1", 60, 110, 112, version="0.33.0-obcd-simulated"), Ramp(parse_endpoint("b:1", 0, 4))]

    document = json.loads(json.dumps(report(ramps, {"c:1": "refused"}, Settings().job_settings(), "", 0.0)))

    first, empty = document["endpoints"]
    assert document["stand_ins"] is True
    assert document["left_out"] == {"c:1": "refused"}
    assert [item["in_flight"] for item in first["steps"]] == [1, 2, 4]
    assert (first["advice"]["knee"], first["advice"]["limit"]) == (2, "card")
    assert first["line"] == '"a:1" = {gpu = 3, slots = 2}'
    assert (empty["steps"], empty["advice"], empty["line"]) == ([], None, None)


def test_picture_is_xml_with_a_line_and_a_marked_knee_for_each_endpoint() -> None:
    picture = draw_curves([ramp("a:1", 60, 110, 112), ramp("b:1", 50, 98, 180)], "llama3.2 <&>", "a remark")

    root = ET.fromstring(picture)
    space = {"svg": "http://www.w3.org/2000/svg"}
    texts = ["".join(item.itertext()) for item in root.iterfind(".//svg:text", space)]
    assert len(root.findall("svg:polyline", space)) == 2
    assert len([item for item in root.findall("svg:circle", space) if item.get("r") == "7"]) == 3
    assert {"llama3.2 <&>", "a remark", "tokens/s", wording("requests-in-flight"), "1", "2", "4"} <= set(texts)
    assert {"a:1: knee at 2", "b:1: knee at 4"} <= set(texts)


def test_picture_has_room_for_many_endpoints_and_for_none() -> None:
    many = draw_curves([ramp(f"gpu{number}:1", 60, 110) for number in range(28)], "t", "r")

    assert "and 10 more" in many
    ET.fromstring(many)
    ET.fromstring(draw_curves([], "t", "r"))
    ET.fromstring(draw_curves([ramp("a:1", 0.0)], "t", "r"))
