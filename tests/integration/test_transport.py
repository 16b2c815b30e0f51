"""The connection to one server, over real sockets: kept alive, cut, refused, dripping, broken off."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from obcd.ollama import transport as transport_module
from obcd.ollama.transport import AbortedError, CutError, RefusedError, Reply, TooLargeError, Transport
from tests.golden.wording import wording
from tests.integration.loopback import Script, drips, floods, hangs, ok, read_request, replies, serving
from tests.support import wait_until

pytestmark = pytest.mark.integration


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def connected(url: str, connect_timeout: float = 5.0) -> Iterator[Transport]:
    made = Transport(url, connect_timeout)
    try:
        yield made
    finally:
        made.close()


class Posting:
    """A `post` going on in a thread."""

    def __init__(self, transport: Transport) -> None:
        self.outcome: Reply | Exception | None = None
        self._transport = transport
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> Reply | Exception | None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "post hangs"
        return self.outcome

    def _run(self) -> None:
        try:
            self.outcome = self._transport.post("/api/chat", b"{}")
        except (AbortedError, CutError, RefusedError, TooLargeError) as error:
            self.outcome = error


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class TestOneExchange:
    def test_request_is_a_post_with_its_length_and_no_wish_for_compression(self) -> None:
        seen = []

        def script(conn: socket.socket) -> None:
            seen.append(read_request(conn))
            conn.sendall(ok(b'{"a": 1}'))

        with serving(script) as server, connected(server.url + "/prefix/") as transport:
            reply = transport.post("/api/chat", b'{"model": "m"}')

        assert reply == Reply(200, b'{"a": 1}')
        head = seen[0].lower()
        assert head.startswith(b"post /prefix/api/chat http/1.1\r\n")
        assert b"\r\ncontent-length: 14\r\n" in head
        assert b"\r\naccept-encoding: identity\r\n" in head
        assert seen[0].endswith(b'\r\n\r\n{"model": "m"}')

    def test_connection_is_used_again(self) -> None:
        with serving(replies(*[ok()] * 20)) as server, connected(server.url) as transport:
            for _ in range(20):
                assert transport.post("/api/chat", b"{}").status == 200

            assert server.connections == 1

    def test_chunked_reply_is_put_together_and_the_connection_used_again(self) -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

        with serving(replies(chunked, chunked)) as server, connected(server.url) as transport:
            assert [transport.post("/", b"").body for _ in range(2)] == [b"abcde"] * 2
            assert server.connections == 1

    def test_error_reply_leaves_the_connection_usable(self) -> None:
        error = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"

        with serving(replies(error, ok())) as server, connected(server.url) as transport:
            assert transport.post("/", b"") == Reply(503, b"{}", 7.0)
            assert transport.post("/", b"").status == 200
            assert server.connections == 1

    def test_reply_that_closes_is_taken_whole_and_the_next_one_connects_anew(self) -> None:
        with serving(replies(ok(b"a", "Connection: close\r\n"))) as server, connected(server.url) as transport:
            assert [transport.post("/", b"").body for _ in range(3)] == [b"a"] * 3
            assert server.connections == 3

    @pytest.mark.parametrize(
        ("head", "connections"),
        [
            (wording("http-1-1-200-ok-content"), 1),
            (wording("http-1-1-200-ok-content-2"), 1),
            ("HTTP/1.1 200\r\nContent-Length: 2", 1),
            (wording("http-1-1-200-ok-content-3"), 1),
            ("HTTP/1.1 200 OK\r\nno field at all\r\nContent-Length: 2", 1),
            (wording("http-1-1-100-continue-http"), 1),
            ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2", 1),
            (wording("http-1-0-200-ok-content"), 2),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2", 2),
        ],
    )
    def test_head_tells_how_long_the_body_is_and_whether_the_connection_stays(
        self, head: str, connections: int
    ) -> None:
        reply = f"{head}\r\n\r\nab".encode()
        scripts = [replies(*[reply] * (3 - connections)) for _ in range(connections)]

        with serving(*scripts) as server, connected(server.url) as transport:
            assert [transport.post("/", b"").body for _ in range(2)] == [b"ab"] * 2
            assert server.connections == connections

    def test_redirect_is_not_followed_and_the_other_host_sees_nothing(self) -> None:
        with serving(replies(ok())) as other:
            moved = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/api/chat\r\nContent-Length: 0\r\n\r\n".encode()
            with serving(replies(moved)) as server, connected(server.url) as transport:
                assert transport.post("/api/chat", b"{}").status == 307
            assert other.connections == 0

    def test_proxy_of_the_environment_is_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(replies(ok())) as proxy, serving(replies(ok())) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
                monkeypatch.setenv(name, proxy.url)
            with connected(server.url) as transport:
                assert transport.post("/", b"").status == 200
            assert (proxy.connections, server.connections) == (0, 1)

    @pytest.mark.parametrize(
        ("text", "seconds"), [("5", 5.0), ("999999", 3600.0), ("-1", 0.0), ("soon", 0.0), ("²", 0.0)]
    )
    def test_retry_after_is_whole_seconds_or_nothing(self, text: str, seconds: float) -> None:
        reply = f"HTTP/1.1 503 Busy\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")

        with serving(replies(reply)) as server, connected(server.url) as transport:
            assert transport.post("/", b"").retry_after == seconds


class TestTrouble:
    def test_nobody_listens(self) -> None:
        with connected(f"http://127.0.0.1:{unused_port()}") as transport:
            with pytest.raises(RefusedError, match=r"^connection refused$"):
                transport.post("/", b"")
            with pytest.raises(RefusedError):
                transport.post("/", b"")

    def test_name_that_does_not_exist(self) -> None:
        with connected("http://no-such-host.invalid:1") as transport, pytest.raises(RefusedError, match="resolved"):
            transport.post("/", b"")

    def test_server_that_takes_no_connection_costs_the_connect_limit_only(self) -> None:
        # given a listener whose queue is full
        with socket.socket() as listener, contextlib.ExitStack() as stack:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            host, port = listener.getsockname()

            # when, then
            with connected(f"http://{host}:{port}", 0.05) as transport, pytest.raises(RefusedError, match="time limit"):
                transport.post("/", b"")

    @pytest.mark.parametrize(
        "sent",
        [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
            b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"message"',
            b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"message": {}}',
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"mes',
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{mess\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/9.9 200 OK\r\n\r\n",
            b"\x00\xff" * 500,
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        ],
        ids=[
            "nothing",
            "no byte of the body",
            "half a body",
            "half a body that closes",
            "half a chunk",
            "no last chunk",
            "no chunk size",
            "ssh",
            "unknown version",
            "garbage",
            "endless header",
            "too many headers",
        ],
    )
    def test_reply_that_breaks_off_or_is_no_http_is_a_cut_and_the_next_post_works(self, sent: bytes) -> None:
        with serving(replies(sent), replies(ok(b"good"))) as server, connected(server.url) as transport:
            with pytest.raises(CutError):
                transport.post("/", b"")
            assert transport.post("/", b"").body == b"good"

    @pytest.mark.parametrize("body", [b"", b'{"message"'])
    def test_body_cut_without_a_length_cannot_be_told_here_and_is_judged_by_its_json(self, body: bytes) -> None:
        with serving(replies(b"HTTP/1.1 200 OK\r\n\r\n" + body)) as server, connected(server.url) as transport:
            assert transport.post("/", b"").body == body

    @pytest.mark.parametrize("framing", ["Content-Length: 2000", "Connection: close", "Transfer-Encoding: chunked"])
    def test_reply_above_the_cap_is_refused(self, framing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport_module, "MAX_REPLY_BYTES", 1000)
        body = b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n" if "chunked" in framing else b"x" * 2000
        sent = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode() + body

        with serving(replies(sent), replies(ok(b"x" * 1000))) as server, connected(server.url) as transport:
            with pytest.raises(TooLargeError):
                transport.post("/", b"")
            assert len(transport.post("/", b"").body) == 1000

    @pytest.mark.parametrize("size", [b"-1", b"-5", b"", b"fffffffffffffffffffff", b"f" * 60_000])
    @pytest.mark.parametrize("end", ["closes", "floods"])
    def test_chunk_of_an_impossible_size_ends_the_reply(self, size: bytes, end: str) -> None:
        first = CHUNKED + size + b"\r\nabcdefgh"
        script = floods(first, b"x") if end == "floods" else replies(first)

        with serving(script, replies(ok(b"good"))) as server, connected(server.url) as transport:
            with pytest.raises(TooLargeError if size.startswith(b"f") else CutError):  # at once, not at the cap
                transport.post("/", b"")
            assert transport.post("/", b"").body == b"good"

    @pytest.mark.parametrize(
        ("first", "again"),
        [
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"", b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n"),
            (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
            (CHUNKED + b"0\r\n", b"x" * 1000 + b"\n"),
            (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
            (b"", b"x"),
        ],
        ids=["interim heads", "interim heads with fields", "trailer", "long trailer lines", "head", "status line"],
    )
    def test_server_that_never_comes_to_the_point_is_a_cut(self, first: bytes, again: bytes) -> None:
        with serving(floods(first, again), replies(ok(b"good"))) as server, connected(server.url) as transport:
            with pytest.raises(CutError):
                transport.post("/", b"")
            assert transport.post("/", b"").body == b"good"

    @pytest.mark.parametrize("framing", [b"Connection: close", b"Transfer-Encoding: chunked"])
    def test_endless_body_ends_at_the_cap_with_bounded_memory(self, framing: bytes) -> None:
        again = b"10000\r\n" + b"x" * 65536 + b"\r\n" if b"chunked" in framing else b"x"
        script = floods(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n", again)

        with serving(script) as server, connected(server.url) as transport, pytest.raises(TooLargeError):
            transport.post("/", b"")

    def test_compressed_reply_stays_compressed_and_is_no_bomb(self) -> None:
        bomb = gzip.compress(bytes(10**6))

        with (
            serving(replies(ok(bomb, "Content-Encoding: gzip\r\n"))) as server,
            connected(server.url) as transport,
        ):
            assert transport.post("/", b"").body == bomb


class TestKeptAlive:
    def test_connection_that_the_server_closed_is_replaced_before_anything_is_sent(self) -> None:
        closed = threading.Event()

        def once(conn: socket.socket) -> None:
            replies(ok(b"1"))(conn)
            conn.close()
            closed.set()

        with serving(once, replies(ok(b"2"))) as server, connected(server.url) as transport:
            assert transport.post("/", b"").body == b"1"
            assert closed.wait(60)
            assert transport.post("/", b"").body == b"2"
            assert server.connections == 2

    def test_server_that_restarted_meanwhile_is_found_again_or_refused(self) -> None:
        with serving(replies(ok())) as server:
            transport = Transport(server.url)
            assert transport.post("/", b"").status == 200
        with pytest.raises(RefusedError):
            transport.post("/", b"")

    def test_server_that_dies_of_a_request_is_not_asked_the_same_again(self) -> None:
        # given a server that answers once, and whose process dies of the second request
        asked = []

        def dies(conn: socket.socket) -> None:
            read_request(conn)
            conn.sendall(ok())
            asked.append(read_request(conn))

        def comes_back(conn: socket.socket) -> None:
            asked.append(read_request(conn))
            conn.sendall(ok())

        with serving(dies, comes_back) as server, connected(server.url) as transport:
            transport.post("/", b"first")

            # when, then: that is for the scheduler to decide, who counts attempts
            with pytest.raises(CutError):
                transport.post("/", b"poison")
            assert len(asked) == 1


class TestAbort:
    @pytest.mark.parametrize(
        "script",
        [
            hangs(),
            hangs(b"HTTP/1.1 200 OK\r\nContent-Le"),
            hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
            hangs(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{"),
            hangs(b"HTTP/1.0 200 OK\r\n\r\n{"),
            drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"),
            drips(b"HTTP/1.1 200 OK\r\n\r\n{"),
            drips(b"HTTP/1.1 200 OK\r\nX: "),
        ],
        ids=[
            "no byte",
            "half a head",
            "length",
            "length, closes",
            "HTTP/1.0",
            "drips",
            "drips, closes",
            "drips a head",
        ],
    )
    def test_abort_ends_any_wait_and_the_next_post_works(self, script: Script) -> None:
        with serving(script, replies(ok(b"good"))) as server, connected(server.url) as transport:
            # given
            posting = Posting(transport)
            wait_until(lambda: server.connections == 1 and transport._connection is not None)
            time.sleep(0.02)  # no event tells that the other thread has begun to read; sooner or later both must hold

            # when
            transport.abort("timed out")

            # then
            outcome = posting.join()
            assert isinstance(outcome, AbortedError)
            assert str(outcome) == "timed out"
            with pytest.raises(AbortedError):
                transport.post("/", b"")
            transport.arm()
            assert transport.post("/", b"").body == b"good"

    def test_abort_before_the_post_sends_nothing(self) -> None:
        seen = []

        def script(conn: socket.socket) -> None:
            seen.append(read_request(conn))

        with serving(script) as server, connected(server.url) as transport:
            transport.abort("cancelled")

            with pytest.raises(AbortedError, match="cancelled"):
                transport.post("/", b"prompt")

        assert b"".join(seen) == b""

    def test_abort_while_connecting_sends_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # given a connection that takes its time
        seen, connecting, go_on = [], threading.Event(), threading.Event()
        connect = http.client.HTTPConnection.connect

        def slowly(connection: http.client.HTTPConnection) -> None:
            connecting.set()
            assert go_on.wait(60)
            connect(connection)

        def script(conn: socket.socket) -> None:
            seen.append(read_request(conn))

        monkeypatch.setattr(http.client.HTTPConnection, "connect", slowly)
        with serving(script) as server, connected(server.url) as transport:
            # when
            posting = Posting(transport)
            assert connecting.wait(60)
            transport.abort("cancelled")
            go_on.set()

            # then
            assert isinstance(posting.join(), AbortedError)
            wait_until(lambda: bool(seen))
            assert seen == [b""]

    def test_abort_of_an_idle_connection_costs_a_new_one_and_nothing_else(self) -> None:
        with serving(replies(ok(), ok())) as server, connected(server.url) as transport:
            transport.post("/", b"")

            transport.abort("timed out")
            transport.arm()

            assert transport.post("/", b"").status == 200
            assert server.connections == 2

    def test_abort_comes_through_at_any_moment(self) -> None:
        # given a server that answers at once, and aborts that hit at every stage of the exchange
        with serving(replies(*[ok()] * 10_000)) as server, connected(server.url) as transport:
            for number in range(150):
                transport.arm()
                posting = Posting(transport)
                time.sleep(number * 5e-6)
                transport.abort("timed out")

                outcome = posting.join()
                assert isinstance(outcome, Reply | AbortedError)

            transport.arm()
            assert transport.post("/", b"").status == 200
