from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.host.servers.log_files import find_log, follow, last_lines, last_words
from tests.golden.wording import wording


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "gpu0.log"
    path.write_text("five\nsix\n")
    (folder / "gpu0.log.1").write_text("three\nfour\n")
    (folder / "gpu0.log.2").write_text("one\ntwo\n")
    return path


@pytest.mark.parametrize(
    ("count", "lines"),
    [(0, []), (1, ["six"]), (3, ["four", "five", "six"]), (99, ["one", "two", "three", "four", "five", "six"])],
)
def test_the_last_lines_reach_into_rotated_files(log: Path, count: int, lines: list[str]) -> None:
    assert last_lines(log, count) == lines


def test_what_comes_after_the_look_is_left_to_the_following(log: Path) -> None:
    size = log.stat().st_size
    with log.open("a") as file:
        file.write("seven\n")
    assert last_lines(log, 1, size) == ["six"]
    assert next(follow(log, size)) == "seven"


def test_a_rotation_loses_no_line(log: Path) -> None:
    lines = follow(log, log.stat().st_size)
    with log.open("a") as file:
        file.write("seven\n")
    assert next(lines) == "seven"
    with log.open("a") as file:
        file.write("eight\n")
    log.rename(log.with_name("gpu0.log.9"))
    log.write_text("nine\nten\n")
    assert list(islice(lines, 3)) == ["eight", "nine", "ten"]


def test_a_terminal_gets_no_control_characters(log: Path) -> None:
    log.write_bytes(b"\x1b[2Jred\tblue C:\\x \xff\n")
    (line,) = last_lines(log, 1)
    assert line.isprintable()
    assert line.startswith("\\x1b[2Jred ")
    assert line.endswith("blue C:\\x \ufffd")


def test_a_log_that_is_not_there_is_named(log: Path) -> None:
    assert find_log(log.parent.parent, "gpu0") == log
    with pytest.raises(InputError, match=wording("gpu7-has-no-log")):
        find_log(log.parent.parent, "gpu7")
    with pytest.raises(InputError, match="no program"):
        find_log(log.parent.parent, "../../etc/passwd")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (wording("a-obcd-port-1-is-held"), wording("port-1-is-held")),
        ('time=2026-11-22T23:00:00Z level=ERROR msg="no key"\n', 'level=ERROR msg="no key"'),
        ("2026/11/22 23:00:00 listen failed\n", "listen failed"),
        ("Error: old\n[GIN] 2026/11/22 | 200 | GET /api/ps\n", ""),
        ("Error: old\n2026-11-22T23:00:00 INFO starting gpu0\n", ""),
        ("", ""),
    ],
)
def test_the_last_line_is_the_reason_of_an_end_unless_it_is_no_reason(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "gpu0.log").write_text(text)
    assert last_words(tmp_path, "gpu0") == words
    assert not last_words(tmp_path, "gpu1")
