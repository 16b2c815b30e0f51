from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from obcd.clock import wall
from obcd.errors import InputError
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.arrivals import Inbox
from obcd.spool.inbox.drops import Key, Unfit
from obcd.spool.inbox.markers import Marker
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.submit import dropping
from obcd.spool.submit.dropping import DropChangedError, drop, open_source, submit
from obcd.spool.submit.line_check import LineCheck
from obcd.spool.submit.target import find_target
from tests.golden.wording import wording
from tests.unit.spool.spools import THREE, accepted, order_of, scan


def listing(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.inbox.iterdir() if path.is_file())


def test_submitted_file_lies_in_the_inbox_with_a_marker_that_is_right(layout: Layout, source: Path) -> None:
    done = submit(layout.inbox, source)

    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
    assert (done.name, done.prompts, done.bad) == ("notes.jsonl", 3, 0)
    marker = Marker.parse((layout.inbox / "notes.jsonl.done").read_bytes())
    assert marker == Marker(hashlib.sha256(THREE).hexdigest(), len(THREE), 3, done.drop_id)
    assert source.exists()


def test_submitted_file_is_taken_at_the_first_look(layout: Layout, source: Path) -> None:
    done = submit(layout.inbox, source, "clinical")

    (drop,) = scan(Inbox(layout.inbox, ["clinical"], 5.0, require_marker=True), 0.0)
    header = accepted(layout, order_of(drop))

    assert (header.drop_id, header.profile) == (done.drop_id, "clinical")


def test_name_is_given_its_suffix(layout: Layout, source: Path) -> None:
    submit(layout.inbox, source, name="monday")

    assert listing(layout) == ["monday.jsonl", "monday.jsonl.done"]


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "a\nb", "x" * 200])
def test_name_that_is_no_plain_file_name_is_refused(layout: Layout, source: Path, name: str) -> None:
    with pytest.raises(InputError, match=wording("cannot-be-a-job-s-name")):
        submit(layout.inbox, source, name=name)
    assert listing(layout) == []


def test_bad_lines_are_counted_and_the_first_ten_told(layout: Layout, source: Path) -> None:
    source.write_bytes(THREE + b"x\n" * 12)

    done = submit(layout.inbox, source)

    assert (done.prompts, done.bad, len(done.bad_lines)) == (3, 12, 10)
    assert done.bad_lines[0][0] == 4


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", wording("there-is-no-prompt-in-it-2")),
        (b"\n \n", wording("there-is-no-prompt-in-it-2")),
        (b"x\n", wording("its-only-line-is-no-prompt-2")),
        (b"\x1f\x8b\x08", "gzip"),
        (b'{"prompt": "' + b"x" * 2000 + b'"}\n', wording("line-1-is-longer-than-1024-2")),
    ],
)
def test_what_is_no_prompt_file_is_refused_before_it_is_dropped(
    layout: Layout, source: Path, content: bytes, why: str
) -> None:
    source.write_bytes(content)

    with pytest.raises(InputError, match=why):
        submit(layout.inbox, source, max_line_bytes=1024)
    assert listing(layout) == []


def test_name_that_lies_in_the_inbox_already_is_refused(layout: Layout, source: Path) -> None:
    submit(layout.inbox, source)

    with pytest.raises(InputError, match=wording("lies-in-the-inbox-already")):
        submit(layout.inbox, source)


@pytest.mark.parametrize("content", [b'[{"prompt": "a"}, {"prompt": "b"}]', b'[\n  {\n    "prompt": "a"\n  }\n]\n'])
def test_json_array_is_refused_with_what_takes_it(layout: Layout, source: Path, content: bytes) -> None:
    source.write_bytes(content)

    with pytest.raises(InputError, match=wording("a-json-array-not-json-lines")):
        submit(layout.inbox, source)


def before_link(monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object], refusal: int = 0) -> None:
    """Do something just before the copy gets its name; with `refusal`, links are not possible here."""
    link = os.link

    def acting(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        act(target)
        if refusal:
            raise OSError(refusal, os.strerror(refusal), str(source), None, str(target))
        link(source, target)

    monkeypatch.setattr(os, "link", acting)


@pytest.mark.parametrize("refusal", [0, errno.EPERM, errno.EOPNOTSUPP])
def test_two_who_submit_one_name_at_once_do_not_lose_a_file(
    layout: Layout, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(THREE + THREE)

    def submit_other(target: Path) -> None:
        with pytest.raises(InputError, match=wording("lies-in-the-inbox-already")):
            submit(layout.inbox, other, name=target.name)

    before_link(monkeypatch, submit_other, refusal)

    done = submit(layout.inbox, source)

    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
    assert (layout.inbox / "notes.jsonl").read_bytes() == THREE
    assert Marker.parse((layout.inbox / "notes.jsonl.done").read_bytes()).drop_id == done.drop_id


def test_many_who_submit_one_name_at_once_are_told_the_truth(layout: Layout, tmp_path: Path) -> None:
    def run(number: int) -> str:
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(THREE * (number + 1))
        try:
            return submit(layout.inbox, path, name="notes").drop_id
        except InputError:
            return ""

    with ThreadPoolExecutor(8) as pool:
        winners = [drop_id for drop_id in pool.map(run, range(40)) if drop_id]

    assert len(winners) == 1
    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
    (drop,) = scan(Inbox(layout.inbox, [], 5.0, require_marker=True), 0.0)
    assert drop.marker is not None
    assert drop.marker.drop_id == winners[0]
    assert isinstance(accept(layout, order_of(drop)), Accepted)


@pytest.mark.parametrize("refusal", [0, errno.EPERM])
def test_file_that_was_put_there_meanwhile_is_not_replaced(
    layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    before_link(monkeypatch, lambda target: target.write_text("theirs", "utf-8"), refusal)

    with pytest.raises(InputError, match=wording("lies-in-the-inbox-already")):
        submit(layout.inbox, source)
    assert (layout.inbox / "notes.jsonl").read_text("utf-8") == "theirs"
    assert listing(layout) == ["notes.jsonl"]


def test_drop_without_links_is_whole(layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before_link(monkeypatch, lambda _: None, errno.EOPNOTSUPP)

    submit(layout.inbox, source)

    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
    assert (layout.inbox / "notes.jsonl").read_bytes() == THREE


def test_drop_seen_while_it_has_both_names_is_taken_at_the_next_look(
    layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, unlink = Inbox(layout.inbox, [], 5.0, require_marker=True), Path.unlink
    looks: list[object] = []

    def look_first(path: Path, missing_ok: bool = False) -> None:
        if path.name.endswith(".tmp") and path.exists():
            looks.append((scan(inbox, 0.0), dict(inbox.waiting)))
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", look_first)
        done = submit(layout.inbox, source)

    assert looks == [([], {Key("", "notes.jsonl"): Unfit.HARD_LINK})]
    (drop,) = scan(inbox, 0.1)
    assert (drop.marker is not None, inbox.waiting) == (True, {})
    header = accepted(layout, order_of(drop))
    assert header.drop_id == done.drop_id


@pytest.mark.parametrize(("age", "is_replaced"), [(0.0, False), (3000.0, False), (4000.0, True)])
def test_marker_without_its_file_is_replaced_only_when_it_is_old(
    layout: Layout, source: Path, age: float, is_replaced: bool
) -> None:
    orphan = layout.inbox / "notes.jsonl.done"
    orphan.write_text("{}", "utf-8")
    os.utime(orphan, (wall() - age, wall() - age))

    if is_replaced:
        submit(layout.inbox, source)
        assert "drop_id" in orphan.read_text("utf-8")
        assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]
        return
    with pytest.raises(InputError, match=wording("lies-in-the-inbox-already")):
        submit(layout.inbox, source)
    assert orphan.read_text("utf-8") == "{}"
    assert listing(layout) == ["notes.jsonl.done"]


def test_newer_marker_is_not_taken_for_ours_when_the_drop_fails(
    layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_both_names(target: Path) -> None:
        target.write_text("theirs", "utf-8")
        marker = target.with_name(target.name + ".done")
        marker.rename(target.with_name(".taken"))
        marker.write_text("theirs", "utf-8")

    before_link(monkeypatch, take_both_names)

    with pytest.raises(InputError, match=wording("lies-in-the-inbox-already")):
        submit(layout.inbox, source)
    assert (layout.inbox / "notes.jsonl.done").read_text("utf-8") == "theirs"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_source_that_is_no_regular_file_is_refused_at_once(layout: Layout, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.jsonl"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()

    with pytest.raises(InputError, match=wording("odd-jsonl-is-not-a-regular")):
        submit(layout.inbox, path)
    assert listing(layout) == []


def test_profile_without_a_folder_is_refused(layout: Layout, source: Path) -> None:
    with pytest.raises(InputError, match="not a profile"):
        submit(layout.inbox, source, "clinicl")


def test_source_that_is_not_there_is_named(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=wording("cannot-read-missing-jsonl-no-such")):
        submit(layout.inbox, tmp_path / "missing.jsonl")
    assert listing(layout) == []


def test_inbox_need_not_be_readable(layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object = ".") -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", refuse)

    submit(layout.inbox, source)

    monkeypatch.undo()
    assert listing(layout) == ["notes.jsonl", "notes.jsonl.done"]


def test_drop_that_fails_half_way_leaves_nothing(layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(InputError, match="No space left") as caught:
        submit(layout.inbox, source)
    assert str(caught.value).endswith(wording("delete-something-there-then-submit"))
    assert listing(layout) == []


def test_source_that_grows_as_fast_as_it_is_read_is_given_up(
    layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, calls = LineCheck._check_line, []

    def grow(self: LineCheck, raw: bytes) -> None:
        check(self, raw)
        calls.append(raw)
        assert len(calls) < 10_000, "it is read without end"
        with source.open("ab") as file:
            file.write(THREE * 1000)

    monkeypatch.setattr(LineCheck, "_check_line", grow)

    with pytest.raises(DropChangedError, match=wording("changed-while-it-was-read")):
        submit(layout.inbox, source)
    assert len(calls) < 10
    assert listing(layout) == []


@pytest.mark.parametrize("step", ["copying", "naming", "dropped"])
def test_interruption_leaves_all_or_nothing(layout: Layout, source: Path, step: str) -> None:
    class Interrupted:
        """Steps of which one is the last thing that happens."""

        def copying(self, drop_id: str) -> None:
            self._at("copying")

        def naming(self, sha256: str) -> None:
            self._at("naming")

        def dropped(self) -> None:
            self._at("dropped")

        def _at(self, reached: str) -> None:
            if reached == step:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_source(source) as reader:
        drop(reader, "notes", find_target(layout.inbox, "", "notes"), 2**20, Interrupted())
    assert listing(layout) == (["notes.jsonl", "notes.jsonl.done"] if step == "dropped" else [])


def test_interruption_with_the_return_of_open_leaves_nothing(
    layout: Layout, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path, mode: str, **_: object) -> None:
        path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(dropping, "open", interrupted, raising=False)

    with pytest.raises(KeyboardInterrupt):
        submit(layout.inbox, source)
    assert listing(layout) == []


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"", b"no prompt\n", None])
def test_fault_of_a_file_with_an_odd_name_is_one_line(layout: Layout, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad\n\x1b[31m.jsonl"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InputError, match=r"bad\\n\\x1b\[31m\.jsonl") as caught:
        submit(layout.inbox, path, name="notes")
    assert str(caught.value).isprintable()
