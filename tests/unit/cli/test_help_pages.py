"""`obcd help`: the list of pages, a page, the help of a command, and a topic that does not exist."""

from __future__ import annotations

import io

import click
import pytest

from obcd import errors
from obcd.cli import help as help_module
from obcd.cli.main import COMMANDS, run
from obcd.errors import ExitCode, ObcdError
from obcd.manual.pages import READING_ORDER, first_sentence, page_names, read_page


class Terminal(io.StringIO):
    """A stream that a person reads."""

    def isatty(self) -> bool:
        return True


def test_list_names_every_page_with_its_first_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == ExitCode.DONE

    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {first_sentence(read_page(name))}" in shown for name in page_names())


def test_page_is_plain_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "configuration"]) == ExitCode.DONE

    assert capsys.readouterr().out == read_page("configuration")


def test_page_is_rendered_and_paged_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    paged: list[str] = []
    monkeypatch.setattr(help_module.sys, "stdout", Terminal())  # type: ignore[attr-defined]
    monkeypatch.setattr(click, "echo_via_pager", paged.append)
    monkeypatch.setenv("TERM", "xterm")

    assert run(["help", "configuration"]) == ExitCode.DONE

    assert "num_ctx" in paged[0]
    assert "\x1b[" in paged[0]
    assert "`" not in paged[0].partition("Top level")[0]


@pytest.mark.parametrize("words", [["submit"], ["host"], ["host", "endpoints"]])
def test_command_shows_its_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", *words]) == ExitCode.DONE
    by_topic = capsys.readouterr().out

    run([*words, "--help"])

    assert by_topic == capsys.readouterr().out


@pytest.mark.parametrize(
    ("topic", "guess"),
    [
        ("configuraton", "nearest: configuration;"),
        ("chekc", "nearest: check"),
        ("burn", "nearest: burn-in;"),
        ("min_free_bytes", "pages that mention it: "),
        ("job_paused", "; pages that mention it: troubleshooting"),
        ("host nothing", ""),
        ("a\x1bb", "a\\x1bb"),
    ],
)
def test_unknown_topic_is_one_sentence_with_the_nearest_names(
    topic: str, guess: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["help", *topic.split()]) == ExitCode.USAGE

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err[:-1].isprintable()
    assert guess in said.err


def test_no_page_is_named_like_a_command() -> None:
    assert set(page_names()) & set(COMMANDS) == set()


def test_pages_that_errors_name_are_pages_of_the_manual() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ObcdError)]
    named = {kind.page for kind in kinds if kind.page}

    assert "configuration" in named
    assert named <= set(READING_ORDER) & set(page_names())


@pytest.mark.parametrize("is_terminal", [True, False])
def test_page_of_an_error_is_named_to_a_person_alone(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)

    assert run(["check", "--config", "/nowhere.toml"]) == ExitCode.CONFIGURATION

    assert stream.getvalue().splitlines()[1:] == (["see: obcd help configuration"] if is_terminal else [])
