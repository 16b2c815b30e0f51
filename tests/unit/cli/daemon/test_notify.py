"""`obcd notify test`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.core.events import EventKind
from obcd.errors import ExitCode
from tests.receivers import given_to, receiving, write_program, write_secret

Capture = pytest.CaptureFixture[str]


def configure(folder: Path, text: str) -> str:
    path = folder / "obcd.toml"
    path.write_text(text)
    return str(path)


def test_a_test_is_sent_by_every_way_and_what_fails_is_named(tmp_path: Path, capsys: Capture) -> None:
    write_secret(tmp_path / "secret")
    program = write_program(tmp_path / "tell", tmp_path / "log")
    with receiving() as receiver:
        config = configure(
            tmp_path,
            f'[notify]\nwebhook = "{receiver.url}"\nwebhook_secret_file = "secret"\ncommand = ["{program}", "a"]\n'
            f'mail_to = ["ops"]\nsendmail = "/gone/sendmail"\nevents = ["disk.full"]\n',
        )
        code = run(["notify", "test", "--config", config, "--event", "job.failures"])

    assert code == ExitCode.PARTIAL
    said = capsys.readouterr().err
    assert "sent by the webhook at 127.0.0.1\n" in said
    assert "not sent by mail: sendmail cannot be started" in said
    ((words, given),) = given_to(tmp_path / "log")
    assert words == ["a"]
    assert json.loads(given) == receiver.received[0].message
    assert (json.loads(given)["type"], json.loads(given)["data"]["test"]) == (EventKind.FAILURES, True)


def test_it_uses_the_ways_of_a_profile(tmp_path: Path) -> None:
    one, two = (write_program(tmp_path / name, tmp_path / f"{name}.log") for name in ("one", "two"))
    config = configure(tmp_path, f'[notify]\ncommand = ["{one}"]\n[profiles.a.notify]\ncommand = ["{two}"]\n')

    assert run(["notify", "test", "--config", config, "--profile", "a"]) == ExitCode.DONE
    assert (given_to(tmp_path / "one.log"), len(given_to(tmp_path / "two.log"))) == ([], 1)


def test_where_nothing_can_be_sent_it_says_so(tmp_path: Path) -> None:
    config = configure(tmp_path, '[profiles.a]\nmodel = "m"\n')

    assert run(["notify", "test", "--config", config]) == ExitCode.CONFIGURATION
    assert run(["notify", "test", "--config", config, "--profile", "b"]) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "a test of notifications: nothing has happened"),
        (["--event", "disk.full"], "a test of the notification disk.full: nothing has happened"),
    ],
)
def test_test_says_what_it_is(options: list[str], text: str, tmp_path: Path) -> None:
    program = write_program(tmp_path / "tell", tmp_path / "log")
    config = configure(tmp_path, f'[notify]\ncommand = ["{program}"]\n')

    assert run(["notify", "test", "--config", config, *options]) == ExitCode.DONE

    ((_, given),) = given_to(tmp_path / "log")
    assert json.loads(given)["data"]["text"] == text
