from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from obcd.cli.host import common
from obcd.cli.host.common import check_places, choose_servers, parse_gpus
from obcd.cli.host.endpoints import remarks, render
from obcd.cli.host.status import COLUMNS, blocks, head, row, table, telling_columns
from obcd.cli.host.status import remarks as status_remarks
from obcd.errors import AlreadyRunningError, InputError, ObcdError, UsageError
from obcd.host.control.pulling import check_name
from obcd.host.control.snapshot import ServerShown, Snapshot
from obcd.host.servers.plan import HostPlan, Server
from tests.golden.wording import wording


def make_plan(bind: str = "127.0.0.1", name: str = "127.0.0.1") -> HostPlan:
    servers = tuple(
        Server(label=str(n), pin=f"GPU-{n}", gpu=n, card="L4", memory_bytes=0, port=11432 + n, variables={})
        for n in range(2)
    )
    return HostPlan(bind=bind, name=name, vendor="nvidia", ollama="/bin/ollama", parallel=16, servers=servers)


def test_table_for_the_coordinator_says_that_the_servers_yield() -> None:
    table = tomllib.loads(render(replace(make_plan(), yields=True)))["ollama_instances"]

    assert [entry["yield"] for entry in table.values()] == [True] * len(table)


@pytest.mark.parametrize(
    ("text", "gpus"),
    [("all", "all"), ("given", "given"), ("0", 0), ("cpu", 0), ("4", [0, 1, 2, 3]), ("1", [0]), ("0,2", [0, 2]),
     ("2,", [2]), ("gpu2", [2]), ("gpu0, gpu3", [0, 3]), ("GPU-1a2b,MIG-3c", ["GPU-1a2b", "MIG-3c"])],
)  # fmt: skip
def test_gpus_are_a_number_of_cards_or_a_list(text: str, gpus: object) -> None:
    assert parse_gpus(text) == gpus


@pytest.mark.parametrize("text", ["", ",", "first", "-1", "0,0", "1e3", "99999999999999999999", "gpu", "0;1"])
def test_what_names_no_cards_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--gpus"):
        parse_gpus(text)


def test_a_server_is_named_by_number_program_or_uuid() -> None:
    plan = make_plan()
    assert [choose_servers(plan, name)[0].label for name in ("1", "gpu1", "GPU-1")] == ["1"] * 3
    assert len(choose_servers(plan, "all")) == 2
    with pytest.raises(UsageError, match="gpu0, gpu1"):
        choose_servers(plan, "7")


@pytest.mark.parametrize("name", ["gpu1", "10.0.0.5", "fd00::5", "[fd00::5]"])
def test_the_table_reads_back_as_the_coordinator_wants_it(name: str) -> None:
    table = tomllib.loads(render(make_plan("0.0.0.0", name)))["ollama_instances"]
    host = f"[{name.strip('[]')}]" if ":" in name else name
    assert table == {f"{host}:{11432 + n}": {"gpu": n, "slots": 16} for n in range(2)}


@pytest.mark.parametrize(
    ("bind", "is_said"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.5", False)]
)
def test_who_can_reach_the_servers_is_said_with_the_warning(bind: str, is_said: bool) -> None:
    text = "\n".join(remarks(make_plan(bind)))
    assert wording("ollama-has-no-authentication") in text
    assert ('bind = "10.0.0.5"' in text) is is_said
    assert (wording("reachable-from-this-machine-alone") in render(make_plan(bind))) is is_said


@pytest.mark.parametrize("name", ["llama3.2", "llama3.2:1b", "user/model:tag", "hf.co/bartowski/Llama-3.2-1B:Q4_K_M",
                                  "registry:5000/a/b:c", "https://hf.co/a/b"])  # fmt: skip
def test_names_of_models_pass(name: str) -> None:
    check_name(name)
    assert name


@pytest.mark.parametrize("name", ["", "-f", "a b", "../x", "a:b:c", "a\x1b[2J", "a" * 500, "llama3.2@sha256:ab", "/a"])
def test_what_is_no_name_of_a_model_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=wording("cannot-be-a-model-s-name")):
        check_name(name)


def shown(**changes: Any) -> ServerShown:
    server: ServerShown = {
        "gpu": "gpu0", "label": "0", "uuid": "GPU-0", "card": "L4", "port": 11432, "url": "", "state": "RUNNING",
        "pid": 7, "uptime_seconds": 61.0, "answer": "answers", "version": "0.33.0", "models": [], "reading": None,
        "xids": [], "restarts": 0, "restart_log": [], "alone_seconds": 0.0, "trouble": "", "remark": "",
    }  # fmt: skip
    return cast("ServerShown", {**server, **changes})


def test_what_is_not_known_is_a_dash() -> None:
    texts = row(shown(pid=0, state="FATAL", answer="", version=""))
    assert (texts["pid"], texts["up"], texts["answers"], texts["busy"], texts["models"]) == ("-",) * 5


def test_a_model_is_shown_with_its_context_and_its_share_on_the_card() -> None:
    model = {"name": "m:1", "size_bytes": 200, "vram_bytes": 100, "context_length": 8192}
    assert row(shown(models=[model]))["models"] == "m:1 8192 50 % GPU"


def rows_of_four() -> list[dict[str, str]]:
    """Return servers with everything that there is to show."""
    model = {"name": "llama3.2:latest", "size_bytes": 200, "vram_bytes": 200, "context_length": 8192}
    reading = {"memory_used_bytes": 70 * 2**30, "memory_total_bytes": 80 * 2**30, "utilisation_percent": 100,
               "temperature_celsius": 68, "power_watts": 312.0, "ecc_uncorrected": 0}  # fmt: skip
    return [
        row(shown(gpu=f"gpu{n}", port=11432 + n, pid=3141592, models=[model], reading=reading, card="NVIDIA H100 80GB"))
        for n in range(4)
    ]


@pytest.mark.parametrize(("width", "count"), [(50, 3), (80, 2), (120, 2), (160, 1)])
def test_a_terminal_gets_tables_that_fit_and_nothing_is_left_out(width: int, count: int) -> None:
    rows = rows_of_four()
    columns, version = telling_columns(rows)
    chosen = list(blocks(rows, columns, width))
    lines = [line for names in chosen for line in table(rows, names)]
    assert len(chosen) == count
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines] == ["gpu", "gpu0", "gpu1", "gpu2", "gpu3"] * count
    assert all(value in "\n".join(lines) + version for text in rows for value in text.values())


def test_a_column_too_wide_for_the_terminal_stands_alone() -> None:
    rows = rows_of_four()
    assert list(blocks(rows, ["gpu", "port", "models", "busy"], 20)) == [
        ["gpu", "port"], ["gpu", "models"], ["gpu", "busy"],
    ]  # fmt: skip


def test_what_is_known_of_no_server_and_what_all_share_are_no_columns() -> None:
    columns, words = telling_columns([row(shown()), row(shown(gpu="gpu1"))])
    assert columns == ["gpu", "port", "state", "pid", "up", "answers", "restarts", "models"]
    assert words == "ollama 0.33.0  L4"
    lost = row(shown(version="", reading={"is_lost": True}))
    columns, words = telling_columns([lost, row(shown(version="0.34.0"))])
    assert ({"version", "card"} <= set(columns), words) == (True, "")
    columns, words = telling_columns([row(shown(version="", card=""))])
    assert ({"version", "card"} & set(columns), words) == (set(), "")


def test_a_pipe_gets_every_column_and_a_head_that_repeats_no_trouble() -> None:
    title, *lines = table([row(shown())], COLUMNS)
    assert title.split() == list(COLUMNS)
    assert len(lines) == 1
    document = {"status": "1/2 servers answer; gpu1: its card is gone", "pid": 7, "runtime": "/run/obcd-host"}
    assert head(cast("Snapshot", document)) == wording("1-2-servers-answer-pid-7")


def test_troubles_throttling_xids_and_the_last_restart_are_lines_of_words() -> None:
    restart = {"seconds_ago": 5.0, "by": "watch", "reason": "its card is gone"}
    server = shown(trouble="its card is gone", alone_seconds=55.0, reading={"throttle": ["thermal"]}, xids=[79],
                   restart_log=[restart])  # fmt: skip
    strange = {"uuid": "", "code": 31, "at": "2026-11-22T18:00:00Z"}
    document = {"watch": {"trouble": "the watch is stuck"}, "servers": [server], "xids": [strange]}
    assert status_remarks(cast("Snapshot", document)) == [
        wording("the-watch-is-stuck"),
        wording("gpu0-its-card-is-gone"),
        wording("gpu0-slowed-down-by-thermal"),
        wording("gpu0-xid-79-reported-by-the"),
        wording("gpu0-left-alone-for-another-55"),
        wording("gpu0-last-restart-5-s-ago"),
        "Xid 31 of card unknown at 2026-11-22T18:00:00Z",
    ]


def test_only_where_no_port_is_free_the_host_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"gpu1": "port 11433 is held by process 812 (ollama)"}
    monkeypatch.setattr(common, "held_ports", lambda *_: held)
    assert check_places(make_plan(), Path("/run")) == [wording("gpu1-cannot-start-yet-port-11433")]
    held["gpu0"] = "port 11432 is held by process 812 (ollama)"
    with pytest.raises(AlreadyRunningError, match=wording("port-11433-is-held-by-process")):
        check_places(make_plan(), Path("/run"))


@pytest.mark.parametrize(("is_unit", "code"), [(False, 4), (True, 6)])
def test_a_wrong_address_is_a_mistake_and_for_the_unit_one_that_may_come_yet(
    monkeypatch: pytest.MonkeyPatch, is_unit: bool, code: int
) -> None:
    monkeypatch.setattr(common, "is_journal", lambda: is_unit)
    with pytest.raises(ObcdError, match=r"192\.0\.2\.77") as caught:
        check_places(make_plan("192.0.2.77"), Path("/run"))
    assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"LoadState": "not-found"}, None),
        ({"ActiveState": "failed", "SubState": "failed"}, wording("obcd-host-service-has-failed-journalctl")),
        (
            {"ActiveState": "activating", "SubState": "auto-restart"},
            wording("obcd-host-service-keeps-failing-journalctl"),
        ),
        (
            {"ActiveState": "activating", "SubState": "start", "NRestarts": "3"},
            wording("obcd-host-service-keeps-failing"),
        ),
        (
            {"ActiveState": "activating", "SubState": "start", "NRestarts": "0"},
            wording("obcd-host-service-is-just-starting"),
        ),
        ({"ActiveState": "inactive", "SubState": "dead"}, wording("sudo-systemctl-start-obcd-host-or")),
    ],
)
def test_of_a_unit_that_does_not_run_is_said_what_to_do(state: dict[str, str], words: str | None) -> None:
    found = common._unit_words({"LoadState": "loaded", **state})
    assert found == words or (found is not None and words is not None and found.startswith(words))


def test_a_table_of_names_says_that_they_must_resolve_in_short_lines() -> None:
    lines = "\n".join(remarks(make_plan("0.0.0.0", "vm"))).splitlines()
    assert any(wording("able-to-resolve-the-name-vm") in line for line in lines)
    assert any('[host] name = "10.0.0.5"' in line for line in lines)
    assert max(map(len, lines)) < 100
    assert not any("resolve" in line for line in remarks(make_plan("10.0.0.5", "10.0.0.5")))
