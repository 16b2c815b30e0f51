"""Signatures that OpenAI's own client accepts."""

from __future__ import annotations

import base64
import time
from typing import Any

import openai
import pytest

from obcd.core.events import EventKind, NotableEvent, job_event_id
from obcd.core.webhook_signature import signed_headers, signing_key
from tests.receivers import SECRET

JOB = "20261122T180105-0a1b2c3d4e5f"


def unwrap(event: NotableEvent, at: int | None = None, secret: str = SECRET) -> Any:
    """Return what the official client makes of an attempt, of which it checks the signature and the time."""
    headers = signed_headers(signing_key(SECRET), event.id, int(time.time()) if at is None else at, event.body())
    return openai.OpenAI(api_key="none").webhooks.unwrap(event.body(), headers, secret=secret)


def an_event(**facts: object) -> NotableEvent:
    name = job_event_id(EventKind.PUBLISHED, JOB)
    return NotableEvent(id=name, kind=EventKind.PUBLISHED, at=1.0, text="Ü", job=JOB, facts=facts)


def test_known_attempt_has_the_known_signature() -> None:
    # openai-python 1.93, tests/api_resources/webhooks: an attempt that OpenAI's servers signed
    body = (
        b'{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": '
        b'"response.completed", "data": {"id": "resp_123"}}'
    )
    headers = signed_headers(signing_key(SECRET), "wh_685c059ae39c8190af8c71ed1022a24d", 1750861210, body)

    assert headers == {
        "webhook-id": "wh_685c059ae39c8190af8c71ed1022a24d",
        "webhook-timestamp": "1750861210",
        "webhook-signature": "v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY=",
    }


def test_openais_client_accepts_the_event_of_a_job() -> None:
    event = unwrap(an_event(name="notes.jsonl"))

    assert (event.id, event.type, event.data.id) == (f"evt_published_{JOB}", "job.published", JOB)
    assert event.data.name == "notes.jsonl"


@pytest.mark.parametrize("status", ["completed", "cancelled"])
def test_openais_client_knows_the_event_of_a_batch(status: str) -> None:
    event = unwrap(an_event(batch={"id": f"batch_{JOB}", "status": status}))

    assert type(event).__name__ == f"Batch{status.capitalize()}WebhookEvent"
    assert event.data.id == f"batch_{JOB}"


def test_openais_client_refuses_another_secret_and_an_old_attempt() -> None:
    other = "whsec_" + base64.b64encode(b"x" * 32).decode()
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrap(an_event(), secret=other)
    with pytest.raises(openai.InvalidWebhookSignatureError, match="too old"):
        unwrap(an_event(), int(time.time()) - 400)


@pytest.mark.parametrize("length", [24, 32, 64])
def test_the_key_is_in_the_secret(length: int) -> None:
    key = bytes(range(length))

    assert signing_key("whsec_" + base64.b64encode(key).decode()) == key


@pytest.mark.parametrize("secret", ["", SECRET[6:], "whsec_", "whsec_!!!!", "whsec_" + "A" * 20, "whsec_" + "A" * 100])
def test_other_secrets_are_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="must"):
        signing_key(secret)
