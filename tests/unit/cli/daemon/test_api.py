"""`obcd api token`, `tokens`, `revoke`; and who may run `obcd api`."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import pytest

from obcd.api.place import ApiPlace
from obcd.api.token_file import ApiUser, TokenFile
from obcd.cli.main import run
from obcd.config.settings import Settings
from obcd.config.tables import Api
from obcd.errors import ConfigurationError, ExitCode, InputError
from obcd.spool.folders.layout import Layout
from tests.faults.users import needs_root

ME = pwd.getpwuid(os.geteuid()).pw_name
#: The API's user, and one who may have a token.
API, ANN = pwd.getpwnam("games"), pwd.getpwnam("mail")


@pytest.fixture
def spool(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return the spool that the commands use; this process is its coordinator's user."""
    configure(tmp_path, "enabled = true")
    monkeypatch.setenv("OBCD_CONFIG", str(tmp_path / "obcd.toml"))
    monkeypatch.setenv("OBCD_ROOT", str(layout.root))
    return layout


def configure(folder: Path, *lines: str) -> None:
    (folder / "obcd.toml").write_text("\n".join(["[api]", *lines, ""]), "utf-8")


def made(capfd: pytest.CaptureFixture[str], user: str) -> str:
    assert run(["api", "token", user]) == ExitCode.DONE
    return capfd.readouterr().out.strip()


def test_token_is_printed_once_and_valid_until_it_is_revoked(spool: Layout, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = made(capfd, ME), made(capfd, ME)
    path = spool.root / "api" / "tokens"
    tokens = TokenFile(path, (), only=os.geteuid())
    assert tokens.find(first) == tokens.find(second) == ApiUser(ME, os.geteuid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    assert run(["api", "tokens"]) == ExitCode.DONE
    said = capfd.readouterr().out
    assert said.count(ME) == 2
    assert first not in said
    assert run(["api", "revoke", ME]) == ExitCode.DONE

    assert tokens.find(first) is tokens.find(second) is None
    assert run(["api", "revoke", ME]) == ExitCode.INPUT


@pytest.mark.parametrize("user", ["nobody-of-this-name", ANN.pw_name, "a\0b"])
def test_api_of_the_coordinators_user_is_for_that_user_alone(spool: Layout, user: str) -> None:
    assert run(["api", "token", user]) == ExitCode.INPUT
    assert not (spool.root / "api" / "tokens").exists()


def test_api_that_is_off_is_not_served(spool: Layout, tmp_path: Path) -> None:
    configure(tmp_path, "enabled = false")

    assert run(["api"]) == run(["api", "token", ME]) == ExitCode.CONFIGURATION


def test_spool_without_an_inbox_has_no_api(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        ApiPlace.of(Settings(api=Api(enabled=True)), Layout.at(tmp_path / "absent"))


@needs_root
def test_root_makes_tokens_for_the_apis_user_and_for_neither_root_nor_the_daemon(
    spool: Layout, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path, "enabled = true", f'user = "{API.pw_name}"')
    os.chown(spool.inbox, 61001, -1)  # the coordinator's user
    for above in (spool.root, *spool.root.parents):
        if not above.stat().st_mode & 0o001:  # pytest's own folders are closed
            above.chmod(0o755)

    token = made(capfd, ANN.pw_name)

    for path in (spool.root / "api", spool.root / "api" / "tokens"):
        assert path.stat().st_uid == API.pw_uid
    assert run(["api", "token", "root"]) == ExitCode.INPUT
    assert run(["api", "tokens"]) == ExitCode.DONE
    place = ApiPlace.of(Settings(api=Api(enabled=True, user=API.pw_name)), spool)
    assert place.daemon == 61001
    with pytest.raises(ConfigurationError):
        place.tokens()  # root itself does not serve
    assert TokenFile(place.tokens_file, (0, 61001)).trouble == ""
    assert token.startswith("obcd-")


@needs_root
def test_root_follows_no_link_of_the_apis_user(spool: Layout, tmp_path: Path) -> None:
    configure(tmp_path, "enabled = true", f'user = "{API.pw_name}"')
    os.chown(spool.inbox, 61001, -1)
    (spool.root / "api").symlink_to(tmp_path)

    assert run(["api", "token", ANN.pw_name]) == ExitCode.INPUT
    assert not (tmp_path / "tokens").exists()
    assert os.geteuid() == 0


def test_configuration_may_come_as_a_credential_of_systemd(
    spool: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OBCD_CONFIG")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert made(capfd, ME).startswith("obcd-")
