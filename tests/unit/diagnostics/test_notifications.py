"""What `obcd check` says of `[notify]`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from obcd.config.settings import Settings
from obcd.diagnostics.findings import Severity
from obcd.diagnostics.notifications import UNIT, examine_notifications

HOOK: dict[str, Any] = {"webhook": "https://hooks.example.org/x?key=1", "webhook_secret_file": "s"}


def examine(folder: Path, *, is_unit: bool = False, **keys: object) -> list[tuple[str, str]]:
    units = folder / "units"
    (units / "multi-user.target.wants").mkdir(parents=True, exist_ok=True)
    if is_unit:
        (units / "multi-user.target.wants" / UNIT).touch()
    found = examine_notifications(Settings.model_validate({"notify": keys}), units, folder / "postdrop")
    return [(item.severity.value, item.sentence) for item in found]


def program(path: Path, mode: int = 0o755) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return str(path)


def test_nothing_is_said_while_nothing_is_sent(tmp_path: Path) -> None:
    assert examine(tmp_path) == []
    assert examine(tmp_path, command=["gone"], events=[]) == []


def test_programs_that_are_there_are_right(tmp_path: Path) -> None:
    command, sendmail = program(tmp_path / "tell"), program(tmp_path / "sendmail")

    ((severity, _),) = examine(tmp_path, command=[command], mail_to=["ops"], sendmail=sendmail)
    assert severity == Severity.OK


@pytest.mark.parametrize("mode", [None, 0o644])
def test_program_that_cannot_be_started_is_a_fault(tmp_path: Path, mode: int | None) -> None:
    path = tmp_path / "tell"
    if mode is not None:
        program(path, mode)

    ((severity, sentence),) = examine(tmp_path, command=[str(path)])
    assert (severity, sentence.startswith("at notify.command: ")) == (Severity.FAULT, True)
    ((severity, sentence),) = examine(tmp_path, mail_to=["ops"], sendmail=str(path))
    assert (severity, sentence.startswith("at notify.sendmail: ")) == (Severity.FAULT, True)


def test_program_that_everybody_can_change_is_a_fault(tmp_path: Path) -> None:
    ((severity, _),) = examine(tmp_path, command=[program(tmp_path / "tell", 0o757)])

    assert severity == Severity.FAULT


def test_sendmail_that_needs_more_rights_is_a_warning_under_the_unit_alone(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"mail_to": ["ops"], "sendmail": program(tmp_path / "exim", 0o4755)}
    assert [severity for severity, _ in examine(tmp_path, **keys)] == [Severity.OK]
    assert [severity for severity, _ in examine(tmp_path, is_unit=True, **keys)] == [Severity.WARNING]

    keys["sendmail"] = program(tmp_path / "sendmail")
    assert [severity for severity, _ in examine(tmp_path, is_unit=True, **keys)] == [Severity.OK]
    program(tmp_path / "postdrop")  # Postfix's sendmail calls it
    assert [severity for severity, _ in examine(tmp_path, is_unit=True, **keys)] == [Severity.WARNING]


def test_receiver_outside_of_private_networks_needs_a_drop_in(tmp_path: Path) -> None:
    assert [severity for severity, _ in examine(tmp_path, **HOOK)] == [Severity.OK]
    ((severity, sentence),) = examine(tmp_path, is_unit=True, **HOOK)
    assert (severity, "key=1" in sentence) == (Severity.NOTE, False)
    for url in ("https://10.0.0.7/x", "http://127.0.0.1/x"):
        assert [severity for severity, _ in examine(tmp_path, is_unit=True, **HOOK | {"webhook": url})] == [Severity.OK]
