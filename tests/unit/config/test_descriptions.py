from __future__ import annotations

import pytest

from obcd.config.descriptions import KeyDescription, describe_key, parse_sample
from obcd.config.notify_tables import Notifications
from obcd.config.tables import Host, Instance, Profile, Requests, Spool
from obcd.config.values import Table

SAMPLE = """\
# The head of the file.

# --- First -----

# What it is, in
# two lines.
model = "a"
# Off; think = 3 words.
# think = false
# a = "prose". That begins like a key.
x = 1
y = 2

# --- Second -----

# A table:
#   a command
# and more.
[requests]
z = 0

# Said of the profiles.

# [profiles.clinical]
# model = "b"             # or another

[spool]
# root = "/x"       # where it lies
"""


def test_comments_are_read_with_the_keys_they_stand_above() -> None:
    assert list(parse_sample(SAMPLE)) == [
        KeyDescription("", ("model",), "What it is, in two lines."),
        KeyDescription("", ("think",), "Off; think = 3 words."),
        KeyDescription("", ("x", "y"), 'a = "prose". That begins like a key.'),
        KeyDescription("requests", (), "A table: \n    a command\nand more."),
        KeyDescription("profiles", (), "Said of the profiles."),
        KeyDescription("spool", ("root",), "where it lies"),
    ]


@pytest.mark.parametrize("table", [Instance, Requests, Host, Spool, Notifications, Profile])
def test_json_schema_describes_every_key(table: type[Table]) -> None:
    properties = table.model_json_schema(by_alias=True)["properties"]

    assert [key for key, item in properties.items() if not item.get("description")] == []


def test_key_of_a_profile_is_described_where_it_stands_first() -> None:
    assert describe_key("profiles", "num_ctx") == describe_key("requests", "num_ctx") != ""
    assert describe_key("profiles", "root") == ""
