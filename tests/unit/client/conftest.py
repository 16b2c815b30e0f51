"""A spool whose daemon acts only when a test says so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obcd.core.answer.record_codec import to_ascii
from obcd.spool.folders.layout import Layout
from obcd.spool.job.job_folder import JobHeader
from tests.unit.spool.spools import accepted, answer, drop_of, failure, finish, make_layout, order_of, record

#: What a row is answered with: a text, a value that a form was requested for, or None for a failure.
Reply = Callable[[dict[str, Any]], Any]


def echo(line: dict[str, Any]) -> Any:
    return f"<{line.get('prompt')}>"


class StandInDaemon:
    """Does in one step each what coordinator and clerks do: accept what lies in the inbox, answer and publish it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.reply: Reply = echo
        self.sent: list[str] = []  # the prompts of all accepted lines
        self._numbers = itertools.count(1)

    def accept(self, **changes: Any) -> list[JobHeader]:
        headers = []
        for marker in sorted(self.layout.inbox.rglob("*.done")):
            file = marker.with_suffix("")
            if marker.parent.name.startswith("."):
                continue
            profile = "" if file.parent == self.layout.inbox else file.parent.name
            order = order_of(drop_of(file, profile), f"job{next(self._numbers)}", **changes)
            headers.append(accepted(self.layout, order))
        return headers

    def publish(self, header: JobHeader, reply: Reply = echo) -> Path:
        lines = [json.loads(line) for line in (self.layout.jobs / header.id / "input.jsonl").read_bytes().splitlines()]
        records = []
        for ordinal, line in enumerate(lines):
            if line.get("prompt") == "":  # accepted as a failure already
                continue
            self.sent.append(line.get("prompt", ""))
            said = reply(line)
            if said is None:
                records.append(failure(ordinal, "it broke"))
            elif isinstance(said, str):
                records.append(answer(ordinal, said))
            else:
                records.append(to_ascii({**json.loads(answer(ordinal, json.dumps(said))), "parsed": said}))
        record(self.layout, header.id, records)
        return finish(self.layout, header)

    def work(self, reply: Reply = echo, **changes: Any) -> list[Path]:
        """Accept, answer and publish everything."""
        return [self.publish(header, reply) for header in self.accept(**changes)]


@pytest.fixture
def daemon(stand_in_daemon: StandInDaemon) -> StandInDaemon:
    """Return the daemon of the spool at `OBCD_ROOT`."""
    return stand_in_daemon


@pytest.fixture
def stand_in_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInDaemon:
    """Return the daemon of the spool at `OBCD_ROOT`."""
    root = tmp_path / "root"
    for name, value in {"OBCD_ROOT": root, "XDG_STATE_HOME": tmp_path / "state", "XDG_CONFIG_HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("OBCD_CONFIG", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return StandInDaemon(make_layout(root, "clinical"))
