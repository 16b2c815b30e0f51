from __future__ import annotations

import configparser
import os
import shlex
from pathlib import Path

import pytest

from obcd.errors import ConfigurationError
from obcd.host.control.programs import server_programs, watch_listener
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.runtime import find_logs
from obcd.host.supervisord.configuration import EventListener, Program, render, write_configuration
from tests.golden.wording import wording

RUNTIME = Path("/run/x")


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def plan() -> HostPlan:
    servers = tuple(
        Server(label=label, pin=f"GPU-{label}", gpu=0, card="", memory_bytes=0, port=11432 + port, variables={})
        for port, label in enumerate(("0", "2.1"))
    )
    return HostPlan(
        bind="127.0.0.1", name="127.0.0.1", vendor="nvidia", ollama="/bin/ollama", parallel=16, servers=servers
    )


def test_servers_are_ended_with_their_group_and_given_up_for_the_watch_to_go_on() -> None:
    sections = parsed(render(server_programs(plan(), RUNTIME / "plan.json"), RUNTIME))
    server = sections["program:gpu2.1"]
    assert shlex.split(server["command"])[-6:] == [
        "serve-gpu", "2.1", "--plan", "/run/x/plan.json", "--parent", str(os.getpid()),
    ]  # fmt: skip
    wanted = {"autorestart": "true", "startsecs": "5", "startretries": "10", "stopsignal": "TERM", "stopwaitsecs": "20",
              "stopasgroup": "true", "killasgroup": "true"}  # fmt: skip
    assert {key: server[key] for key in wanted} == wanted


def test_the_watch_hears_ticks_and_its_log_is_not_the_protocol() -> None:
    sections = parsed(render([], RUNTIME, [watch_listener(RUNTIME, is_journal=True)]))
    watch = sections["eventlistener:watch"]
    assert set(watch["events"].split(",")) == {"TICK_5", "PROCESS_STATE", "SUPERVISOR_STATE_CHANGE_STOPPING"}
    assert (watch["buffer_size"], watch["startretries"], watch["stdout_logfile"]) == ("100", "1000000", "NONE")
    assert watch["stderr_logfile"] == "/run/x/logs/watch.log"
    assert "--journal" in shlex.split(watch["command"])


def test_programs_of_other_commands_are_as_they_were() -> None:
    section = parsed(render([Program(name="coordinator", command=("obcd",))], RUNTIME))["program:coordinator"]
    assert (section["startsecs"], section["startretries"], section["stopasgroup"]) == ("2", "1000000", "false")


@pytest.mark.parametrize(("is_silent", "word"), [(True, "true"), (False, "false")])
def test_supervisord_speaks_only_where_it_is_asked_to(is_silent: bool, word: str) -> None:
    assert parsed(render([], RUNTIME, is_silent=is_silent))["supervisord"]["silent"] == word


def test_what_the_file_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="without special characters"):
        render([], RUNTIME, [EventListener(name="watch", command=('say "x"',), events=("TICK_5",))])


@pytest.mark.parametrize("word", ["a ; b", "a #b", "a\t;b", 'a"b', "a\nb", "a\rb", "\udcff"])
def test_a_value_that_would_end_early_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError, match=wording("cannot-stand-in-supervisor-s-configuration")):
        render([Program(name="x", command=("obcd",), environment={"A": word})], RUNTIME)


def test_a_program_has_its_priority_and_its_environment_with_percent_signs_doubled() -> None:
    program = Program(name="x", command=("obcd",), priority=200, environment={"A": "1 %", "B": "2"})
    section = parsed(render([program], RUNTIME))["program:x"]
    assert (section["priority"], section["environment"]) == ("200", 'A="1 %%",B="2"')
    assert section["killasgroup"] == "true"


def test_programs_start_at_once_by_a_plugin_and_only_their_user_speaks_to_supervisord() -> None:
    sections = parsed(render([], RUNTIME))
    assert (
        sections["rpcinterface:obcd"]["supervisor.rpcinterface_factory"]
        == "obcd.host.supervisord.parallel_start:make_interface"
    )
    assert sections["unix_http_server"]["chmod"] == "0700"


def test_the_configuration_is_its_user_s_alone_and_the_logs_are_linked_anew_each_time(tmp_path: Path) -> None:
    write_configuration([], tmp_path, tmp_path / "first")
    path = write_configuration([], tmp_path, tmp_path / "second")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "logs").readlink() == tmp_path / "second"
    assert (tmp_path / "second").is_dir()


def test_logs_go_where_systemd_says_else_to_the_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/obcd:/var/log/other")
    assert find_logs(RUNTIME) == Path("/var/log/obcd")
    monkeypatch.delenv("LOGS_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/a/.state")
    assert find_logs(Path("/run/user/1/obcd-host")) == Path("/home/a/.state/obcd/obcd-host")
