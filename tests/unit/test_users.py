from __future__ import annotations

import os
import pwd

import pytest

from obcd.users import find_user_name, group_name, user_name


def test_name_is_the_machines() -> None:
    assert user_name(os.getuid()) == find_user_name(os.getuid()) == pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("number", [3999999999, 2**40])
def test_who_has_no_name_goes_by_the_number(number: int) -> None:
    assert (find_user_name(number), user_name(number), group_name(number)) == ("", str(number), str(number))
