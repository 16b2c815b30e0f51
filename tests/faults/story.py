"""Stories: what becomes of some drops, told step by step, so that a crash can come between any two system calls.

A `Run` does in one process what coordinator, clerks and recorder do in theirs, on a real folder. Stopped anywhere, it
is taken up by `go_on`, as by the next coordinator; `assert_whole` then holds what was promised against what is there.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from obcd.core.request.records import JobSettings
from obcd.core.tables.file_format import kept_name
from obcd.errors import ObcdError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.inbox.markers import Marker, read_small
from obcd.spool.inbox.names import marker_of
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, accept, accept_claimed
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import ledger
from obcd.spool.job.job_folder import JobHeader
from obcd.spool.outbox import publication
from tests.unit.spool.spools import answer, failure, lines_of, put_marker

#: The model of every story. Prompts hold this word, so that a log that quotes one is found.
SETTINGS, SECRET = JobSettings(model="llama3.2"), "clandestine"
#: Rounds of "recover, take the inbox" after which everything has to be published.
ROUNDS = 3


def prompt_file(word: str, *lines: str) -> bytes:
    """Return a prompt file; `lines` are prompts, and `bad` and the empty string stand as they are."""
    rows = [text if text in ("", "bad") else json.dumps({"prompt": f"{SECRET} {word} {text}"}) for text in lines]
    return "\n".join(rows).encode() + b"\n"


@dataclass(frozen=True)
class Dropped:
    """One file of a story; its content is its own, so that it is found again in the outbox."""

    content: bytes
    name: str = "notes.jsonl"
    profile: str = ""
    drop_id: str = ""
    kind: str = ""  # "", or ".rejected"
    grows_by: bytes = b""  # what the submitter appends to the claimed original once it is accepted
    same: frozenset[int] = frozenset()  # with `dedupe`: the ordinals that are like one before them

    @property
    def key(self) -> Key:
        return Key(self.profile, self.name)

    @property
    def lines(self) -> list[int]:
        """The numbers of the lines that must have a result."""
        return [number for number, line in enumerate(self.content.split(b"\n"), 1) if line.strip()]


GOOD = Dropped(prompt_file("good", "one", "bad", "two", "three"), profile="clinical", drop_id="d1")
STORIES = {
    "marked": (GOOD,),
    "rejected": (Dropped(b"\n \n", profile="clinical", drop_id="d1", kind=".rejected"),),
    "grown": (Dropped(prompt_file("grown", "one", "", "two"), grows_by=b'{"prompt": "late"}\n'),),
    "two at once": (
        Dropped(prompt_file("first", "one", "two")),
        Dropped(prompt_file("second", "bad", "one", "two"), profile="clinical", drop_id="d2"),
    ),
    "the same twice": (
        Dropped(prompt_file("same", "one", "two", "one", "bad", "", "two", "one"), same=frozenset({2, 4, 5})),
        Dropped(prompt_file("other", "one", "two", "two"), profile="clinical", drop_id="d2", same=frozenset({2})),
    ),
    "one name twice": (Dropped(prompt_file("first", "one")), Dropped(prompt_file("second", "one"))),
}


@dataclass
class Run:
    """One story on one root.

    Attributes:
        recorded: `{(job, ordinal)}` whose results were said to be on disk: they may never be asked again.
        asked: How often each was asked.
        published: Jobs that were said to be published.
        stops: How often the story was stopped.
    """

    layout: Layout
    drops: tuple[Dropped, ...]
    recorded: set[tuple[str, int]] = field(default_factory=set)
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    published: set[str] = field(default_factory=set)
    stops: int = 0
    begun: int = 0  # orders given so far; an order's number is its job's id

    @classmethod
    def begin(cls, root: Path, drops: tuple[Dropped, ...]) -> Run:
        """Make the folders and drop what can lie in the inbox together; one name twice comes one after the other."""
        layout = Layout.at(root)
        layout.create(["clinical"])
        run = cls(layout, drops)
        for dropped in {item.key: item for item in reversed(drops)}.values():
            run.drop(dropped)
        return run

    def drop(self, dropped: Dropped) -> Path:
        path = self.layout.inbox / dropped.profile / dropped.name
        elsewhere = self.layout.root.with_name("elsewhere")
        with elsewhere.open("w+b") as file:  # durable before it is seen: what a submitter loses is another story
            file.write(dropped.content)
            file.flush()
            os.fsync(file.fileno())
        elsewhere.rename(path)
        disk.sync_folder(path.parent)
        if dropped.drop_id:
            put_marker(path, bytes=len(dropped.content), drop_id=dropped.drop_id)
        return path

    def elsewhere(self, root: Path) -> Run:
        """Return the same story at the same moment, on what was saved of it to another root; it was stopped here."""
        copy = Run(Layout.at(root), self.drops, set(self.recorded), Counter(self.asked), set(self.published))
        copy.stops, copy.begun = self.stops + 1, self.begun
        return copy

    # --- what coordinator, clerks and recorder do --------------------------------------------------------------------

    def live(self) -> None:
        """Take what lies in the inbox, all of it accepted before the first is answered."""
        headers = [header for dropped in self.lying() if (header := self._accept(dropped)) is not None]
        for header in headers:
            self.ask(header, self.unanswered(header)[:1])
        for header in headers:
            self._finish(header)

    def go_on(self) -> None:
        """Do what a coordinator does that starts on what is there, until all is published."""
        self.layout.create(["clinical"])
        found = recovery.recover(self.layout)
        assert found.damaged == ()
        for job in found.unpublished:
            self.publish(job)
        for header in found.jobs:
            loaded = recovery.begin_job(self.layout, header.id)
            assert loaded is not None, "two crashes are no reason to keep a job apart"
            self._finish(loaded.header)
        for claim in found.claims:
            verdict = accept_claimed(self.layout, self.order(claim.drop, claim.job))
            if isinstance(verdict, Accepted):
                self._finish(verdict.header)
        for _ in range(ROUNDS):
            self.live()
            self._drop_the_rest()
        assert not list(self.lying()), "a file is never taken"

    def lying(self) -> Iterator[Drop]:
        for profile in ("", "clinical"):
            for path in sorted((self.layout.inbox / profile).glob("*.jsonl")):
                marker = marker_of(path)
                found = Marker.parse(read_small(marker)) if marker.exists() else None
                yield Drop(Key(profile, path.name), Identity.of(path.stat()), found)

    def _drop_the_rest(self) -> None:
        """Drop what waited for its name to be free; its submitter comes once the first is out of the inbox."""
        inputs = [path.read_bytes() for path in self.layout.outbox.glob("**/input.jsonl")]
        for key, drops in itertools.groupby(self.drops, lambda dropped: dropped.key):
            missing = [item for item in list(drops)[1:] if item.content not in inputs]
            if missing and not (self.layout.inbox / key.profile / key.name).exists():
                self.drop(missing[0])

    def order(self, drop: Drop, job: str) -> AcceptOrder:
        settings = replace(SETTINGS, dedupe=any(item.same for item in self.drops))
        return AcceptOrder(drop=drop, job=job, settings=settings, max_line_bytes=2**20, reject_torn=True)

    def _accept(self, drop: Drop) -> JobHeader | None:
        self.begun += 1
        verdict = accept(self.layout, self.order(drop, f"job{self.begun:03}"))
        if not isinstance(verdict, Accepted):
            return None
        (dropped,) = [item for item in self.drops if len(item.content) == verdict.header.size]
        if dropped.grows_by:
            claim = self.layout.claim(verdict.header.id, dropped.profile) / dropped.name
            with claim.open("ab") as file:
                file.write(dropped.grows_by)
        return verdict.header

    def unanswered(self, header: JobHeader) -> list[int]:
        """Return the ordinals without a result; what was said to be recorded must have one."""
        done = recovery.load_job(self.layout, header.id).replay.done
        lost = [ordinal for job, ordinal in self.recorded if job == header.id and not done[ordinal]]
        assert not lost, f"results {lost} of {header.id} were recorded and are gone"
        return [ordinal for ordinal, flag in enumerate(done) if not flag]

    def ask(self, header: JobHeader, ordinals: list[int]) -> None:
        """Ask these, the last of several without success, and record what came."""
        if not ordinals:
            return
        folder, records = self.layout.jobs / header.id, []
        places = {ordinal: line for ordinal, line in enumerate(self._line_numbers(header))}
        for ordinal in ordinals:
            self.asked[header.id, ordinal] += 1
            is_bad = len(ordinals) > 1 and ordinal == ordinals[-1]
            records.append((failure if is_bad else answer)(ordinal, line=places[ordinal]))
        writer = ledger.LedgerWriter(folder, (folder / ledger.NAME).stat().st_size)
        try:
            writer.append(records)
        finally:
            writer.close()
        self.recorded |= {(header.id, ordinal) for ordinal in ordinals}

    def _line_numbers(self, header: JobHeader) -> list[int]:
        (dropped,) = [item for item in self.drops if len(item.content) == header.size]
        return dropped.lines

    def _finish(self, header: JobHeader) -> None:
        self.ask(header, self.unanswered(header))
        self.publish(header.id)

    def publish(self, job: str) -> None:
        publication.publish(self.layout, job, {})
        self.published.add(job)

    # --- what must be so ----------------------------------------------------------------------------------------------

    def assert_shown_whole(self) -> None:
        """Assert, at any moment, that what can be seen in the outbox is finished, and holds what was published."""
        jobs = set()
        for folder in self._shown():
            assert (folder / "manifest.json").exists(), f"{folder.name} is shown and not finished"
            document = disk.read_json(folder / "manifest.json")
            jobs.add(document["job"])
            kept = kept_name(document["name"]) if "rejected" in document else "input.jsonl"
            for name in ("responses.jsonl", kept)["rejected" in document :]:
                assert (folder / name).exists(), f"{folder.name} is shown without {name}"
        assert self.published <= jobs, f"{self.published - jobs} had been published and are gone"

    def assert_whole(self) -> None:
        """Assert I1 to I5 and I7 after the last recovery."""
        self.assert_shown_whole()
        shown = self._shown()
        assert len(shown) == len(self.drops), [str(folder) for folder in shown]
        for dropped in self.drops:
            self._assert_answered(dropped, shown)
        assert all(count <= 1 + self.stops for count in self.asked.values()), "asked more often than it was in flight"
        self._assert_no_leftovers()

    def _shown(self) -> list[Path]:
        folders = [path for path in self.layout.outbox.iterdir() if path.name != "clinical"]
        profile = self.layout.outbox / "clinical"
        return folders + (list(profile.iterdir()) if profile.exists() else [])

    def _assert_answered(self, dropped: Dropped, shown: list[Path]) -> None:
        found = [folder for folder in shown if (folder / "input.jsonl").read_bytes() == dropped.content]
        assert len(found) == 1, f"{dropped.content!r} is there {len(found)} times"
        (folder,) = found
        document = disk.read_json(folder / "manifest.json")
        assert folder.parent == self.layout.outbox / dropped.profile
        assert folder.name in {f"notes{dropped.kind}", f"notes.{document['job']}{dropped.kind}"}
        assert document["drop_id"] == dropped.drop_id
        names = {path.name for path in folder.iterdir()}
        if dropped.kind:
            assert names == {"input.jsonl", "manifest.json", "why.txt"}
            return
        errors = lines_of(folder / "errors.jsonl") if "errors.jsonl" in names else []
        responses = lines_of(folder / "responses.jsonl")
        assert sorted(item["line"] for item in responses + errors) == dropped.lines
        assert document["counts"]["responses"] == len(responses)
        assert document["counts"]["same"] == len(dropped.same)
        assert not {ordinal for job, ordinal in self.asked if job == document["job"]} & dropped.same
        retry = (folder / "retry.jsonl").read_bytes().count(b"\n") if errors else 0
        assert document["counts"]["failures"] == len(errors) == retry
        expected = {"input.jsonl", "responses.jsonl", "manifest.json"}
        expected |= {"errors.jsonl", "retry.jsonl"} if errors else set()
        expected |= {"input.modified.jsonl"} if document["input"]["modified_after_accept"] else set()
        assert names == expected, f"{sorted(names)} instead of {sorted(expected)}"

    def _assert_no_leftovers(self) -> None:
        layout = self.layout
        assert list(layout.jobs.iterdir()) == list(layout.claims.iterdir()) == []
        assert {path.name for path in layout.inbox.glob("**/*")} == {".obcd", "claim", "clinical"}
        assert {path.name for path in layout.root.iterdir()} == {"inbox", "jobs", "outbox"}
        assert set(layout.root.parent.iterdir()) <= {layout.root, layout.runtime}, "something lies outside of the root"


def recover(run: Run) -> None:
    """Let the next coordinator finish the story and judge the outcome; whatever goes wrong is a failed assertion."""
    try:
        run.go_on()
        run.assert_whole()
    except (OSError, ValueError, KeyError, TypeError, ObcdError) as error:
        raise AssertionError(f"the recovery failed: {error!r}") from error
