"""What `obcd check` says of `[api]`."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from obcd.api.checking import examine_api
from obcd.api.place import ApiPlace
from obcd.api.token_file import make_token, write_entries
from obcd.config.settings import Settings
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout

OTHERS = [user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid())][:2]
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.at(tmp_path / "root")
    made.create([])
    return made


def examine(layout: Layout, **keys: Any) -> list[tuple[str, str]]:
    settings = Settings.model_validate({"api": {"enabled": True, **keys}})
    return [(item.severity.value, item.sentence) for item in examine_api(settings, layout)]


def give(layout: Layout, users: list[str], owner: int, **keys: Any) -> Path:
    settings = Settings.model_validate({"api": {"enabled": True, **keys}})
    place = ApiPlace.of(settings, layout)
    place.give_folder(owner)
    write_entries(place.tokens_file, [make_token(user, 0.0)[1] for user in users], owner)
    return place.tokens_file


def test_nothing_is_said_while_it_is_off(layout: Layout) -> None:
    assert list(examine_api(Settings(), layout)) == []


def test_an_inbox_that_is_not_there_yet_is_said(tmp_path: Path) -> None:
    ((severity, sentence),) = examine(Layout.at(tmp_path / "none"))

    assert (severity, "start the coordinator" in sentence) == ("warning", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders to another user")
def test_user_folders_and_tokens_are_judged(layout: Layout) -> None:
    api, ann = OTHERS
    os.chown(layout.inbox, 54321, -1)  # the coordinator's user is nobody of these
    unknown = examine(layout, user="no-such-user")
    assert [severity for severity, _ in unknown] == ["fault"]
    closed = examine(layout, user=api.pw_name)
    assert [severity for severity, _ in closed] == ["fault", "fault", "warning"]

    for folder, permissions in {layout.root: 1, layout.outbox: 1, layout.inbox: 3}.items():
        assert acl.admit(folder, api.pw_uid, permissions)
    tokens = give(layout, [ann.pw_name], api.pw_uid, user=api.pw_name)
    assert examine(layout, user=api.pw_name) == [("ok", "1 token of 1 user")]

    tokens.chmod(0o644)
    ((severity, sentence),) = examine(layout, user=api.pw_name)
    assert (severity, str(tokens) in sentence) == ("fault", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
def test_tokens_that_are_refused_are_named(layout: Layout) -> None:
    api, ann = OTHERS
    os.chown(layout.inbox, 54321, -1)
    for folder, permissions in {layout.root: 1, layout.outbox: 1, layout.inbox: 3}.items():
        acl.admit(folder, api.pw_uid, permissions)

    give(layout, ["gone", "root", ann.pw_name], api.pw_uid, user=api.pw_name)

    found = examine(layout, user=api.pw_name)
    assert [severity for severity, _ in found] == ["warning"] * 2
    assert [sentence.split()[3] for _, sentence in found] == ["gone", "root"]


def test_the_daemons_own_user_may_serve_itself_alone(layout: Layout) -> None:
    give(layout, [ME], os.geteuid())
    assert examine(layout) == [("ok", "1 token of 1 user")]

    give(layout, [ME, OTHERS[0].pw_name], os.geteuid())
    ((severity, sentence),) = examine(layout)
    assert (severity, OTHERS[0].pw_name in sentence) == ("warning", True)
