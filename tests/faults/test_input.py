"""Content and names that somebody may drop, from the inbox to the outbox; what the unit tests leave out."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Key, Unfit
from obcd.spool.outbox.status_folders import StatusFolders
from tests.support import SOURCES
from tests.unit.spool.spools import (
    THREE,
    accept_bytes,
    accepted,
    drop_of,
    finish,
    lines_of,
    make_layout,
    order_of,
    put,
    scan,
)

Count = Callable[[str], None]
#: Bytes that a process may need for a line or a file of any size, beside what Python itself takes.
MEMORY_BYTES = 64 * 2**20


# --- content ---------------------------------------------------------------------------------------------------------


@pytest.mark.case("E8")
def test_one_bad_line_of_a_thousand_is_one_error_at_its_number(layout: Layout) -> None:
    lines = [b'{"prompt": "line %d"}' % number for number in range(1, 1001)]
    lines[416] = b'{"prompt": "line 417'

    folder = finish(layout, accept_bytes(layout, b"\n".join(lines) + b"\n"))

    assert [item["line"] for item in lines_of(folder / "errors.jsonl")] == [417]
    assert len(lines_of(folder / "responses.jsonl")) == 999


@pytest.mark.case("E9")
def test_file_of_bad_lines_only_ends_as_a_job_of_errors(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, b"x\n[]\n"))

    assert [item["line"] for item in lines_of(folder / "errors.jsonl")] == [1, 2]
    assert (folder / "responses.jsonl").read_bytes() == b""


@pytest.mark.case("E16")
def test_two_lines_of_one_id_are_both_answered_and_keep_it(layout: Layout) -> None:
    folder = finish(layout, accept_bytes(layout, b'{"id": "a", "prompt": "1"}\n{"id": "a", "prompt": "2"}\n'))

    found = [(item["id"], item["line"], item["prompt"]) for item in lines_of(folder / "responses.jsonl")]
    assert found == [("a", 1, "1"), ("a", 2, "2")]


@pytest.mark.case("E17")
def test_line_without_a_usable_id_goes_by_its_number(layout: Layout) -> None:
    content = b'{"prompt": "1"}\n{"id": null, "prompt": "2"}\n{"id": {"visit": 3}, "prompt": "3"}\n'
    folder = finish(layout, accept_bytes(layout, content + b'{"id": "' + b"x" * 2**19 + b'", "prompt": "4"}\n'))

    assert [item["id"] for item in lines_of(folder / "responses.jsonl")] == [1, 2, {"visit": 3}]
    (error,) = lines_of(folder / "errors.jsonl")
    assert (error["line"], error["id"]) == (4, 4)


@pytest.mark.case("E26", "E27", "E18")
def test_shapes_may_be_mixed_and_prompts_pass_through_as_they_are(layout: Layout) -> None:
    prompts = [
        "\x1b[2J\x07",
        "a\nb\r\n",
        "'; DROP TABLE x; --",
        "%s %n {} {0}",
        "\ud800 alone",
        "\x00",
        "a\u2028b\u0085c",
    ]
    shapes = ({"prompt": prompts[0]}, *({"role": "user", "content": text} for text in prompts[1:]))
    content = "".join(json.dumps(document) + "\n" for document in shapes).encode()

    folder = finish(layout, accept_bytes(layout, content))

    assert [item["prompt"] for item in lines_of(folder / "responses.jsonl")] == prompts
    (folder / "responses.jsonl").read_bytes().decode("ascii")


MEASURE = """
import re, sys
from pathlib import Path
from obcd.spool.folders.layout import Layout
from tests.unit.spool.spools import accept_bytes, drop_of, make_layout, order_of
from obcd.spool.intake.acceptance import accept
layout = make_layout(Path(sys.argv[1]))
def peak():  # not ru_maxrss, which begins with the parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
verdict = accept(layout, order_of(drop_of(layout.inbox / "notes.jsonl")))
print(verdict.header.requests, verdict.header.bad_lines, (peak() - before) * 1024)
"""


def accept_measured(layout: Layout) -> tuple[int, int, int]:
    """Accept `notes.jsonl` in a process of its own; return requests, bad lines, and the bytes that it grew by."""
    command = [sys.executable, "-c", MEASURE, str(layout.root)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=True)
    requests, bad, grown = map(int, done.stdout.split())
    return requests, bad, grown


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.case("E10")
def test_line_of_600_megabytes_is_one_error_in_bounded_memory(tmp_path: Path, count: Count) -> None:
    layout = make_layout(tmp_path / "root")
    with (layout.inbox / "notes.jsonl").open("wb") as file:
        file.write(b'{"prompt": "')
        for _ in range(600):
            file.write(b"x" * 2**20)
        file.write(b'"}\n{"prompt": "after"}\n')

    requests, bad, grown = accept_measured(layout)

    count(f"a line of 600 MB: the process grew by {grown // 2**20} MiB")
    assert (requests, bad) == (2, 1)
    assert grown < MEMORY_BYTES


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.case("E11")
def test_file_of_a_million_lines_is_accepted_in_bounded_memory(tmp_path: Path, count: Count) -> None:
    layout = make_layout(tmp_path / "root")
    with (layout.inbox / "notes.jsonl").open("wb") as file:
        for number in range(10**6):
            file.write(b'{"prompt": "line %d"}\n' % number)

    requests, bad, grown = accept_measured(layout)

    count(f"a file of 1,000,000 lines: the process grew by {grown // 2**20} MiB")
    assert (requests, bad) == (10**6, 0)
    assert grown < MEMORY_BYTES


# --- names and hostile users -----------------------------------------------------------------------------------------


@pytest.mark.case("F1", "F2")
@pytest.mark.parametrize("kind", ["socket", "device"])
def test_what_is_no_file_is_not_opened(layout: Layout, kind: str) -> None:
    path, inbox = layout.inbox / "odd.jsonl", Inbox(layout.inbox, [], 0.0, require_marker=False)
    with socket.socket(socket.AF_UNIX) as listener:
        if kind == "socket":
            listener.bind(str(path))
        else:
            try:
                os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            except PermissionError:
                pytest.skip("making a device needs root")
        scan(inbox, 0.0)

        assert scan(inbox, 1.0) == []
        assert inbox.waiting == {Key("", "odd.jsonl"): Unfit.SPECIAL}


@pytest.mark.case("F3")
def test_hard_link_to_a_file_of_the_daemon_is_never_read(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where fs.protected_hardlinks is 0 anybody can link anything; the second link gives it away."""
    secret = layout.root / "secret"
    secret.write_bytes(THREE)
    secret.chmod(0o600)
    os.link(secret, layout.inbox / "notes.jsonl")
    monkeypatch.setattr(os, "read", pytest.fail)
    inbox = Inbox(layout.inbox, [], 0.0, require_marker=False)
    scan(inbox, 0.0)

    assert scan(inbox, 100.0) == []
    assert inbox.waiting == {Key("", "notes.jsonl"): Unfit.HARD_LINK}


@pytest.mark.case("F5")
@pytest.mark.parametrize("name", ["..jsonl", "...jsonl", "-rf.jsonl", " .jsonl", "a..b.jsonl", "%s{}.jsonl"])
def test_odd_but_honest_names_stay_inside_the_outbox(layout: Layout, name: str) -> None:
    inbox = Inbox(layout.inbox, [], 0.0, require_marker=False)
    put(layout, THREE, name)
    scan(inbox, 0.0)
    drops = scan(inbox, 1.0)
    for drop in drops:
        header = accepted(layout, order_of(drop))
        finish(layout, header)

    assert bool(drops) != name.startswith(".")
    assert [path.name for path in layout.outbox.iterdir()] == [drop.key.name[:-6] for drop in drops]
    assert {path.name for path in layout.root.iterdir()} == {"inbox", "jobs", "outbox"}


@pytest.mark.case("F6")
@pytest.mark.parametrize(
    "names", [[unicodedata.normalize(form, "Zürich.jsonl") for form in ("NFC", "NFD")], ["Notes.jsonl", "notes.jsonl"]]
)
def test_names_that_look_alike_are_two_jobs_with_two_outputs(layout: Layout, names: list[str]) -> None:
    headers = [accept_bytes(layout, THREE, f"job{number}", name) for number, name in enumerate(names)]

    folders = {finish(layout, header).name for header in headers}

    assert folders == {name.removesuffix(".jsonl") for name in names}


@pytest.mark.case("F7", "D15")
@pytest.mark.parametrize(
    "name", ["notes.waiting", "notes.partial", "notes.rejected", "manifest.json", "input", "index"]
)
def test_name_of_one_of_our_own_files_is_a_name_like_any_other(layout: Layout, name: str) -> None:
    folder = finish(layout, accept_bytes(layout, THREE, name=f"{name}.jsonl"))

    signs = StatusFolders(layout)
    signs.clear()
    signs.show_waiting({Key("", f"{name.removesuffix('.waiting')}.jsonl"): "it is empty"})
    signs.clear()

    assert folder == layout.outbox / name
    assert len(lines_of(folder / "responses.jsonl")) == 3
    assert list(layout.outbox.iterdir()) == [folder]


@pytest.mark.case("F7")
def test_files_of_ours_in_the_inbox_are_passed_over(layout: Layout) -> None:
    inbox = Inbox(layout.inbox, [], 0.0, require_marker=False)
    for name in (".notes.jsonl.tmp", "notes.jsonl.done", "lock"):
        (layout.inbox / name).write_bytes(b"")
    scan(inbox, 0.0)

    assert scan(inbox, 1.0) == []
    assert set(inbox.waiting) == {Key("", "lock")}
    assert drop_of(put(layout, THREE)).key == Key("", "notes.jsonl")
