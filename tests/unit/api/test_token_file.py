from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from obcd.api.token_file import ApiUser, TokenEntry, TokenFile, digest_of, make_token, read_entries, write_entries

SOMEBODY = next(user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid()))
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def put(path: Path, *users: str) -> list[str]:
    """Write tokens of users, and return them."""
    made = [make_token(user, 1795888865.0) for user in users]
    write_entries(path, [entry for _, entry in made], os.geteuid())
    return [token for token, _ in made]


def test_token_is_its_users_and_only_its_digest_is_on_disk(path: Path) -> None:
    first, second = put(path, SOMEBODY.pw_name, SOMEBODY.pw_name)

    assert TokenFile(path, ()).find(first) == TokenFile(path, ()).find(second)
    assert TokenFile(path, ()).find(first) == ApiUser(SOMEBODY.pw_name, SOMEBODY.pw_uid)
    assert first.encode() not in path.read_bytes()
    assert digest_of(first).encode() in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.made for entry in read_entries(path)] == ["2026-11-28T18:01:05.000Z"] * 2


@pytest.mark.parametrize("given", ["", "obcd-", "x" * 5000, "\ud800", "\0", "é"])
def test_anything_else_is_nobodys(path: Path, given: str) -> None:
    (token,) = put(path, SOMEBODY.pw_name)

    tokens = TokenFile(path, ())

    assert tokens.find(given) is tokens.find(token[:-1]) is tokens.find(token + "x") is None
    assert tokens.find(digest_of(token)) is None, "the digest is no token"


def test_every_entry_is_compared_in_constant_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = put(path, *[SOMEBODY.pw_name] * 5)
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", compare)

    assert TokenFile(path, ()).find(first) is not None
    assert len(compared) == 5


def test_removed_token_is_refused_at_once(path: Path) -> None:
    first, second = put(path, SOMEBODY.pw_name, SOMEBODY.pw_name)
    tokens = TokenFile(path, ())
    assert tokens.find(first) is not None

    write_entries(path, [entry for entry in read_entries(path) if entry.digest != digest_of(first)], os.geteuid())

    assert tokens.find(first) is None
    assert tokens.find(second) is not None
    path.unlink()
    assert tokens.find(second) is None


def test_tokens_of_root_the_daemon_and_unknown_users_do_not_count(path: Path) -> None:
    root, unknown, somebody = put(path, "root", "nobody-of-this-name", SOMEBODY.pw_name)

    assert TokenFile(path, (0, 61001)).find(root) is None
    assert TokenFile(path, ()).find(unknown) is None
    assert TokenFile(path, (SOMEBODY.pw_uid,)).find(somebody) is None
    assert TokenFile(path, (), only=61001).find(somebody) is None
    assert TokenFile(path, (), only=SOMEBODY.pw_uid).find(somebody) is not None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_file_that_others_can_open_holds_no_valid_token(path: Path, mode: int) -> None:
    (token,) = put(path, SOMEBODY.pw_name)
    path.chmod(mode)

    tokens = TokenFile(path, ())

    assert tokens.find(token) is None
    assert "chmod 0600" in tokens.trouble


@pytest.mark.parametrize("content", ["not a token\n", f"{'0' * 64}\n", f"{'g' * 64} ann\n", f"{'0' * 63} ann\n"])
def test_damaged_file_is_named_with_its_line_and_not_quoted(path: Path, content: str) -> None:
    path.write_text(f"# tokens\n\n{content}")
    path.chmod(0o600)

    with pytest.raises(ValueError, match="line 3") as caught:
        read_entries(path)

    assert content.strip() not in str(caught.value)


def test_missing_file_holds_no_token(path: Path) -> None:
    assert read_entries(path) == ()
    assert TokenFile(path, ()).refresh() == 0


def test_entry_without_a_time_is_valid(path: Path) -> None:
    write_entries(path, [TokenEntry("0" * 64, ME)], os.geteuid())

    assert read_entries(path) == (TokenEntry("0" * 64, ME),)
