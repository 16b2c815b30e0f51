"""Which job a control file addresses, whose word counts, and what is said when it is in vain."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.coordinator.clerk.calls import Bind, CallFailed
from obcd.coordinator.intake.control_files import MOST_CONTROLS, REFUSED_SECONDS, ControlFiles
from obcd.coordinator.view import JobState
from obcd.spool.inbox import control as spool_control
from obcd.spool.inbox.control import Control, ControlVerb, JobControls
from obcd.spool.inbox.drops import Identity, Key
from obcd.spool.inbox.markers import ORPHAN_SECONDS
from obcd.spool.job.job_folder import JobHeader
from tests.golden.wording import wording
from tests.unit.spool.spools import SETTINGS, make_layout

ME = os.getuid()
ANN, BOB = ME + 1, ME + 2
NOTES = Key("", "notes.jsonl")


def is_nowhere(key: Key) -> bool:
    """Say of every file that it is not on its way."""
    return False


class FakeJobs:
    """Stands for the jobs: keeps what is done to them."""

    def __init__(self) -> None:
        self.headers: list[JobHeader] = []
        self.complete: set[str] = set()
        self.paused: frozenset[str] = frozenset()
        self.bound: dict[str, JobControls] = {}
        self.revision = 0
        self.resumed: list[str] = []

    def add(self, job: str, uid: int = ANN, name: str = "notes.jsonl", accepted_at: float = 0.0) -> None:
        self.headers.append(JobHeader(id=job, name=name, uid=uid, accepted_at=accepted_at, settings=SETTINGS))
        self.revision += 1

    def addressable(self) -> tuple[JobHeader, ...]:
        return tuple(self.headers)

    def state(self, job: str) -> JobState:
        return JobState.COMPLETE if job in self.complete else JobState.RUNNING

    def pause(self, jobs: frozenset[str]) -> None:
        self.paused = jobs

    def resume(self, job: str) -> None:
        self.resumed.append(job)

    def bind(self, job: str, controls: JobControls) -> None:
        self.bound[job] = controls


class Bench:
    """Control files that are made up and not read, and a clerk that does nothing."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout = make_layout(root)
        self.jobs = FakeJobs()
        self.submitted: list[tuple[Bind, Callable[[JobControls | CallFailed | None], None]]] = []
        self.shown: frozenset[str] = frozenset()
        self.controls = ControlFiles(self.layout, self.jobs, self, self.show)  # type: ignore[arg-type]
        self.files: dict[Key, Control] = {}
        monkeypatch.setattr("obcd.coordinator.intake.control_files.read_control", lambda layout, file: self.files[file])

    def submit(self, call: Bind, then: Callable[[JobControls | CallFailed | None], None]) -> None:
        self.submitted.append((call, then))

    def show(self, jobs: frozenset[str]) -> None:
        self.shown = jobs

    @property
    def calls(self) -> list[Bind]:
        return [call for call, _ in self.submitted]

    def lay(self, verb: ControlVerb, uid: int = ANN, value: int = 0, job: str = "", age: int = 0) -> Key:
        identity = Identity(1, len(self.files), 0, 0, len(self.files) - age)
        control = Control(NOTES, verb, value, uid, identity, job)
        self.files[control.file] = control
        (self.layout.inbox / control.file.name).touch()
        return control.file

    def look(self, *coming: Key, now: float = 0.0) -> dict[Key, str]:
        self.controls.tick(tuple(self.files), lambda key: key in coming, now)
        return self.controls.waiting

    def lies(self, file: Key) -> bool:
        return (self.layout.inbox / file.name).exists()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path / "root", monkeypatch)


def test_newest_unfinished_job_of_the_path_is_meant(bench: Bench) -> None:
    bench.jobs.add("j2", accepted_at=2.0)
    bench.jobs.add("j1", accepted_at=1.0)
    bench.jobs.add("other", name="other.jsonl", accepted_at=3.0)
    bench.lay(ControlVerb.CANCEL)

    assert bench.look() == {}

    assert [(call.control.verb, call.header.id, call.by_daemon) for call in bench.calls] == [
        (ControlVerb.CANCEL, "j2", ME == ANN)
    ]


def test_job_that_is_named_is_meant_though_it_is_not_the_newest(bench: Bench) -> None:
    bench.jobs.add("j1")
    bench.jobs.add("j2", accepted_at=2.0)
    bench.lay(ControlVerb.CANCEL, job="j1")

    bench.look()

    assert bench.calls[0].header.id == "j1"


@pytest.mark.parametrize(("uid", "job"), [(ANN, "ann"), (BOB, "bob"), (ME, "bob")])
def test_submitters_mean_their_own_job_and_the_daemons_user_anybodys(bench: Bench, uid: int, job: str) -> None:
    bench.jobs.add("ann", ANN, accepted_at=1.0)
    bench.jobs.add("bob", BOB, accepted_at=2.0)
    bench.lay(ControlVerb.CANCEL, uid)

    bench.look()

    assert [(call.header.id, call.by_daemon) for call in bench.calls] == [(job, uid == ME)]


@pytest.mark.parametrize("verb", ControlVerb)
def test_nobody_else_may(bench: Bench, verb: ControlVerb) -> None:
    bench.jobs.add("j1", ANN)
    file = bench.lay(verb, BOB)

    assert bench.look() == {file: wording("notes-jsonl-is-somebody-else-s")}
    assert (bench.calls, bench.jobs.paused) == ([], frozenset())

    assert bench.lies(file)
    bench.look(now=REFUSED_SECONDS)
    assert not bench.lies(file)  # where it lies the submitter could not put his own


def test_drop_that_is_on_its_way_is_waited_for_in_silence(bench: Bench) -> None:
    bench.jobs.add("old", accepted_at=1.0)
    bench.lay(ControlVerb.CANCEL)

    assert bench.look(NOTES) == {}
    assert bench.calls == []

    bench.jobs.add("new", accepted_at=2.0)
    bench.look()
    assert bench.calls[0].header.id == "new"


def test_pause_is_in_force_while_it_lies_there(bench: Bench) -> None:
    bench.jobs.add("j1")
    file = bench.lay(ControlVerb.PAUSE)
    bench.look()
    assert bench.jobs.paused == {"j1"}

    del bench.files[file]
    bench.look()
    assert bench.jobs.paused == frozenset()


def test_results_are_shown_while_the_file_lies_there_and_the_job_is_not_over(bench: Bench) -> None:
    bench.jobs.add("j1")
    file = bench.lay(ControlVerb.SHOW)
    assert bench.look() == {}
    assert set(bench.shown) == {"j1"}
    assert not bench.jobs.paused
    assert bench.calls == []

    del bench.files[file]
    bench.look()
    assert bench.shown == frozenset()

    bench.lay(ControlVerb.SHOW)
    bench.look()
    bench.jobs.headers.clear()
    bench.jobs.revision += 1
    assert bench.look() == {}
    assert bench.shown == frozenset()
    assert not bench.lies(file)


def test_nobody_sees_the_results_of_another_user(bench: Bench) -> None:
    bench.jobs.add("j1", ANN)
    file = bench.lay(ControlVerb.SHOW, BOB)

    assert bench.look()[file] == wording("notes-jsonl-is-somebody-else-s")
    assert bench.shown == frozenset()


def test_pause_that_came_before_its_file_holds_the_job_from_the_start(bench: Bench) -> None:
    file = bench.lay(ControlVerb.PAUSE)
    bench.controls.tick(files := tuple(bench.files), is_nowhere, 0.0)
    assert bench.controls.waiting[file].startswith(wording("there-is-no-unfinished-job-of"))

    bench.jobs.add("j1")
    bench.controls.tick(files, is_nowhere, 10.0)  # no scan has come in between

    assert bench.jobs.paused == {"j1"}
    assert bench.controls.waiting == {}


def test_pause_goes_with_the_job_that_it_held(bench: Bench) -> None:
    bench.jobs.add("j1")
    file = bench.lay(ControlVerb.PAUSE)
    bench.look()

    bench.jobs.headers.clear()
    bench.jobs.revision += 1
    bench.look()

    assert not bench.lies(file)


def test_control_of_nothing_goes_after_an_hour_and_a_pause_stays(bench: Bench) -> None:
    cancel, pause = bench.lay(ControlVerb.CANCEL), bench.lay(ControlVerb.PAUSE)
    bench.look(now=5.0)
    bench.look(now=4.0 + ORPHAN_SECONDS)
    assert bench.lies(cancel)

    bench.look(now=5.0 + ORPHAN_SECONDS)

    assert (bench.lies(cancel), bench.lies(pause)) == (False, True)


def test_one_control_file_is_bound_once_until_the_clerk_answered(bench: Bench) -> None:
    bench.jobs.add("j1")
    bench.lay(ControlVerb.CANCEL)
    bench.look()
    bench.look()
    assert len(bench.calls) == 1

    bench.submitted.pop()[1](JobControls(canceller=ANN))
    assert bench.jobs.bound == {"j1": JobControls(canceller=ANN)}


def test_what_the_disk_refuses_is_tried_again(bench: Bench) -> None:
    bench.jobs.add("j1")
    bench.lay(ControlVerb.CANCEL)
    bench.look()

    bench.submitted.pop()[1](CallFailed("No space left on device", is_disk=True))
    bench.look()

    assert (len(bench.calls), bench.jobs.bound) == (1, {})


def test_job_that_is_complete_cannot_be_cancelled(bench: Bench) -> None:
    bench.jobs.add("j1")
    bench.jobs.complete = {"j1"}
    file = bench.lay(ControlVerb.CANCEL)

    assert bench.look() == {file: wording("the-job-is-complete-its-answers")}
    assert bench.calls == []


@pytest.mark.parametrize(("pauser", "resumer", "may"), [(ANN, ANN, True), (ME, ANN, False), (ANN, ME, True)])
def test_pause_of_somebody_else_is_not_the_submitters_to_take_away(
    bench: Bench, pauser: int, resumer: int, may: bool
) -> None:
    bench.jobs.add("j1", ANN)
    bench.lay(ControlVerb.PAUSE, pauser)
    file = bench.lay(ControlVerb.RESUME, resumer)

    waiting = bench.look()

    assert bool(bench.calls) == may
    assert (file in waiting) != may


def test_newer_of_two_priorities_comes_last_and_counts(bench: Bench) -> None:
    bench.jobs.add("j1")
    bench.lay(ControlVerb.PRIORITY, value=5)
    bench.lay(ControlVerb.PRIORITY, value=1)

    bench.look()

    assert [call.control.value for call in bench.calls] == [5, 1]


def test_flood_of_control_files_is_looked_at_in_part(bench: Bench) -> None:
    bench.jobs.add("j1")
    files = [Key("", f"n{number:04}.jsonl.pause") for number in range(MOST_CONTROLS + 5)]
    looked = []

    def read(layout: object, file: Key) -> Control:
        looked.append(file)
        raise FileNotFoundError

    for file in files:
        (bench.layout.inbox / file.name).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obcd.coordinator.intake.control_files.read_control", read)
        bench.controls.tick(files, is_nowhere, 0.0)

    assert len(looked) == MOST_CONTROLS
    assert list(bench.controls.waiting) == files[MOST_CONTROLS:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_flood_of_one_owner_keeps_no_other_ones_file_from_being_obeyed(bench: Bench) -> None:
    # given two jobs' control files behind somebody's thousand, one of them a pause in force
    bench.jobs.add("j1")
    flood = [Key("", f"a{number:04}.jsonl.priority-9") for number in range(MOST_CONTROLS + 50)]
    own = Key("", "z.jsonl.cancel")
    for file in (*flood, own):
        path = bench.layout.inbox / file.name
        path.touch()
        os.chown(path, 1234 if file in flood else 4321, -1)
    bench.controls._in_force = {flood[-1]}
    looked = []

    def read(layout: object, file: Key) -> Control:
        looked.append(file)
        raise FileNotFoundError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("obcd.coordinator.intake.control_files.read_control", read)
        bench.controls.tick([*flood, own], is_nowhere, 0.0)

    assert own in looked
    assert looked[0] == flood[-1]
    assert len(looked) == MOST_CONTROLS


def test_file_that_cannot_be_read_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.jobs.add("j1")
    file = Key("", "notes.jsonl.priority-high")
    monkeypatch.setattr("obcd.coordinator.intake.control_files.read_control", spool_control.read_control)

    bench.controls.tick((file,), is_nowhere, 0.0)

    assert wording("whole-number-from-100-to-100") in bench.controls.waiting[file]
