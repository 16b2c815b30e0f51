from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from obcd.host.watch.watch_rules import (
    Action,
    Condition,
    Facts,
    ProbeAnswer,
    WatchLimits,
    WatchVerb,
    has_had_its_chance,
    judge,
)
from obcd.ollama.loaded import Loaded
from tests.golden.wording import wording

LIMITS = WatchLimits()
RUNNING = Facts(state="RUNNING", pid=10, age_seconds=1000.0, probe=1, answer=ProbeAnswer.ANSWERED)
WHOLE = Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=100)
ON_CPU = replace(WHOLE, vram_bytes=0)


class Story:
    """One server over time; `see` is one turn of the watch."""

    def __init__(self, facts: Facts = RUNNING) -> None:
        self.facts, self.condition, self.now = facts, Condition(), 1000.0

    def see(self, after: float = 1.0, **changes: object) -> tuple[Action, ...]:
        """Let time pass, change what is seen, and return what is done; a new probe comes with a new answer."""
        self.now += after
        if "answer" in changes or "models" in changes:
            changes.setdefault("probe", self.facts.probe + 1)
        self.facts = replace(self.facts, **changes)  # type: ignore[arg-type]
        verdict = judge(self.facts, self.condition, self.now, LIMITS)
        self.condition = verdict.condition
        return verdict.actions

    def answered(self) -> Story:
        self.see()
        self.see(answer=ProbeAnswer.ANSWERED)
        assert self.condition.has_answered
        return self


@pytest.fixture
def story() -> Story:
    """Return one whose server has answered."""
    return Story().answered()


def verbs(actions: tuple[Action, ...]) -> list[WatchVerb]:
    return [action.verb for action in actions]


def test_a_server_that_answers_is_left_in_peace(story: Story) -> None:
    assert [story.see(5, answer=ProbeAnswer.ANSWERED, models=(WHOLE,)) for _ in range(100)] == [()] * 100
    assert (story.condition.trouble, story.condition.remark) == ("", "")


def test_three_hung_probes_in_a_row_end_a_server_that_had_answered(story: Story) -> None:
    assert [verbs(story.see(4, answer=ProbeAnswer.HUNG)) for _ in range(3)] == [[], [], [WatchVerb.TERM]]


def test_a_probe_is_counted_once_however_often_it_is_seen(story: Story) -> None:
    story.see(4, answer=ProbeAnswer.HUNG)
    assert [story.see(0.5) for _ in range(20)] == [()] * 20
    assert story.condition.hangs == 1


def test_an_answer_between_hung_probes_begins_the_count_anew(story: Story) -> None:
    answers = [ProbeAnswer.HUNG, ProbeAnswer.HUNG, ProbeAnswer.ANSWERED] * 5
    assert [story.see(4, answer=answer) for answer in answers] == [()] * 15


@pytest.mark.parametrize(("age", "done"), [(100.0, []), (200.0, [WatchVerb.TERM])])
def test_a_server_that_never_answered_may_hang_for_as_long_as_a_start_takes(age: float, done: list[WatchVerb]) -> None:
    story = Story(replace(RUNNING, answer=ProbeAnswer.UNKNOWN, probe=0, age_seconds=age))
    story.see()
    for _ in range(2):
        story.see(4, answer=ProbeAnswer.HUNG)
    assert verbs(story.see(4, answer=ProbeAnswer.HUNG)) == done


def test_a_process_that_heeds_no_term_is_killed_and_only_then_again(story: Story) -> None:
    story.see(is_card_gone=True)
    assert verbs(story.see(3.9)) == []
    assert verbs(story.see(0.2)) == [WatchVerb.KILL]
    assert verbs(story.see(1)) == []
    assert verbs(story.see(4)) == [WatchVerb.KILL]


def test_refused_connections_are_borne_for_a_minute(story: Story) -> None:
    story.see(answer=ProbeAnswer.REFUSED)
    assert story.see(59, answer=ProbeAnswer.REFUSED) == ()
    assert verbs(story.see(2, answer=ProbeAnswer.REFUSED)) == [WatchVerb.TERM]


def test_a_server_that_waits_for_a_pull_is_neither_hung_nor_refusing() -> None:
    story = Story(replace(RUNNING, answer=ProbeAnswer.UNKNOWN, probe=0, is_pulling=True))
    story.see()
    assert [story.see(100, answer=ProbeAnswer.REFUSED) for _ in range(10)] == [()] * 10
    assert story.condition.remark == wording("it-waits-for-a-pull-to")
    story.see(answer=ProbeAnswer.ANSWERED)
    for _ in range(2):
        story.see(4, answer=ProbeAnswer.HUNG)
    assert verbs(story.see(4, answer=ProbeAnswer.HUNG)) == [WatchVerb.TERM]


@pytest.mark.parametrize(
    ("has_card", "model", "done", "remark"),
    [
        (True, ON_CPU, [WatchVerb.TERM], ""),
        (False, ON_CPU, [], ""),
        (True, replace(WHOLE, vram_bytes=40), [], wording("llama3-2-latest-lies-to-40")),
        (True, replace(WHOLE, size_bytes=0, vram_bytes=0), [], ""),
    ],
)
def test_a_model_off_its_card_is_a_reason_and_one_that_is_too_big_is_not(
    has_card: bool, model: Loaded, done: list[WatchVerb], remark: str
) -> None:
    story = Story(replace(RUNNING, has_card=has_card)).answered()
    assert verbs(story.see(5, models=(model,))) == done
    assert story.condition.remark == remark


def restarted(story: Story, pid: int) -> list[WatchVerb]:
    """Let a server with a model off its card be seen, and come again as it was if it is ended; return what was done."""
    done = verbs(story.see(5, models=(ON_CPU,)))
    if done:
        story.see(1, state="STARTING", pid=pid, models=())
    return done


def test_after_a_restart_it_is_left_alone_with_pauses_that_grow_to_an_hour() -> None:
    story, times = Story().answered(), []
    for turn in range(6000):
        if restarted(story, 100 + turn):
            times.append(story.now)
    gaps = [round(after - before, -1) for before, after in pairwise(times)]
    assert gaps[:4] == [60, 120, 240, 480]
    assert max(gaps) <= 3610
    assert gaps == sorted(gaps)


def test_ten_healthy_minutes_take_the_pauses_back(story: Story) -> None:
    restarted(story, 11)
    story.see(answer=ProbeAnswer.ANSWERED, models=(WHOLE,))
    before = story.condition
    for _ in range(130):
        story.see(5, models=(WHOLE,))
    assert (before.pause, story.condition.pause) == (120, None)
    assert restarted(story, 12) == [WatchVerb.TERM]


def test_a_lost_card_ends_its_server_and_what_waits_for_it_is_left_to_serve_gpu(story: Story) -> None:
    assert verbs(story.see(is_card_gone=True)) == [WatchVerb.TERM]
    story.see(state="STARTING", pid=11)
    story.see(state="BACKOFF", pid=0)
    assert story.condition.trouble == wording("its-card-is-gone")
    story.see(state="STARTING", pid=12)
    assert story.condition.trouble == wording("its-card-is-gone")


@pytest.mark.parametrize(("state", "fault"), [("EXITED", ""), ("BACKOFF", "Exited too quickly (process log …)")])
def test_an_end_that_the_watch_brought_about_is_not_blamed_on_the_server(story: Story, state: str, fault: str) -> None:
    story.see(5, models=(ON_CPU,))
    story.see(1, state=state, pid=0, fault=fault)
    assert story.condition.trouble == wording("it-holds-llama3-2-latest-off")
    story.see(1, state="STARTING", pid=11, models=(), fault="")
    story.see(1, state=state, pid=0, fault=fault)
    assert story.condition.trouble == wording("it-ends-as-soon-as-it")


@pytest.mark.parametrize("state", ["FATAL", "EXITED", "UNKNOWN"])
def test_what_supervisor_gave_up_is_started_for_ever_with_pauses_up_to_a_minute(state: str) -> None:
    story, times = Story(), []
    for _ in range(1000):
        if verbs(story.see(1, state=state, pid=0)) == [WatchVerb.START]:
            times.append(story.now)
    gaps = [after - before for before, after in zip([1001.0, *times], times, strict=False)]
    assert gaps[:5] == [5, 10, 20, 40, 60]
    assert set(gaps[5:]) == {60}


def test_an_end_that_supervisor_mends_itself_is_not_interfered_with(story: Story) -> None:
    assert story.see(state="EXITED", pid=0) == ()
    assert story.see(state="STARTING", pid=11) == ()
    assert [restart.by for restart in story.condition.restarts] == ["supervisor"]


def test_what_a_person_stopped_stays_stopped_and_their_restart_is_theirs(story: Story) -> None:
    assert [story.see(100, state=state, pid=pid) for state, pid in [("STOPPING", 10), ("STOPPED", 0)] * 2] == [()] * 4
    assert story.condition.trouble == wording("stopped-by-a-person")
    story.see(state="STARTING", pid=11)
    assert [restart.by for restart in story.condition.restarts] == ["person"]
    assert story.condition.trouble == ""


def test_its_own_restart_is_the_watch_s_with_the_reason(story: Story) -> None:
    restarted(story, 11)
    (restart,) = story.condition.restarts
    assert (restart.by, restart.reason) == ("watch", wording("it-holds-llama3-2-latest-off-2"))


def test_an_answer_of_the_process_before_says_nothing_of_the_next(story: Story) -> None:
    story.see(models=(ON_CPU,))
    story.see(100, state="RUNNING", pid=11)
    assert not story.condition.is_answering
    assert story.see(100) == ()


@pytest.mark.parametrize(
    ("state", "has_answered", "had"),
    [("STARTING", False, False), ("RUNNING", False, False), ("RUNNING", True, True), ("BACKOFF", False, True),
     ("FATAL", False, True), ("STOPPED", False, True)],
)  # fmt: skip
def test_ready_waits_for_an_answer_or_a_failure(state: str, has_answered: bool, had: bool) -> None:
    assert has_had_its_chance(Facts(state=state), Condition(has_answered=has_answered)) is had


def test_a_later_giving_up_waits_anew() -> None:
    story = Story()
    story.see(state="FATAL", pid=0)
    story.see(1, state="STARTING", pid=11)
    assert story.see(100, state="FATAL", pid=0) == ()
    assert verbs(story.see(5)) == [WatchVerb.START]


def test_refused_connections_between_hung_probes_begin_the_count_anew(story: Story) -> None:
    answers = [ProbeAnswer.HUNG, ProbeAnswer.HUNG, ProbeAnswer.REFUSED] * 3
    assert [story.see(4, answer=answer) for answer in answers] == [()] * 9


def test_ten_healthy_minutes_end_a_long_time_alone(story: Story) -> None:
    story.condition = replace(story.condition, pause=3600.0, next_restart_at=story.now + 3600)
    for _ in range(130):
        story.see(5, models=(WHOLE,))
    assert verbs(story.see(5, models=(ON_CPU,))) == [WatchVerb.TERM]


def test_the_last_restarts_are_kept_and_all_are_counted(story: Story) -> None:
    for pid in range(100, 130):
        story.see(state="STARTING", pid=pid)
    assert (len(story.condition.restarts), story.condition.restart_count) == (20, 30)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (ProbeAnswer.HUNG, "/api/ps hangs"),
        (ProbeAnswer.REFUSED, wording("it-refuses-connections")),
        (ProbeAnswer.STRANGE, wording("it-answers-strangely-does-another-program")),
    ],
)
def test_what_is_no_reason_to_restart_is_said(story: Story, answer: ProbeAnswer, trouble: str) -> None:
    assert story.see(4, answer=answer) == ()
    assert story.condition.trouble == trouble
    story.see(4, answer=ProbeAnswer.ANSWERED)
    assert story.condition.trouble == ""


def test_a_stranger_that_answers_in_its_place_is_no_answer_of_its_own() -> None:
    story = Story()
    story.see()
    assert story.see(answer=ProbeAnswer.ANSWERED, holder="process 812 (ollama)", models=(ON_CPU,)) == ()
    assert (story.condition.is_answering, story.condition.has_answered) == (False, False)
    assert story.condition.trouble == wording("its-port-is-held-by-process")
    story.see(answer=ProbeAnswer.ANSWERED, holder="", models=())
    assert (story.condition.is_answering, story.condition.trouble) == (True, "")


@pytest.mark.parametrize("state", ["BACKOFF", "FATAL"])
def test_why_a_server_does_not_start_is_said_by_the_last_line_of_its_log(story: Story, state: str) -> None:
    story.see(state=state, pid=0, fault="Exited too quickly", last_words="port 11433 is held")
    assert story.condition.trouble == wording("it-does-not-start-port-11433")
    assert not story.condition.is_answering


def test_what_was_wrong_before_a_restart_is_over_once_the_new_process_is_past_its_first_seconds(story: Story) -> None:
    for _ in range(3):
        story.see(4, answer=ProbeAnswer.HUNG)
    story.see(pid=0, state="EXITED")
    story.see(pid=11, state="STARTING", answer=ProbeAnswer.UNKNOWN, age_seconds=1.0)
    assert story.condition.trouble == wording("api-ps-hung-3-times-in")
    story.see(state="RUNNING")
    assert (story.condition.trouble, story.condition.remark) == ("", "it starts")


def test_a_restart_by_a_person_is_told_from_a_stop(story: Story) -> None:
    seen = []
    for state in ("STOPPING", "STOPPED"):
        story.see(0.5, state=state, pid=0)
        seen.append(story.condition.trouble)
    assert seen == [wording("it-ends-as-a-person-asked")] * 2
    story.see(0.5, state="STARTING", pid=11, answer=ProbeAnswer.UNKNOWN)
    assert story.condition.restarts[-1].reason == wording("restarted-by-a-person")
    story.see(state="STOPPED", pid=0)
    story.see(LIMITS.stopped)
    assert story.condition.trouble == wording("stopped-by-a-person")
