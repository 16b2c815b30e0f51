"""Tokens come from files that nobody else can read, and are shown nowhere."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from obcd.config.loading import load_settings
from obcd.config.settings import Settings
from obcd.config.tokens import MAX_TOKEN, read_token, with_tokens
from obcd.coordinator.endpoints.changes import compare
from obcd.errors import ConfigurationError
from obcd.secret import Secret
from tests.golden.wording import wording

TOKEN = "s3cr3t-t0k3n.abc~/+=="


def put(path: Path, content: bytes = TOKEN.encode() + b"\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        read_token(path)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    return str(caught.value).replace(str(path), "FILE")


def configured(folder: Path, endpoint: str = "https://gpu.example.org/ollama", file: str = "token") -> Path:
    path = folder / "obcd.toml"
    path.write_text(f'[ollama_instances]\n"{endpoint}" = {{gpu = 0, token_file = "{file}"}}\n"h:1" = 1\n', "utf-8")
    return path


class TestReading:
    @pytest.mark.parametrize("mode", [0o600, 0o400])
    @pytest.mark.parametrize("content", [TOKEN, TOKEN + "\n", f"  {TOKEN}\r\n\n"])
    def test_one_line_in_a_closed_file_is_the_token(self, content: str, mode: int, tmp_path: Path) -> None:
        assert read_token(put(tmp_path / "token", content.encode(), mode)).reveal() == TOKEN

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o622, 0o601])
    def test_file_that_is_open_to_others_is_refused_with_the_command(self, mode: int, tmp_path: Path) -> None:
        said = refusal(put(tmp_path / "token", mode=mode))

        assert said == f"FILE is open to others than its owner (mode {mode:04o}): chmod 0600 FILE"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", wording("holds-no-token")),
            (b" \n", wording("holds-no-token")),
            (b"one\ntwo\n", wording("more-than-one-line")),
            (b"one\rtwo", wording("more-than-one-line")),
            (b"one two\n", wording("no-token-printable-ascii")),
            (b"tok\x00en", wording("no-token-printable-ascii")),
            (b"tok\xc3\xa9n", wording("no-token-printable-ascii")),
            (b"\xef\xbb\xbftoken", wording("no-token-printable-ascii")),
            (b"x" * (MAX_TOKEN + 1), wording("no-token-printable-ascii")),
            (b"x" * 2**20, wording("no-token-printable-ascii")),
        ],
    )
    def test_what_is_no_token_is_refused_and_not_quoted(self, content: bytes, words: str, tmp_path: Path) -> None:
        said = refusal(put(tmp_path / "token", content))

        assert words in said
        assert "two" not in said

    def test_what_is_no_file_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo", 0o600)

        assert wording("is-not-a-regular-file") in refusal(tmp_path / "fifo")
        assert wording("is-not-a-regular-file") in refusal(tmp_path)
        assert wording("there-is-no-file-put-the") in refusal(tmp_path / "nothing")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_file_of_another_user_is_refused(self, tmp_path: Path) -> None:
        path = put(tmp_path / "token")
        os.chown(path, 12345, -1)

        assert refusal(path).startswith(wording("file-belongs-to-12345-who-could"))

    def test_credential_of_systemd_may_show_the_mask_of_an_acl(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put(tmp_path / "proxy", mode=0o440)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

        assert read_token(path).reveal() == TOKEN
        path.chmod(0o444)
        assert wording("is-open-to-others") in refusal(path)


class TestConfiguration:
    def test_token_is_its_endpoint_s_and_no_other_s(self, tmp_path: Path) -> None:
        put(tmp_path / "token")

        first, second = with_tokens(load_settings(configured(tmp_path))).endpoints()

        assert (first.token, second.token) == (Secret(TOKEN), None)

    def test_who_only_drops_files_needs_no_right_to_the_token(self, tmp_path: Path) -> None:
        settings = load_settings(configured(tmp_path))  # there is no file

        assert [item.token for item in settings.endpoints()] == [None, None]

    def test_each_file_that_cannot_be_used_is_named(self, tmp_path: Path) -> None:
        put(tmp_path / "token", mode=0o644)
        with pytest.raises(ConfigurationError) as caught:
            with_tokens(load_settings(configured(tmp_path)))

        assert wording("at-ollama-instances-https-gpu-example") in str(caught.value)
        assert f"chmod 0600 {tmp_path}/token" in str(caught.value)

    @pytest.mark.parametrize("endpoint", ["gpu1:11434", "http://10.0.0.7:80", "http://gpu.example.org/x"])
    def test_token_over_plain_http_is_refused(self, endpoint: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=wording("plain-http-can-read-the-token")):
            load_settings(configured(tmp_path, endpoint))

    @pytest.mark.parametrize("endpoint", ["127.0.0.1:11434", "localhost:1", "http://[::1]:1", "https://10.0.0.7"])
    def test_token_to_this_machine_or_over_tls_is_taken(self, endpoint: str, tmp_path: Path) -> None:
        put(tmp_path / "token")

        assert with_tokens(load_settings(configured(tmp_path, endpoint))).endpoints()[0].token == Secret(TOKEN)

    def test_another_token_is_a_change_of_its_endpoint(self, tmp_path: Path) -> None:
        put(tmp_path / "token")
        before = with_tokens(load_settings(configured(tmp_path)))
        put(tmp_path / "token", b"another")
        after = with_tokens(load_settings(configured(tmp_path)))

        assert before != after
        assert [item.name for item in compare(before, after).altered] == ["https://gpu.example.org/ollama"]
        assert not compare(before, before).altered


#: Every way that values get into texts here.
SHOWN: list[Callable[[Settings], str]] = [
    repr,
    str,
    lambda settings: f"{settings}",
    lambda settings: repr(settings.endpoints()),
    lambda settings: repr(asdict(settings.endpoints()[0])),
    lambda settings: repr(settings.model_dump()),
    lambda settings: settings.model_dump_json(),
    lambda settings: repr(settings.tokens),
    lambda settings: "%s %r %.9s" % ((next(iter(settings.tokens.values())),) * 3),
    lambda settings: repr(copy.deepcopy(settings)),
    lambda settings: repr(vars(settings)),
]


@pytest.mark.case("F21")
@pytest.mark.parametrize("shown", SHOWN)
def test_token_hides_wherever_values_are_shown(shown: Callable[[Settings], str], tmp_path: Path) -> None:
    put(tmp_path / "token")

    assert TOKEN not in shown(with_tokens(load_settings(configured(tmp_path))))


def test_token_is_no_json_and_travels_by_pickle() -> None:
    secret = Secret(TOKEN)

    with pytest.raises(TypeError):
        json.dumps({"token": secret})
    assert pickle.loads(pickle.dumps(secret)) == secret
    assert secret != Secret("another")
    assert len({secret, Secret(TOKEN)}) == 1


def test_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("obcd").info("%s %r", Secret(TOKEN), [Secret(TOKEN)])

    assert TOKEN not in caplog.text
