"""One attempt at a webhook, over a real socket."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from obcd.core.events import EventKind, NotableEvent
from obcd.notifications.ways import DeliveryError
from obcd.notifications.webhook import post_event
from obcd.secret import Secret
from tests.golden.wording import wording
from tests.receivers import SECRET, receiving

EVENT = NotableEvent(id="evt_1", kind=EventKind.DISK, at=1.0, text="full", facts={"name": "Ü"})


def fails(url: str, seconds: float = 5.0) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        post_event(url, Secret(SECRET), EVENT, seconds)
    return caught.value


def test_openais_client_accepts_what_arrives() -> None:
    with receiving() as receiver:
        post_event(receiver.url, Secret(SECRET), EVENT)
        (received,) = receiver.received

    event = openai.OpenAI(api_key="none").webhooks.unwrap(received.body, received.headers, secret=SECRET)
    assert event.id == EVENT.id
    assert received.path == "/hook?room=1"
    assert received.headers["Content-Type"] == "application/json"
    assert received.body == EVENT.body()


def test_repeats_have_the_same_id_and_body_and_their_own_time() -> None:
    with receiving() as receiver:
        for at in (1000.0, 2000.0):
            post_event(receiver.url, Secret(SECRET), EVENT, clock=lambda at=at: at)  # type: ignore[misc]

    first, second = receiver.received
    assert first.id == second.id == "evt_1"
    assert first.body == second.body
    assert [item.headers["webhook-timestamp"] for item in receiver.received] == ["1000", "2000"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with receiving() as other, receiving(lambda number: (status, {"Location": other.url})) as receiver:
        error = fails(receiver.url)

    assert str(error) == wording("the-receiver-answers-with-a-redirect", status)
    assert (len(receiver.received), other.received) == (1, [])


@pytest.mark.parametrize(("status", "is_final"), [(400, False), (401, False), (410, True), (429, False), (500, False)])
def test_another_status_is_a_failure(status: int, is_final: bool) -> None:
    with receiving(lambda number: (status, {})) as receiver:
        assert fails(receiver.url).is_final is is_final


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def url_of(server: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}/"


def test_receiver_that_says_nothing_costs_only_the_limit(listener: socket.socket) -> None:
    began = time.monotonic()

    assert str(fails(url_of(listener), 0.2)) == wording("the-receiver-does-not-answer-within", 0)
    assert time.monotonic() - began < 5


def test_receiver_that_drips_costs_only_the_limit(listener: socket.socket) -> None:
    is_over = threading.Event()

    def drip() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.sendall(b"HTTP/1.1 200 OK\r\n")
            while not is_over.wait(0.02):
                try:
                    sock.sendall(b"X: y\r\n"[:1])
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    try:
        assert str(fails(url_of(listener), 0.3)) == wording("the-receiver-does-not-answer-within", 0)
        assert time.monotonic() - began < 5
    finally:
        is_over.set()
        thread.join()


def test_reply_that_is_no_http_is_not_quoted(listener: socket.socket) -> None:
    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(b"secret words\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    error = fails(url_of(listener))
    thread.join()

    assert "secret" not in str(error)


def test_closed_port_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = url_of(server)

    assert str(fails(url)) == wording("the-receiver-cannot-be-reached", "connection refused")


def test_certificate_that_nobody_vouches_for_is_refused(listener: socket.socket, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    got: list[bytes] = []

    def serve() -> None:
        sock, _ = listener.accept()
        try:
            with context.wrap_socket(sock, server_side=True) as secured:
                got.append(secured.recv(100))
        except OSError:
            sock.close()

    thread = threading.Thread(target=serve)
    thread.start()
    error = fails(url_of(listener, "https"))
    thread.join()

    assert "certificate is not valid" in str(error)
    assert b"".join(got) == b""


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    with receiving() as receiver:
        post_event(receiver.url, Secret(SECRET), EVENT)

    assert len(receiver.received) == 1
