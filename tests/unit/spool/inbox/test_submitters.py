from __future__ import annotations

import os
import pwd

import pytest

from obcd.spool.inbox.markers import Marker
from obcd.spool.inbox.submitters import Submitter, find_api_user, find_submitter

API = 61009
#: A user of this machine who is neither root nor this process.
SOMEBODY = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
DAEMON = pwd.getpwuid(os.geteuid()).pw_name


def test_api_drops_for_a_user_of_this_machine() -> None:
    marker = Marker(submitter=SOMEBODY.pw_name)

    assert find_submitter(API, marker, API) == Submitter(SOMEBODY.pw_uid, API)


@pytest.mark.parametrize("api", [None, API])
@pytest.mark.parametrize("name", ["root", SOMEBODY.pw_name, DAEMON, "nobody-of-this-name"])
def test_nobody_else_drops_for_others(api: int | None, name: str) -> None:
    assert find_submitter(4711, Marker(submitter=name), api) == Submitter(4711)


@pytest.mark.parametrize("name", ["root", DAEMON, "nobody-of-this-name", "0", "a\0b", "x" * 256])
def test_api_drops_for_no_user_with_more_rights_and_for_nobody_unknown(name: str) -> None:
    with pytest.raises(ValueError, match="submitter"):
        find_submitter(API, Marker(submitter=name), API)


def test_api_may_drop_for_itself() -> None:
    assert find_submitter(API, None, API) == find_submitter(API, Marker(), API) == Submitter(API)
    marker = Marker(submitter=SOMEBODY.pw_name)
    assert find_submitter(SOMEBODY.pw_uid, marker, SOMEBODY.pw_uid) == Submitter(SOMEBODY.pw_uid)


@pytest.mark.parametrize("name", ["root", DAEMON, "nobody-of-this-name"])
def test_root_and_the_daemon_are_no_api(name: str) -> None:
    assert find_api_user(name) is None
    assert find_api_user(SOMEBODY.pw_name) == SOMEBODY.pw_uid
