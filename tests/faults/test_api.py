"""Hostile requests to the API: tokens, ids, paths, headers and bodies of every kind; nobody reaches another's batch."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.api.routes import ApiParts, make_application
from obcd.api.token_file import TokenFile, make_token, write_entries
from obcd.spool.folders.layout import Layout
from tests.unit.api.api_spool import ApiSpool, lines
from tests.unit.api.asgi import FORM, Caller, form_of
from tests.unit.api.test_routes import ROUTES
from tests.unit.spool.spools import finish

USERS = [user for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid())][:2]
WISH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
#: What may come: no request is anything else than refused or carried out.
STATUSES = {200, 400, 401, 404, 405, 408, 413, 429, 499}
ODD = [
    *("", ".", "..", "../../../etc/passwd", "%2e%2e%2f", "%00", "\0", "a" * 5000, "é", "\ud800", "file-", "batch_"),
    *("-output", "null", "0", "-1", "1e999", "NaN", "*", "' OR 1=1 --", "<script>", "${jndi:ldap://x}"),
    *("\r\nX-Injected: 1", "\u202e"),
]
METHODS = ["GET", "GET", "POST", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "X" * 300]


class Mallory:
    """Makes requests of all kinds out of what is valid and what is odd; knows the ids of another user."""

    def __init__(self, seed: int, token: str, known: list[str], own: list[str]) -> None:
        self._random = random.Random(seed)
        self._token, self._known, self._own = token, known, own

    def _text(self) -> str:
        pick = self._random
        kind = pick.random()
        if kind < 0.5:
            return pick.choice(self._known)
        if kind < 0.6:
            return pick.choice(self._own)
        if kind < 0.8:
            return pick.choice(ODD)
        text = pick.choice(self._known + self._own + ODD)
        at = pick.randrange(len(text) + 1)
        return text[:at] + pick.choice(["", chr(pick.randrange(0x500)), pick.choice(ODD)]) + text[at + 1 :]

    def _value(self, depth: int = 0) -> object:
        kind = self._random.randrange(8 if depth < 3 else 5)
        if kind > 5:
            return {self._text(): self._value(depth + 1) for _ in range(self._random.randrange(20))}
        if kind == 5:
            return [self._value(depth + 1) for _ in range(self._random.randrange(4))]
        return [None, True, self._random.randrange(-(10**20), 10**20), self._random.random() * 1e300, self._text()][
            kind
        ]

    def request(self) -> tuple[str, str, bytes, dict[str, str]]:
        """Return method, target, body and headers."""
        pick = self._random
        if pick.random() < 0.7:
            method, path = pick.choice(ROUTES)
            path = path.replace("ID", self._text())
        else:
            ends = ["", f"/{self._text()}", f"/{self._text()}/content", f"/{self._text()}/cancel"]
            kind = pick.choice(["files", "batches", "models", self._text()])
            method, path = pick.choice(METHODS), f"/v1/{kind}{pick.choice(ends)}"
        if pick.random() < 0.3:
            path += f"?{pick.choice(['after', 'limit', 'order', 'purpose', self._text()])}={self._text()}"
        headers: dict[str, str] = {}
        if pick.random() < 0.15:
            scheme = pick.choice(["Bearer", "bearer", "Basic", "", self._text()])
            headers["authorization"] = f"{scheme} {pick.choice([self._text(), self._token[:-1], self._token + 'x'])}"
        if pick.random() < 0.3:
            headers[pick.choice(["content-length", "x-stainless-retry-count", "content-type", "range", "x"])] = (
                self._text()
            )
        return method, path, self._body(headers), headers

    def _body(self, headers: dict[str, str]) -> bytes:
        pick = self._random
        kind = pick.random()
        if kind < 0.4:
            wish = {**WISH, "input_file_id": self._text()}
            for _ in range(pick.randrange(3)):
                wish[pick.choice(["metadata", "endpoint", "output_expires_after", self._text()])] = self._value()  # type: ignore[assignment]
            raw = json.dumps(wish).encode()
        elif kind < 0.7:
            headers.setdefault(
                "content-type", pick.choice([FORM["content-type"], f"multipart/form-data; boundary={self._text()}"])
            )
            raw = form_of(
                pick.choice([b"", b"x", lines(), os.urandom(50)]), pick.choice(["batch", self._text()]), self._text()
            )
        else:
            raw = pick.choice([b"", b"[" * 5000, b"\xff\xfe", os.urandom(200), b"{}"])
        if pick.random() < 0.3 and raw:
            at = pick.randrange(len(raw))
            raw = raw[:at] + pick.choice([b"", os.urandom(3)]) + raw[at + pick.randrange(9) :]
        return raw


def attack(layout: Layout, folder: Path, requests: int, seed: int) -> dict[int, int]:
    """Send hostile requests as a user with a token; returns how often each status came."""
    spool = ApiSpool(layout)
    made = [make_token(user.pw_name, 0.0) for user in USERS]
    write_entries(folder / "tokens", [entry for _, entry in made], os.geteuid())
    parts = ApiParts(TokenFile(folder / "tokens", ()), spool.uploads, spool.batches, ("llama3.2",), 7)
    ann, mallory = (Caller(make_application(parts), token) for token, _ in made)
    running, ended = (_create(ann) for _ in range(2))
    spool.batches.drop(USERS[0].pw_uid, ended[1])
    finish(layout, spool.accept())
    output = ann("GET", f"/v1/batches/{ended[1]}").json["output_file_id"]
    known = [*running, *ended, output, output.replace("output", "errors"), USERS[0].pw_name, made[1][0]]
    before = [ann("GET", f"/v1/{kind}").body for kind in ("files", "batches")]
    attacker = Mallory(seed, mallory.token, known, list(_create(mallory)))
    secrets = [name.encode() for name in (*running, *ended)]
    seen: dict[int, int] = {}

    async def send_all() -> None:
        for _ in range(requests):
            method, target, body, headers = attacker.request()
            reply = await mallory.send(method, target, body, headers)
            seen[reply.status] = seen.get(reply.status, 0) + 1
            assert reply.status in STATUSES, (reply, method, target)
            assert "x-injected" not in reply.headers
            if reply.status == 200 and method != "HEAD":
                found = b"" if target.endswith("/content") else reply.body
                assert not any(f'"id": "{name.decode()}"'.encode() in found for name in secrets), (target, reply)

    asyncio.run(send_all())
    assert [ann("GET", f"/v1/{kind}").body for kind in ("files", "batches")] == before
    assert ann("GET", f"/v1/files/{running[0]}/content").body == lines()
    incoming = list((layout.root / "api" / "incoming").iterdir())
    assert incoming == []
    return seen


def _create(call: Caller) -> tuple[str, str]:
    file = str(call("POST", "/v1/files", form_of(lines()), FORM).json["id"])
    reply = call("POST", "/v1/batches", json.dumps({**WISH, "input_file_id": file}).encode())
    return file, str(reply.json["id"])


@pytest.mark.case("F10")
def test_hostile_requests_reach_nothing_of_others(layout: Layout, tmp_path: Path, count: Callable[[str], None]) -> None:
    seen = attack(layout, tmp_path, 400, seed=19)

    assert {200, 400, 401, 404} <= seen.keys()
    count(f"hostile requests to the API: {sum(seen.values())}")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_very_many_hostile_requests_reach_nothing_of_others(
    layout: Layout, tmp_path: Path, count: Callable[[str], None]
) -> None:
    seen = attack(layout, tmp_path, 200_000, seed=random.randrange(2**32))

    assert {200, 400, 401, 404} <= seen.keys()
    count(f"hostile requests to the API: {seen}")
