"""`obcd bench` and `obcd burn-in` against simulated servers of known slots, speeds and faults."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from obcd.benchmark.burn_in_verdict import Evidence
from tests.golden.wording import wording
from tests.support import Cluster, prompt_key, prompt_lines, run_here, run_obcd, wait_until

pytestmark = pytest.mark.acceptance

#: Simulated servers quick enough for a test, and slow enough for what asks them not to be measured.
QUICK = ("--tokens-per-second", 640)
Done = subprocess.CompletedProcess[str]


def measure(environment: dict[str, str], command: str, *arguments: object) -> dict[str, Any]:
    """Run with --json; return what it printed, with its exit code."""
    done = run_obcd(environment, command, "--json", *arguments, timeout=110)
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return {**document, "code": done.returncode, "said": done.stderr}


def odd_ones(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(item["endpoint"], item["evidence"]) for item in document["odd"]}


# --- bench -----------------------------------------------------------------------------------------------------------


@pytest.mark.soak  # it measures
def test_knee_is_found_within_one_step_of_the_true_slots(tmp_path: Path, cluster: Cluster) -> None:
    truth = {cluster.simulate("--parallel", slots, *QUICK).names[0]: slots for slots in (4, 8, 16)}
    folder = tmp_path / "new" / "folder"

    found = measure(cluster.environment, "bench", *truth, "--out", folder)

    assert found["code"] == 0
    for item in found["endpoints"]:
        slots = truth[item["endpoint"]]
        assert item["advice"]["knee"] in {slots // 2, slots, 2 * slots}
        assert abs(item["advice"]["server_slots"] - slots) <= 1
        assert item["advice"]["limit"] == "slots"
        steps = {step["in_flight"]: step for step in item["steps"]}
        assert steps[1]["wait_seconds"] < 0.05
        assert steps[2 * slots]["wait_seconds"] > steps[slots]["wait_seconds"] + 0.05
        assert steps[4]["speedup"] > 2
    written, picture = sorted(folder.iterdir())
    assert json.loads(written.read_bytes())["endpoints"] == found["endpoints"]
    assert "stand-in" in picture.read_text("utf-8")
    ET.parse(picture)


@pytest.mark.soak  # it measures
def test_endpoint_that_is_three_times_slower_is_named(cluster: Cluster) -> None:
    alike = cluster.simulate("--parallel", 4, *QUICK, count=3)
    (slow,) = cluster.simulate("--parallel", 4, "--tokens-per-second", 213).names
    config = cluster.configure([*alike.names, slow])

    done = run_obcd(cluster.environment, "bench", "--config", config, "--slots", "1,4", "--requests", 8)

    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "out of line" in line]
    assert re.match(wording("out-of-line-2-4", slow), line)
    assert wording("stand-in-servers-answer-0-33") in done.stderr
    lines = done.stdout[done.stdout.index("[ollama_instances]") :]
    assert set(tomllib.loads(lines)["ollama_instances"]) == {*alike.names, slow}


@pytest.mark.soak  # it measures
def test_server_of_one_slot_is_recognised(cluster: Cluster) -> None:
    (name,) = cluster.simulate("--parallel", 1, "--tokens-per-second", 160).names  # what asks it takes no tenth of that

    done = run_obcd(cluster.environment, "bench", name, "--requests", 3)

    assert done.returncode == 0
    assert wording("knee-at-1-in-flight-it", name) in done.stdout
    assert f'"{name}" = {{gpu = 0, slots = 1}}' in done.stdout
    assert wording("none-can-be-called-out-of") in done.stdout
    assert f"{name}  " in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(f"{name}  ")]
    assert [row[1] for row in rows] == ["1", "2", "4"]  # two steps in vain end it


def test_own_prompts_are_asked_in_turn_with_the_configuration(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, *QUICK)
    texts = ["first", "second", "third"]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(prompt_lines(texts) + b"nonsense\n" + b'{"prompt": "fourth", "model": "another"}\n')
    config = cluster.configure(server.names)

    found = measure(
        cluster.environment, "bench", "--config", config, "--prompts", prompts, "--slots", "2", "--requests", 4
    )

    assert found["code"] == 0
    assert "line 4: not JSON" in found["said"]
    assert (found["prompts"], found["num_predict"]) == ("prompts.jsonl", 2048)
    assert set(server.asked()) == {prompt_key(text) for text in [*texts, "fourth"]}


def test_step_lasts_as_long_as_it_is_told(cluster: Cluster) -> None:
    (name,) = cluster.simulate("--parallel", 4, *QUICK).names

    found = measure(cluster.environment, "bench", name, "--slots", "4", "--seconds", 1.5)

    (step,) = found["endpoints"][0]["steps"]
    assert step["requests"] / step["requests_per_second"] > 1.1


def test_endpoint_that_breaks_down_is_told_with_what_was_measured(cluster: Cluster) -> None:
    good = cluster.simulate(*QUICK).names[0]
    bad = cluster.simulate(*QUICK, "--fault", "status=500=1").names[0]

    found = measure(cluster.environment, "bench", good, bad, "--slots", "1", "--requests", 3)

    assert found["code"] == 3
    assert [bool(item["steps"]) for item in found["endpoints"]] == [True, False]
    assert wording("the-server-reports-an-error") in found["endpoints"][1]["failure"]


def test_ctrl_c_shows_what_was_measured_and_leaves_nothing_behind(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.2)
    bench = cluster.begin("bench", server.names[0], "--slots", "2,4", "--requests", 40, "--out", tmp_path / "out")
    wait_until(lambda: ": 2 in flight, " in bench.text())  # the second step has begun

    bench.send(signal.SIGINT)

    assert bench.wait() == 130
    assert "Traceback" not in bench.text()
    assert wording("interrupted-this-is-what-was-measured") in bench.text()
    assert wording("knee-at-2-in-flight", server.names[0]) in bench.text()
    assert len(list((tmp_path / "out").glob("bench-*.json"))) == 1
    wait_until(lambda: server.in_flight() == 0)


def test_coordinator_that_asks_meanwhile_is_warned_of(cluster: Cluster) -> None:
    server = cluster.simulate(*QUICK)
    config = cluster.configure(server.names)
    coordinator = cluster.coordinate(config)

    place = {"OBCD_ROOT": str(coordinator.root)}
    words = ("bench", "--config", config, "--slots", 1, "--requests", 2)
    done = run_obcd({**cluster.environment, **place}, *words)

    assert done.returncode == 0
    assert wording("warning-a-coordinator-runs-here") in done.stderr


# --- burn-in ---------------------------------------------------------------------------------------------------------


def test_cards_that_are_alike_pass(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, *QUICK, count=3)
    config = cluster.configure(dict.fromkeys(server.names, 3))

    done = run_obcd(cluster.environment, "burn-in", "--config", config, "--seconds", 3)

    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("all alike\n")
    assert wording("stand-in-servers-answer-0-33") in done.stderr
    assert max(server.asked().values()) > 3  # few prompts, again and again


def test_card_that_answers_wrongly_now_and_then_is_named(cluster: Cluster) -> None:
    alike = cluster.simulate("--parallel", 4, *QUICK, count=3).names
    (bad,) = cluster.simulate("--parallel", 4, *QUICK, "--fault", "garbled=0.15").names

    found = measure(cluster.environment, "burn-in", "--seconds", 4, *alike, bad)

    assert found["code"] == 3
    # speeds are not looked at: a machine that has other work stutters
    assert {odd for odd in odd_ones(found) if odd[1] in ("answers", "unsteady")} == {
        (bad, "answers"),
        (bad, "unsteady"),
    }
    rates = {item["endpoint"]: item["differing_rate"] for item in found["endpoints"]}
    assert [rates[name] for name in alike] == [0.0, 0.0, 0.0]
    assert 0.05 < rates[bad] < 0.3


@pytest.mark.soak  # it measures
def test_card_that_is_slow_and_card_that_fails_are_named_apart(cluster: Cluster) -> None:
    quick = ("--parallel", 4, "--tokens-per-second", 213)  # six of them ask for little of the machine
    alike = cluster.simulate(*quick, count=4).names
    (slow,) = cluster.simulate("--parallel", 4, "--tokens-per-second", 71).names
    (failing,) = cluster.simulate(*quick, "--fault", "status=500=0.15").names

    done = run_obcd(cluster.environment, "burn-in", "--seconds", 6, *alike, slow, failing)

    assert done.returncode == 3
    named = [line for line in done.stdout.splitlines() if ": speed: " in line or ": errors: " in line]
    assert any(line.startswith(wording("speed-it-runs-at", slow)) for line in named)
    assert any(
        line.startswith(f"{failing}: errors: ") and wording("the-server-reports-an-error") in line for line in named
    )
    assert not [line for line in named if line.startswith(tuple(f"{name}:" for name in alike))]


def test_one_endpoint_and_two_are_told_what_cannot_be_told(cluster: Cluster) -> None:
    names = cluster.simulate("--parallel", 2, *QUICK, count=2).names

    one = run_obcd(cluster.environment, "burn-in", "--minutes", 0.02, names[0])
    two = run_obcd(cluster.environment, "burn-in", "--minutes", 0.02, *names, "--slots", 2)

    for done in (one, two):  # on a busy machine an endpoint may stand out, which is code 3 and is said
        found = [kind for kind in Evidence if f": {kind}: " in done.stdout]
        assert done.returncode == (3 if found else 0), done.stdout
    assert wording("one-endpoint-can-only-be-held") in one.stdout
    assert wording("two-endpoints-can-be-told-apart") in two.stdout


def test_ctrl_c_ends_a_burn_in_with_what_was_measured(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.1, count=3)
    run = cluster.begin("burn-in", "--minutes", 9, *server.names)
    wait_until(lambda: len(server.account()) > 20)

    run.send(signal.SIGINT)

    assert run.wait() == 130
    assert "Traceback" not in run.text()
    assert "interrupted after" in run.text()
    assert "all alike" in run.text() or wording("of-the-usual-speed") in run.text()  # so early, one may not have begun
    wait_until(lambda: server.in_flight() == 0)


# --- what cannot be done ---------------------------------------------------------------------------------------------

BURN = ("burn-in", "--seconds", 1)


@pytest.mark.parametrize("command", [("bench",), BURN])
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["gpu1:none"], 2, wording("gpu1-none-is-no-endpoint-its")),
        (["127.0.0.1:9", "http://127.0.0.1:9"], 2, wording("is-named-twice")),
        (["127.0.0.1:9"], 6, wording("127-0-0-1-9-connection")),
        (["--prompts", "/none.jsonl", "127.0.0.1:9"], 5, "cannot read /none.jsonl"),
        (["--config", "/none.toml"], 4, wording("no-configuration-at-none-toml")),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    environment: dict[str, str], command: tuple[object, ...], arguments: list[str], code: int, sentence: str
) -> None:
    done = run_here(environment, *command, *arguments)

    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_folder_that_cannot_be_made_is_said_before_anything_is_measured(environment: dict[str, str]) -> None:
    done = run_here(environment, "bench", "127.0.0.1:9", "--out", "/dev/null/folder")

    assert done.returncode == 5
    assert done.stderr == wording("obcd-cannot-make-the-folder-dev")


@pytest.mark.parametrize("command", [("bench", "--slots", "1", "--requests", 2), BURN])
def test_model_that_is_missing_is_exit_code_six_and_where_only_some_lack_it_three(
    cluster: Cluster, command: tuple[object, ...]
) -> None:
    having, lacking = cluster.simulate(*QUICK).names[0], cluster.simulate("--models", "another").names[0]

    none = run_obcd(cluster.environment, *command, lacking)
    some = run_obcd(cluster.environment, *command, having, lacking, "--json")

    assert none.returncode == 6
    assert wording("it-has-no-model-llama3-2", lacking, lacking) in none.stderr
    assert some.returncode == 3
    assert list(json.loads(some.stdout)["left_out"]) == [lacking]


def test_more_connections_than_a_process_can_hold_are_refused_before_anything_is_asked(cluster: Cluster) -> None:
    server = cluster.simulate(*QUICK, count=5)

    done = run_obcd(cluster.environment, "bench", *server.names, "--slots", 1024)

    assert done.returncode == 2
    assert wording("5120-requests-in-flight-from-one") in done.stderr
    assert server.account() == []


def test_burn_in_asks_own_prompts_without_chance(tmp_path: Path, cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, *QUICK, count=3)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(prompt_lines(["first", "second"]))

    found = measure(cluster.environment, *BURN, *server.names, "--prompts", prompts)

    assert found["code"] == 0
    assert set(server.asked()) == {prompt_key("first"), prompt_key("second")}


def test_prompts_that_would_load_the_model_anew_each_time_are_refused(
    environment: dict[str, str], tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b", "options": {"num_ctx": 512}}\n', "utf-8")

    done = run_here(environment, "bench", "--prompts", prompts, "127.0.0.1:9")

    assert done.returncode == 5
    assert wording("make-ollama-load-its-model-anew") in done.stderr
