from __future__ import annotations

import base64
import io
import json
from functools import partial
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.core.request.lines import parse_line
from obcd.prompts.images import image_from_file
from obcd.prompts.prepare import Wrapping, write_prompts
from obcd.prompts.texts import prompts_from_folder
from obcd.text_files import LeftOut
from tests.golden.wording import wording

PNG = b"\x89PNG\r\n\x1a\n" + b"x" * 60
JPEG = b"\xff\xd8\xff\xe0" + b"y" * 60
WEBP = b"RIFF\x10\0\0\0WEBP" + b"z" * 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scans" / "ward").mkdir(parents=True)
    for name, data in {"b.png": PNG, "a.jpg": JPEG, "ward/c.webp": WEBP}.items():
        (tmp_path / "scans" / name).write_bytes(data)
    return tmp_path / "scans"


def test_pictures_become_lines_in_the_order_of_their_names(folder: Path) -> None:
    out, left = io.BytesIO(), list[LeftOut]()

    wrapping = Wrapping(template="What is in {text}?", may_be_same=True)
    done = write_prompts(prompts_from_folder(folder, ("*",), image_from_file), wrapping, out, left.append)

    requests = [parse_line(line, 1) for line in out.getvalue().splitlines()]
    assert (done.prompts, left) == (3, [])
    assert [request.id for request in requests] == ["a.jpg", "b.png", "ward/c.webp"]
    assert requests[1].prompt == wording("what-is-in-b-png")
    images = [base64.b64encode(picture).decode() for picture in (JPEG, PNG, WEBP)]
    assert [request.messages[0]["images"] for request in requests] == [[image] for image in images]


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("notes.png", b"a text", wording("it-is-no-picture-that-ollama")),
        ("a.gif", b"GIF89a" + b"x" * 60, wording("it-is-no-picture-that-ollama")),
        ("empty.png", b"", wording("it-is-empty")),
        ("large.png", PNG + b"x" * 100, wording("it-is-larger-than-100-bytes")),
    ],
)
def test_what_is_no_picture_is_left_out_by_a_sentence(folder: Path, name: str, data: bytes, sentence: str) -> None:
    (folder / name).write_bytes(data)

    found = list(prompts_from_folder(folder, ("*",), partial(image_from_file, most_bytes=100)))

    assert [item for item in found if isinstance(item, LeftOut)] == [LeftOut(name, sentence)]
    assert len(found) == 4


def test_command_packs_a_folder(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").write_text("no picture")

    assert run(["prepare", str(folder), "--images", "-o", str(tmp_path / "out.jsonl")]) == 3

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert {line["prompt"] for line in lines} == {wording("describe-this-picture")}
    assert "notes.txt" in capfd.readouterr().err


def test_command_wants_a_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["prepare", str(folder / "b.png"), "--images"]) == 2
    assert wording("images-wants-a-folder-of-pictures") in capfd.readouterr().err
