"""Mails: nothing in the name of a job adds a header, a recipient or an argument."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obcd.config.notify_values import NotifyWays
from obcd.core.events import EventKind, NotableEvent
from obcd.notifications import ways as ways_module
from obcd.notifications.mail import MAX_SUBJECT, compose, send_mail
from obcd.notifications.ways import recipients
from obcd.text import printable
from tests.receivers import given_to, write_program

HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Obcd-Event"]
BODY_HEADERS = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]


def an_event(name: str) -> NotableEvent:
    return NotableEvent(
        id="evt_published_20261122T180105-0a1b2c3d4e5f",
        kind=EventKind.PUBLISHED,
        at=1795888865.5,
        text=f"{printable(name)} is published: 9 responses, 1 failure",
        job="20261122T180105-0a1b2c3d4e5f",
        facts={"name": name, "counts": {"failures": 1}, "folder": f"/var/spool/obcd/outbox/{name}"},
    )


def parse(raw: bytes) -> email.message.EmailMessage:
    mail = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(mail, email.message.EmailMessage)
    return mail


def test_a_mail_says_what_happened() -> None:
    mail = parse(compose("obcd@example.org", ["alice", "ops@example.org"], an_event("notes.jsonl")))

    assert [name for name in mail if name not in BODY_HEADERS] == HEADERS
    assert mail["To"] == "alice, ops@example.org"
    assert mail["Subject"] == "obcd: notes.jsonl is published: 9 responses, 1 failure"
    assert mail["Date"] == "Sat, 28 Nov 2026 18:01:05 +0000"
    assert mail["Message-ID"].startswith("<evt_published_20261122T180105-0a1b2c3d4e5f@")
    assert mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_content()
    assert "counts.failures: 1\n" in text
    assert "folder: /var/spool/obcd/outbox/notes.jsonl\n" in text


def test_without_a_sender_the_mail_system_decides() -> None:
    assert "From" not in parse(compose("", ["alice"], an_event("a")))


HOSTILE = [
    "a\nBcc: eve@example.org",
    "a\r\nBcc: eve@example.org\r\n\r\nbody",
    "a\r\n.\r\nMAIL FROM:<x>",
    "a\u2028Bcc: eve@example.org",
    "a\x00\x0b\x0c\x85b",
    "=?utf-8?q?=0ABcc:_eve@example.org?=",
    "\udcff\udc00.jsonl",
    "Übung 試験 \U0001f600" * 30,
    "x" * 255,
    ".",
    "-oQ/tmp -X/tmp/log",
    "$(id)`id`",
    "<script>alert(1)</script>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_add_nothing(name: str) -> None:
    assert_nothing_is_added(name)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60) | st.text("=?utf-8qbQ0AaBc:@\r\n \t.é", max_size=60))
def test_no_name_adds_anything(name: str) -> None:
    assert_nothing_is_added(name)


def assert_nothing_is_added(name: str) -> None:
    raw = compose("obcd@example.org", ["alice"], an_event(name))
    mail = email.message_from_bytes(raw)  # the usual parser takes a second for some names

    assert raw.isascii()
    assert b"\r" not in raw
    assert b"\0" not in raw
    head = raw.partition(b"\n\n")[0].decode()
    fields = [line.partition(":")[0] for line in head.split("\n") if line[:1] not in (" ", "\t")]
    assert [field for field in fields if field not in BODY_HEADERS] == HEADERS
    assert max(map(len, raw.split(b"\n"))) <= 998  # RFC 5322, 2.1.1
    assert mail["To"] == "alice"
    subject = f"obcd: {an_event(name).text}"
    expected = subject if len(subject) <= MAX_SUBJECT else subject[: MAX_SUBJECT - 1] + "…"
    shown = str(make_header(decode_header(mail["Subject"])))
    assert shown.split() == expected.split()


def test_sendmail_gets_no_argument_of_the_event(tmp_path: Path) -> None:
    program = write_program(tmp_path / "sendmail", tmp_path / "log")

    send_mail(str(program), "", ["alice"], an_event("-oQ/tmp"))

    ((words, mail),) = given_to(tmp_path / "log")
    assert words == ["-i", "-t"]
    assert parse(mail.encode())["To"] == "alice"


class TestRecipients:
    def to(self, monkeypatch: pytest.MonkeyPatch, login: str, *to: str, uid: int = 1000) -> list[str]:
        monkeypatch.setattr(ways_module, "find_user_name", lambda number: login if number == 1000 else "")
        event = NotableEvent(id="evt_1", kind=EventKind.PUBLISHED, at=1.0, text="x", uid=uid)
        return recipients(event, NotifyWays(mail_to=to))

    def test_the_submitter_is_a_login(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.to(monkeypatch, "alice", "submitter", "ops@example.org") == ["alice", "ops@example.org"]

    def test_nobody_gets_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.to(monkeypatch, "alice", "alice", "submitter") == ["alice"]

    @pytest.mark.parametrize("login", ["", "a b", "a\nBcc: x", "-f", "DOMAIN\\alice", "ü", "a,b"])
    def test_a_login_that_a_header_cannot_hold_gets_none(self, monkeypatch: pytest.MonkeyPatch, login: str) -> None:
        assert self.to(monkeypatch, login, "submitter") == []

    def test_an_event_without_a_submitter_goes_to_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.to(monkeypatch, "alice", "submitter", "ops", uid=-1) == ["ops"]
