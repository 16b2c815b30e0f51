"""What each route answers, to whom, and to what is not a request."""

from __future__ import annotations

import json
import os
import pwd
from pathlib import Path

import pytest

from obcd.api import routes
from obcd.api.routes import ApiParts, make_application
from obcd.api.token_file import TokenFile, make_token, write_entries
from obcd.clock import monotonic
from tests.unit.api.api_spool import ANN, LIMITS, ApiSpool, lines
from tests.unit.api.asgi import FORM, Caller, form_of
from tests.unit.spool.spools import finish

BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
USERS = [user.pw_name for user in pwd.getpwall() if user.pw_uid not in (0, os.geteuid())][:2]


@pytest.fixture
def callers(spool: ApiSpool, tmp_path: Path) -> list[Caller]:
    """Return clients of two users, and one without a token."""
    made = [make_token(user, 0.0) for user in USERS]
    write_entries(tmp_path / "tokens", [entry for _, entry in made], os.geteuid())
    parts = ApiParts(TokenFile(tmp_path / "tokens", ()), spool.uploads, spool.batches, ("llama3.2", "hf.co/x/y:Q4"), 7)
    application = make_application(parts)
    return [Caller(application, token) for token in (*(token for token, _ in made), "")]


@pytest.fixture
def ann(callers: list[Caller]) -> Caller:
    return callers[0]


def upload(call: Caller, content: bytes = b"") -> str:
    reply = call("POST", "/v1/files", form_of(content or lines()), FORM)
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def create(call: Caller, file: str) -> str:
    reply = call("POST", "/v1/batches", json.dumps({**BATCH, "input_file_id": file}).encode())
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def test_life_of_a_batch_over_http(ann: Caller, spool: ApiSpool) -> None:
    file = upload(ann)
    assert ann("GET", f"/v1/files/{file}/content").body == lines()
    batch = create(ann, file)
    spool.drop_all()
    header = spool.accept()
    assert ann("POST", f"/v1/batches/{batch}/cancel").json["status"] == "cancelling"
    finish(spool.layout, header)

    shown = ann("GET", f"/v1/batches/{batch}").json
    results = ann("GET", f"/v1/files/{shown['output_file_id']}/content")

    assert [json.loads(line)["custom_id"] for line in results.body.splitlines()] == ["r-0", "r-1"]
    assert {item["id"] for item in ann("GET", "/v1/files").json["data"]} == {file, shown["output_file_id"]}
    assert [item["id"] for item in ann("GET", "/v1/files?purpose=batch_output").json["data"]] == [
        shown["output_file_id"]
    ]
    assert [item["id"] for item in ann("GET", "/v1/batches").json["data"]] == [batch]
    for name in (file, shown["output_file_id"]):
        assert ann("DELETE", f"/v1/files/{name}").json == {"id": name, "object": "file", "deleted": True}
        assert ann("GET", f"/v1/files/{name}").status == ann("DELETE", f"/v1/files/{name}").status == 404


def test_models_are_those_of_the_configuration(ann: Caller) -> None:
    assert [item["id"] for item in ann("GET", "/v1/models").json["data"]] == ["llama3.2", "hf.co/x/y:Q4"]
    assert ann("GET", "/v1/models/hf.co/x/y:Q4").json == {
        "id": "hf.co/x/y:Q4", "object": "model", "created": 7, "owned_by": "obcd",
    }  # fmt: skip
    assert ann("GET", "/v1/models/absent").status == 404


ROUTES = [
    ("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/v1/files/ID"), ("DELETE", "/v1/files/ID"),
    ("GET", "/v1/files/ID/content"), ("GET", "/v1/batches"), ("POST", "/v1/batches"), ("GET", "/v1/batches/ID"),
    ("POST", "/v1/batches/ID/cancel"), ("GET", "/v1/models"), ("GET", "/v1/models/ID"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", ["", "Bearer ", "Bearer obcd-wrong", "Basic x", "bearer\x00", "Bearer é"])
def test_nothing_is_done_without_a_token(ann: Caller, method: str, path: str, header: str) -> None:
    reply = ann(method, path, b"{}", {"authorization": header})

    assert (reply.status, reply.code) == (401, "invalid_api_key")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_every_route_is_tried_without_a_token(ann: Caller) -> None:
    made = {(method, route.path) for route in ann.application.routes for method in route.methods if method != "HEAD"}

    assert len(made) == len(ROUTES)


def test_one_users_ids_are_nothing_to_another(callers: list[Caller], spool: ApiSpool) -> None:
    ann, ben, _ = callers
    file = upload(ann)
    batch = create(ann, file)
    spool.drop_all()
    finish(spool.layout, spool.accept())
    output = ann("GET", f"/v1/batches/{batch}").json["output_file_id"]
    unknown = {file: "file-" + "0" * 32, output: f"file-{'0' * 32}-output", batch: "batch_" + "0" * 32}

    for method, path in ROUTES:
        for name, other in unknown.items():
            if "ID" in path and "models" not in path:
                seen, unseen = ben(method, path.replace("ID", name)), ben(method, path.replace("ID", other))
                assert (seen.status, seen.body) == (unseen.status, unseen.body)
                assert seen.status == 404
    taken = ben("POST", "/v1/batches", json.dumps({**BATCH, "input_file_id": file}).encode())
    assert (taken.status, taken.json["error"]["param"]) == (404, "input_file_id")
    for kind in ("files", "batches"):
        assert ben("GET", f"/v1/{kind}").json["data"] == []
        assert ben("GET", f"/v1/{kind}?after={file if kind == 'files' else batch}").status == 404
    assert ann("GET", f"/v1/files/{output}").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("PUT", "/v1/files", 405),
        ("POST", "/v1/models", 405),
        ("GET", "/v1/x", 404),
    ],
)
def test_addresses_that_are_none_get_openais_error(ann: Caller, method: str, path: str, status: int) -> None:
    reply = ann(method, path)

    assert reply.status == status
    assert reply.json["error"].keys() == {"message", "type", "param", "code"}


def test_upload_needs_a_purpose_and_a_content(ann: Caller, spool: ApiSpool) -> None:
    for body in (form_of(b"x", "fine-tune"), form_of(b"", "batch"), b"{}", form_of(b"x")[:-9]):
        assert ann("POST", "/v1/files", body, FORM).status == 400
    assert list((spool.layout.root / "api" / "incoming").iterdir()) == []
    assert not spool.uploads._coming.total()


def test_upload_above_the_limit_is_refused_and_its_rest_is_read(ann: Caller, spool: ApiSpool) -> None:
    announced = ann("POST", "/v1/files", b"x", {**FORM, "content-length": str(LIMITS.file_bytes * 9)})
    blocks = [form_of(b"")[:-10], *[b"x" * 2**18] * 12, b"\r\n--XX--\r\n"]
    unannounced = ann("POST", "/v1/files", blocks, FORM)

    assert announced.status == unannounced.status == 413
    assert unannounced.headers["x-should-retry"] == "false"
    assert list((spool.layout.root / "api" / "incoming").iterdir()) == []


@pytest.mark.parametrize("stops", ["silent", "gone"])
def test_client_that_stops_in_the_middle_leaves_nothing(
    ann: Caller, spool: ApiSpool, monkeypatch: pytest.MonkeyPatch, stops: str
) -> None:
    monkeypatch.setattr(routes, "SILENT_SECONDS", 0.05)

    reply = ann("POST", "/v1/files", form_of(b"x" * 2**20)[: 2**19], FORM, stops=stops)

    assert reply.status == (408 if stops == "silent" else 499)
    assert list((spool.layout.root / "api" / "incoming").iterdir()) == []


def test_client_that_sends_a_byte_now_and_then_is_refused(
    ann: Caller, spool: ApiSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = (float(second) for second in range(10_000))
    monkeypatch.setattr(routes, "monotonic", lambda: next(moments))

    quick = ann("POST", "/v1/files", [form_of(b"")[:-10], *[b"x" * 2048] * 100, b"\r\n--XX--\r\n"], FORM)
    slow_file = ann("POST", "/v1/files", [form_of(b"")[:-10], *[b"x"] * 100], FORM)
    slow_order = ann("POST", "/v1/batches", [b" "] * 100)

    assert [reply.status for reply in (quick, slow_file, slow_order)] == [200, 408, 408]
    assert list((spool.layout.root / "api" / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("bytes=0-9", 206),
        ("bytes=5-", 206),
        ("bytes=-5", 206),
        ("bytes=9-5", 200),
        ("bytes=-", 200),
        ("lines=1-2", 200),
        ("bytes=0-1,4-5", 200),
        ("bytes=99999999999999999999-", 200),
        ("bytes=999999-", 416),
        ("bytes=-0", 416),
    ],
)
def test_part_of_a_file_is_given_refused_or_the_header_ignored(ann: Caller, header: str, status: int) -> None:
    reply = ann("GET", f"/v1/files/{upload(ann)}/content", headers={"range": header})

    assert reply.status == status
    assert (reply.body == lines()) is (status == 200)
    if status == 416:
        assert reply.json["error"]["message"] == f"the file has {len(lines())} bytes"


def test_refused_client_that_is_silent_does_not_hold_its_connection(
    callers: list[Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(routes, "SILENT_SECONDS", 5.0)
    begun = monotonic()

    assert callers[-1]("POST", "/v1/files", b"", FORM, stops="silent").status == 401
    assert monotonic() - begun < 4.0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b"\xff", b'{"a":1}', b"x" * 2**17, b'{"input_file_id": NaN}']
)
def test_batch_needs_a_body_that_is_one(ann: Caller, body: bytes) -> None:
    assert ann("POST", "/v1/batches", body).status in (400, 413)


def test_half_characters_come_back_as_they_came(ann: Caller) -> None:
    wish = {**BATCH, "input_file_id": upload(ann), "metadata": {"k": "\ud800\u2028"}}

    reply = ann("POST", "/v1/batches", json.dumps(wish).encode())

    assert reply.json["metadata"] == {"k": "\ud800\u2028"}
    assert ann("GET", f"/v1/batches/{reply.json['id']}").json["metadata"] == {"k": "\ud800\u2028"}
    assert reply.body.isascii()


def test_requests_of_one_user_at_once_have_a_limit(callers: list[Caller], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MOST_AT_ONCE", 0)

    reply = callers[0]("GET", "/v1/models")

    assert (reply.status, "x-should-retry" in reply.headers) == (429, False)


def test_full_disk_is_no_fault_of_the_client(
    ann: Caller, spool: ApiSpool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/secret/path")

    monkeypatch.setattr(spool.uploads, "write", full)

    reply = ann("POST", "/v1/files", form_of(b"secret prompt"), FORM)

    assert reply.status == 503
    assert b"secret" not in reply.body
    assert "secret" not in caplog.text


def test_defect_is_told_without_what_the_client_sent(
    ann: Caller, spool: ApiSpool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("secret prompt")

    monkeypatch.setattr(spool.batches, "retrieve", broken)

    reply = ann("GET", "/v1/batches/x")

    assert (reply.status, reply.json["error"]["type"]) == (500, "server_error")
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text + reply.body.decode()


def test_accounts_are_by_user_and_not_by_token(ann: Caller, spool: ApiSpool) -> None:
    upload(ann)

    assert spool.uploads.names_of(pwd.getpwnam(USERS[0]).pw_uid)
    assert not spool.uploads.names_of(ANN.uid)
