from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from obcd.errors import AlreadyRunningError, InputError
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.submit import dropping, exactly_once, line_check, marking, target
from obcd.spool.submit.dropping import Submitted, open_source
from obcd.spool.submit.exactly_once import Already, DropRecord, exclusive, find_state_folder, record_path, submit_once
from obcd.spool.submit.marking import ComingError
from obcd.spool.submit.target import find_target
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, finish, make_layout, order_of, scan

WATCHED = tuple(module.__file__ for module in (dropping, line_check, marking, target, exactly_once))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def run(layout: Layout, source: Path, state: Path, name: str = "notes", profile: str = "") -> Submitted | Already:
    target = find_target(layout.inbox, profile, name)
    with open_source(source) as reader:
        return submit_once(layout, reader, target, str(source), 2**20, state)


def take(layout: Layout, number: int = 0) -> list[Accepted]:
    """Take what lies in the inbox, as the coordinator does."""
    drops = scan(Inbox(layout.inbox, ["clinical"], 5.0, require_marker=True), 0.0)
    verdicts = [accept(layout, order_of(drop, f"job{number}-{index}")) for index, drop in enumerate(drops)]
    return [verdict for verdict in verdicts if isinstance(verdict, Accepted)]


# --- a job's whole life ----------------------------------------------------------------------------------------------


def test_job_is_not_submitted_again_at_any_time_of_its_life(layout: Layout, source: Path, state: Path) -> None:
    assert isinstance(run(layout, source, state), Submitted)
    assert isinstance(run(layout, source, state), Already)  # in the inbox

    (accepted,) = take(layout)
    assert isinstance(run(layout, source, state), Already)  # accepted, in no place that we may see

    folder = finish(layout, accepted.header)
    assert isinstance(run(layout, source, state), Already)  # published
    folder.rename(folder.with_name("mine"))
    assert isinstance(run(layout, source, state), Already)  # renamed
    assert take(layout, 1) == []


def test_another_name_or_profile_is_another_job(layout: Layout, source: Path, state: Path) -> None:
    outcomes = [
        run(layout, source, state, name, profile) for name, profile in (("a", ""), ("b", ""), ("a", "clinical"))
    ]

    assert [type(outcome) for outcome in outcomes] == [Submitted] * 3


def test_another_path_to_the_same_inbox_is_the_same_job(layout: Layout, source: Path, state: Path) -> None:
    run(layout, source, state)
    take(layout)
    link = layout.root.with_name("link")
    link.symlink_to(layout.root)

    assert isinstance(run(Layout.at(link), source, state), Already)


@pytest.mark.parametrize("sign", ["notes", "notes.partial", "notes.rejected"])
def test_what_others_submitted_counts_and_holds_when_it_is_gone(
    layout: Layout, source: Path, state: Path, sign: str
) -> None:
    (layout.outbox / sign).mkdir()
    assert run(layout, source, state) == Already("notes.jsonl", wording("is-there", layout.outbox / sign))
    (layout.outbox / sign).rmdir()

    assert isinstance(run(layout, source, state), Already)
    assert take(layout) == []


def test_folder_of_a_profile_is_no_job(layout: Layout, source: Path, state: Path) -> None:
    (layout.outbox / "clinical").mkdir()

    assert isinstance(run(layout, source, state, "clinical"), Submitted)


def test_file_that_somebody_else_put_there_counts(layout: Layout, source: Path, state: Path) -> None:
    (layout.inbox / "notes.jsonl").write_bytes(b"theirs")

    assert run(layout, source, state) == Already("notes.jsonl", wording("it-lies-in-the-inbox"))
    assert (layout.inbox / "notes.jsonl").read_bytes() == b"theirs"


def test_drop_that_failed_is_made_the_next_time(layout: Layout, source: Path, state: Path) -> None:
    source.write_bytes(b"no prompt\n")
    with pytest.raises(InputError, match=wording("its-only-line-is-no-prompt-2")):
        run(layout, source, state)
    source.write_bytes(THREE)

    assert isinstance(run(layout, source, state), Submitted)
    assert len(take(layout)) == 1


@pytest.mark.parametrize("is_shared", [True, False], ids=["one user", "many users"])
def test_of_many_at_the_same_moment_one_submits(layout: Layout, source: Path, tmp_path: Path, is_shared: bool) -> None:
    def go(number: int) -> Submitted | Already:
        state = tmp_path / "states" / ("0" if is_shared else str(number))
        state.mkdir(parents=True, exist_ok=True)
        return run(layout, source, state)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(go, range(24)))

    assert [type(outcome) for outcome in outcomes].count(Submitted) == 1
    assert len(take(layout)) == 1


def test_marker_whose_file_does_not_come_is_told(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly_once, "COMING_SECONDS", 0.0)
    (layout.inbox / "notes.jsonl.done").write_text('{"drop_id": "0123456789abcdef"}', "utf-8")

    with pytest.raises(ComingError, match=wording("its-file-is-on-its-way")):
        run(layout, source, state)
    (layout.inbox / "notes.jsonl.done").unlink()
    assert isinstance(run(layout, source, state), Submitted)


# --- a crash anywhere ------------------------------------------------------------------------------------------------


def crash_at_line(number: int, act: Callable[[], object]) -> bool:
    """Run in a child that ends, as by kill -9, before the `number`-th line of our code; False when it came through."""

    def crash(count: int) -> None:
        if count == number:
            os._exit(9)

    return run_by_line(act, crash) == 9


def run_by_line(act: Callable[[], object], look: Callable[[int], None]) -> int:
    """Run in a child that calls `look` before each line of our code, with the line's number; returns its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "call":
            return trace if frame.f_code.co_filename in WATCHED else None
        if event == "line":
            count += 1
            look(count)
        return trace

    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(None)
        os._exit(0)


def find_moments(act: Callable[[], object], folder: Path) -> tuple[list[int], int]:
    """Return before which lines a kill would leave something else on disk than before the line above, and all lines."""
    seen: list[str] = []
    with tempfile.NamedTemporaryFile("w+", encoding="ascii") as notes:

        def look(count: int) -> None:
            left = repr([(str(path), path.stat().st_nlink, path.is_file() and path.read_bytes()) for path in all_of()])
            if seen[-1:] != [left]:
                seen.append(left)
                print(count, file=notes, flush=True)
            else:
                print(-count, file=notes, flush=True)

        def all_of() -> list[Path]:
            return sorted(folder.rglob("*"))

        assert run_by_line(act, look) == 0
        notes.seek(0)
        numbers = [int(line) for line in notes]
    return [number for number in numbers if number > 0], len(numbers)


def refuse_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))


@pytest.mark.parametrize("has_links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("is_taken_between", [True, False], ids=["taken between", "not taken between"])
def test_killed_at_any_line_it_is_dropped_exactly_once(
    tmp_path: Path, source: Path, has_links: bool, is_taken_between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_links)
    trial, trial_state = make_layout(tmp_path / "trial" / "root"), tmp_path / "trial" / "state"
    trial_state.mkdir()
    moments, lines = find_moments(lambda: run(trial, source, trial_state), tmp_path / "trial")
    seen = set()
    for number in [*moments, lines + 1]:
        layout, state = make_layout(tmp_path / f"root{number}"), tmp_path / f"state{number}"
        state.mkdir()
        assert crash_at_line(number, lambda: run(layout, source, state)) == (number <= lines)  # noqa: B023
        jobs = take(layout, 1) if is_taken_between else []

        outcome = run(layout, source, state)

        seen.add(type(outcome))
        jobs += take(layout, 2)
        assert len(jobs) == 1, f"crash before line {number}"
        assert isinstance(run(layout, source, state), Already)
        assert sorted(path.name for path in layout.inbox.iterdir()) == [".obcd"], f"crash before line {number}"
    assert lines > 100
    assert len(moments) > 10
    assert seen == {Submitted, Already}


def test_crash_of_the_repair_is_repaired(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: Path, __: Path) -> None:
        os._exit(9)

    layout, state = make_layout(tmp_path / "root"), tmp_path / "state"
    state.mkdir()
    with monkeypatch.context() as patch:  # all is written down and the copy lies there, but it has no name
        patch.setattr(os, "link", die)
        assert crash_at_line(0, lambda: run(layout, source, state))
    broken = tmp_path / "broken"
    for folder in (layout.root, state):
        shutil.copytree(folder, broken / folder.name)

    def again() -> None:  # the same crash, at the paths that its record names
        for folder in (layout.root, state):
            shutil.rmtree(folder)
            shutil.copytree(broken / folder.name, folder)

    moments, lines = find_moments(lambda: run(layout, source, state), tmp_path)
    for number in [*moments, lines + 1]:
        again()
        assert crash_at_line(number, lambda: run(layout, source, state)) == (number <= lines)

        run(layout, source, state)

        assert len(take(layout)) == 1, f"crash before line {number}"
    assert lines > 100
    assert len(moments) > 10


def test_ctrl_c_after_it_has_its_name_leaves_it_dropped(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        link(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(layout, source, state)

    assert isinstance(run(layout, source, state), Already)
    (job,) = take(layout)
    assert job.header.drop_id


def test_full_disk_under_the_record_drops_nothing_and_loses_nothing(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 4):
        calls, write = [], os.write

        def full(descriptor: int, data: bytes) -> int:
            calls.append(data)  # noqa: B023
            if len(calls) == number:  # noqa: B023
                return write(descriptor, data[:5])  # noqa: B023
            return write(descriptor, data)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            expected = pytest.raises(InputError, match=wording("cannot-keep-a-record")) if number < 3 else nullcontext()
            with expected:  # the third step only says what the second implies
                run(layout, source, state, f"n{number}")

        run(layout, source, state, f"n{number}")
        assert len(take(layout, number)) == 1


# --- the record ------------------------------------------------------------------------------------------------------


def test_line_without_its_end_was_never_acted_upon(layout: Layout, source: Path, state: Path) -> None:
    path = record_path(state, layout.inbox, find_target(layout.inbox, "", "notes"))
    path.parent.mkdir()
    path.write_bytes(b'{"state": "dropped", "drop_id": "x"}')

    assert isinstance(run(layout, source, state), Submitted)
    states = [json.loads(line)["state"] for line in path.read_bytes().splitlines()[1:]]
    assert states == ["copying", "naming", "dropped"]


@pytest.mark.parametrize("rubbish", [b"\x00\xff\n", b'{"state": "nam\n', b"\n\n"])
def test_torn_line_of_a_record_is_passed_over(layout: Layout, source: Path, state: Path, rubbish: bytes) -> None:
    run(layout, source, state)
    (path,) = (state / "submitted").iterdir()
    path.write_bytes(path.read_bytes() + rubbish)

    with DropRecord(path, layout.inbox) as record:
        assert record.settle()


def line(**changes: object) -> bytes:
    entry = {"state": "naming", "drop_id": "0123456789abcdef", "path": "{inbox}/notes.jsonl", "sha256": "00", "at": ""}
    return json.dumps({**entry, **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        line(state="frozen"),
        line(state=["dropped"]),
        line(drop_id="../../x"),
        line(drop_id="a\x00b"),
        line(drop_id=["x"], path=7),
        line(drop_id=""),
        line(path=""),
        line(path="{inbox}/notes.jsonl\x00"),
        line(path="{inbox}/.obcd/claim/notes.jsonl"),
        line(path="{inbox}/../outbox/notes.jsonl"),
        line(path="{inbox}/.hidden.jsonl"),
        line(path="\ud800/notes.jsonl"),
        line(sha256=5),
        b'{"state": "dropped", "at": "2026-11-22T03:00:00.000Z"}\n',
        b"[]\n",
        b"{}\n",
        b'{"state": ' + b"[" * 100_000 + b"\n",
        line(state="dropped") + b"\0" * 2**20,
    ],
)
def test_record_that_we_cannot_have_written_drops_and_removes_nothing(
    layout: Layout, source: Path, state: Path, content: bytes
) -> None:
    path = record_path(state, layout.inbox, find_target(layout.inbox, "", "notes"))
    path.parent.mkdir()
    path.write_bytes(content.replace(b"{inbox}", os.fsencode(layout.inbox)))
    (layout.inbox / ".0123456789abcdef.tmp").write_bytes(b"theirs")

    with pytest.raises(InputError, match=wording("cannot-be-understood-nothing-was-dropped")) as caught:
        run(layout, source, state)

    assert "\n" not in str(caught.value)
    assert sorted(names_of(layout.inbox)) == [".0123456789abcdef.tmp", ".obcd", "clinical"]


def names_of(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_record_that_is_no_file_is_one_sentence(
    layout: Layout, source: Path, state: Path, make: Callable[[Path], None]
) -> None:
    path = record_path(state, layout.inbox, find_target(layout.inbox, "", "notes"))
    path.parent.mkdir()
    make(path)

    with pytest.raises(InputError, match="record"):
        run(layout, source, state)
    assert take(layout) == []


def test_record_of_another_user_is_not_believed(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(layout, source, state)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(InputError, match=wording("belongs-to-another-user")):
        run(layout, source, state)


def test_submit_gives_up_on_one_of_the_same_name_that_does_not_end(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly_once, "LOCK_SECONDS", 0.05)
    target = find_target(layout.inbox, "", "notes")
    with (
        DropRecord(record_path(state, layout.inbox, target), layout.inbox),
        pytest.raises(AlreadyRunningError, match=wording("another-submit-of-the-same-name")),
    ):
        run(layout, source, state)

    assert isinstance(run(layout, source, state), Submitted)


def test_drop_that_fails_again_and_again_does_not_fill_its_record(
    layout: Layout, source: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactly_once, "LONG_RECORD_BYTES", 2000)
    good = source.read_bytes()
    source.write_bytes(b"no prompt\n")
    for _ in range(30):
        with pytest.raises(InputError, match=wording("is-no-prompt")):
            run(layout, source, state)
    (path,) = (state / "submitted").iterdir()
    assert path.stat().st_size < 3000
    source.write_bytes(good)

    assert isinstance(run(layout, source, state), Submitted)
    assert isinstance(run(layout, source, state), Already)


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"STATE_DIRECTORY": "{0}/unit:{0}/other", "HOME": "{0}"}, "unit"),
        ({"XDG_STATE_HOME": "{0}/xdg", "HOME": "{0}/home"}, "xdg/obcd"),
        ({"XDG_STATE_HOME": "relative", "HOME": "{0}/home"}, "home/.local/state/obcd"),
        ({}, "users/.local/state/obcd"),
    ],
)
def test_state_folder_is_found_and_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    monkeypatch.setattr(exactly_once, "_home_of_user", lambda: str(tmp_path / "users"))

    assert find_state_folder() == tmp_path / folder
    assert (tmp_path / folder).is_dir()


@pytest.mark.parametrize("home", ["", "/dev/null/home"])
def test_state_folder_that_cannot_be_made_is_one_sentence(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(exactly_once, "_home_of_user", lambda: home)

    with pytest.raises(InputError, match="set XDG_STATE_HOME") as caught:
        find_state_folder()
    assert "\n" not in str(caught.value)


def test_second_load_of_a_profile_is_kept_out_until_the_first_ends(layout: Layout, state: Path) -> None:
    with exclusive(state, layout.inbox, "clinical"):
        with (
            pytest.raises(AlreadyRunningError, match=wording("another-submit-lock")),
            exclusive(state, layout.inbox, "clinical"),
        ):
            pytest.fail("two loads at once")
        with exclusive(state, layout.inbox, ""):
            pass
    with exclusive(state, layout.inbox, "clinical") as nothing:
        assert nothing is None


def test_pipe_is_streamed(layout: Layout, state: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as writer:
        writer.write(THREE)
    target = find_target(layout.inbox, "", "piped")

    with os.fdopen(reading, "rb") as reader:
        outcome = submit_once(layout, reader, target, "standard input", 2**20, state)

    assert isinstance(outcome, Submitted)
    assert io.BytesIO((layout.inbox / "piped.jsonl").read_bytes()).read() == THREE


# --- an inbox as it is installed -------------------------------------------------------------------------------------


def as_nobody(act: Callable[[], object]) -> str:
    """Run in a child as uid and gid 65534, without root's rights; returns the outcome's type, or the error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            said = type(act()).__name__
        except BaseException as error:  # noqa: BLE001 - told by the parent
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as answer:
        return answer.read()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else for a while")
def test_submitter_who_may_not_list_the_inbox_submits_once() -> None:
    shared = Path(tempfile.mkdtemp(prefix="obcd-"))
    try:
        layout, state, source = make_layout(shared / "root"), shared / "state", shared / "notes.jsonl"
        source.write_bytes(THREE)
        state.mkdir()
        for path, mode in ((shared, 0o755), (layout.root, 0o755), (layout.inbox, 0o3730), (layout.outbox, 0o2750)):
            path.chmod(mode)
        for path in (layout.inbox, layout.outbox):
            os.chown(path, 0, 65534)
        os.chown(state, 65534, 65534)

        assert as_nobody(lambda: os.listdir(layout.inbox)).startswith("PermissionError")
        said = [as_nobody(lambda: run(layout, source, state)) for _ in range(2)]
        jobs = take(layout)
        said.append(as_nobody(lambda: run(layout, source, state)))

        assert said == ["Submitted", "Already", "Already"]
        assert [job.header.uid for job in jobs] == [65534]
        assert sorted(path.name for path in layout.inbox.iterdir()) == [".obcd"]
    finally:
        shutil.rmtree(shared)
