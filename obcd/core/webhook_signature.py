"""The signature of a webhook, as OpenAI and others use it: Standard Webhooks, version 1 with a shared secret. Pure.

Source: https://www.standardwebhooks.com.

    webhook-id: evt_…                the same for every attempt at one event
    webhook-timestamp: 1795888865    of the attempt
    webhook-signature: v1,<base64 of HMAC-SHA256 over `id.timestamp.body`>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

#: The beginning of a secret; base64 of the key follows.
PREFIX = "whsec_"
#: Shortest and longest key, in bytes (Standard Webhooks, "Webhook secrets": 24 to 64).
LEAST_KEY, MOST_KEY = 24, 64


def signing_key(secret: str) -> bytes:
    """Return the key in a secret, e.g. in `whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c=`.

    Raises:
        ValueError: If it is no such secret; the message is the reason and does not quote it.
    """
    if not secret.startswith(PREFIX):
        raise ValueError(f"it must begin with {PREFIX}")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"base64 must follow {PREFIX}") from None
    if not LEAST_KEY <= len(key) <= MOST_KEY:
        raise ValueError(f"its key must have {LEAST_KEY} to {MOST_KEY} bytes, not {len(key)}")
    return key


def signed_headers(key: bytes, event: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of one attempt.

    Args:
        event: The id of the event, without a dot.
        timestamp: The time of the attempt, in Unix seconds: receivers refuse one that is five minutes old.
    """
    digest = hmac.digest(key, f"{event}.{timestamp}.".encode("ascii") + body, hashlib.sha256)
    return {
        "webhook-id": event,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode('ascii')}",
    }
