"""`[notify]`: what it may hold, what a profile changes, and its secrets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import pytest

from obcd.config.loading import load_settings
from obcd.config.notify_tables import Events
from obcd.config.notify_values import NotifyWays, checked_recipient, checked_webhook
from obcd.config.settings import Settings
from obcd.config.tokens import with_webhook_secrets
from obcd.config.writing import with_endpoints
from obcd.coordinator.endpoints.changes import compare, describe
from obcd.core.events import EventKind
from obcd.errors import ConfigurationError
from obcd.secret import Secret
from tests.golden.wording import wording

SECRET = "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="
OTHER = "whsec_" + "ab" * 16
WEBHOOK = 'webhook = "https://hooks.example.org/a?b=c"\nwebhook_secret_file = "secret"\n'


def load(folder: Path, text: str, secret: str = SECRET, mode: int = 0o600) -> Settings:
    (folder / "obcd.toml").write_text(text)
    (folder / "secret").write_text(f"{secret}\n")
    (folder / "secret").chmod(mode)
    return load_settings(folder / "obcd.toml")


def fault(folder: Path, text: str, secret: str = SECRET, mode: int = 0o600) -> str:
    with pytest.raises(ConfigurationError) as caught:
        with_webhook_secrets(load(folder, text, secret, mode))
    assert secret not in str(caught.value)
    return str(caught.value)


def test_nothing_is_sent_by_default() -> None:
    assert [ways.is_used for ways in Settings().notify_plan().values()] == [False]


def test_the_configuration_can_choose_every_kind_except_the_test() -> None:
    assert set(get_args(get_args(Events)[0])) == set(EventKind) - {EventKind.TEST}
    assert Settings().notify.events == tuple(get_args(get_args(Events)[0]))


def test_a_profile_changes_what_it_names(tmp_path: Path) -> None:
    settings = with_webhook_secrets(
        load(
            tmp_path,
            f"""
            [notify]
            {WEBHOOK}
            command = ["tell", "-x"]
            mail_to = ["ops@example.org", "submitter"]
            [profiles.quiet.notify]
            events = []
            [profiles.own.notify]
            events = ["job.failures"]
            webhook = false
            command = []
            mail_to = ["alice"]
            [profiles.silent]
            """,
        )
    )
    plan = settings.notify_plan()

    assert plan["silent"] == plan[""]
    assert plan[""].secret == Secret(SECRET)
    assert not plan["quiet"].is_used
    assert plan["own"] == NotifyWays(
        events=frozenset({"job.failures"}), mail_to=("alice",), sendmail="/usr/sbin/sendmail"
    )


def test_a_command_is_words_of_the_configuration(tmp_path: Path) -> None:
    assert "notify.command" in fault(tmp_path, '[notify]\ncommand = "tell me"')
    assert wording("its-first-word-the-program") in fault(tmp_path, '[notify]\ncommand = ["", "x"]')
    assert wording("holds-no-nul") in fault(tmp_path, '[notify]\ncommand = ["x", "a\\u0000b"]')


def test_a_webhook_needs_a_secret(tmp_path: Path) -> None:
    assert "at notify.webhook: " in fault(tmp_path, '[notify]\nwebhook = "https://h/"')
    assert "at profiles.a.notify.webhook: " in fault(tmp_path, '[profiles.a.notify]\nwebhook = "https://h/"')


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/a/b?c=d",
        "https://10.1.2.3:8443/",
        "https://[fd00::1]/x",
        "http://127.0.0.1:9000/x",
        "http://localhost:1/",
        "http://[::1]:8/x",
    ],
)
def test_a_webhook_is_reached_over_tls_or_on_this_machine(url: str) -> None:
    assert checked_webhook(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.org",
        "http://hooks.example.org/",
        "http://127.0.0.1.example.org/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://user@h/",
        "https://h:0/",
        "https://h:99999/",
        "https://h/a b",
        "https://h/\r\nX: y",
        "https://h/ü",
        "https://h\\@127.0.0.1/",
        "https://h/#a",
        "https://[::1",
        "https://a..b/",
    ],
)
def test_other_webhooks_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        checked_webhook(url)


@pytest.mark.parametrize("text", ["alice", "submitter", "a.b+c@example.org", "x@localhost", "_obcd"])
def test_a_recipient_is_a_login_or_an_address(text: str) -> None:
    assert checked_recipient(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oQ/tmp",
        "-x@example.org",
        "a b",
        "a\n",
        "a@b\nBcc: x@y",
        "a,b@c",
        "|cat",
        "/file",
        "a@b@c",
        "a@",
        "ü@x",
        ":x",
    ],
)
def test_other_recipients_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        checked_recipient(text)


def test_sendmail_is_a_whole_path(tmp_path: Path) -> None:
    assert "at notify.sendmail: " in fault(tmp_path, '[notify]\nsendmail = "sendmail"')


class TestSecrets:
    def test_a_file_that_others_can_read_is_refused(self, tmp_path: Path) -> None:
        said = fault(tmp_path, f"[notify]\n{WEBHOOK}", mode=0o640)

        assert "at notify.webhook_secret_file: " in said
        assert f"chmod 0600 {tmp_path / 'secret'}" in said

    @pytest.mark.parametrize("secret", ["x" * 40, "whsec_", "whsec_YWJj", "whsec_****" * 4, "whsec_" + "A" * 88 + "A"])
    def test_what_is_no_secret_is_refused_and_not_quoted(self, tmp_path: Path, secret: str) -> None:
        assert wording("does-not-hold-the-secret") in fault(tmp_path, f"[notify]\n{WEBHOOK}", secret)

    def test_no_file_is_read_for_a_webhook_that_a_profile_switches_off(self, tmp_path: Path) -> None:
        text = f"[notify]\n{WEBHOOK}[profiles.a.notify]\nwebhook = false\nwebhook_secret_file = 'gone'\n"

        assert with_webhook_secrets(load(tmp_path, text)).webhook_secrets == {"secret": Secret(SECRET)}

    def test_the_secret_is_shown_nowhere(self, tmp_path: Path) -> None:
        settings = with_webhook_secrets(load(tmp_path, f"[notify]\n{WEBHOOK}"))

        assert SECRET not in f"{settings!r} {settings.notify_plan()!r} {settings.model_dump_json()}"

    def test_a_changed_secret_is_a_change(self, tmp_path: Path) -> None:
        text = f"[notify]\n{WEBHOOK}"
        old, new = (with_webhook_secrets(load(tmp_path, text, secret)) for secret in (SECRET, OTHER))

        assert compare(old, new).keys == ("the secret of a webhook",)
        assert compare(old, old).keys == ()


def test_a_changed_key_is_a_change(tmp_path: Path) -> None:
    old = Settings()
    new = load(tmp_path, '[notify]\nmail_to = ["ops"]\n')

    assert describe(compare(old, new), 0, 0) == "notify.mail_to changed"


def test_a_rewritten_configuration_finds_its_secrets(tmp_path: Path) -> None:
    load(tmp_path, f"[notify]\n{WEBHOOK}[profiles.a.notify]\nwebhook_secret_file = 'x/y'\n")

    document = tomllib.loads(with_endpoints(tmp_path / "obcd.toml", {"127.0.0.1:1": {"gpu": 0}}))
    assert document["notify"]["webhook_secret_file"] == str(tmp_path / "secret")
    assert document["profiles"]["a"]["notify"]["webhook_secret_file"] == str(tmp_path / "x/y")
