"""Whose drop is taken next: submitters take turns, whatever each of them has dropped."""

from __future__ import annotations

import pytest

from obcd.coordinator.clerk.calls import LARGE_BYTES
from obcd.coordinator.intake.admission import MOST_TOLD, Admission
from obcd.coordinator.jobs.job_index import JobIndex
from obcd.core.request.records import JobSettings
from obcd.core.user_limits import NOTHING, UserLimits, UserUsage
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.job.job_folder import JobHeader


def drop(uid: int, name: str, size: int = 100) -> Drop:
    return Drop(Key("", name), Identity(1, 1, size, 0, 0, uid), None)


def taken(admission: Admission) -> list[str]:
    names = []
    while (next_one := admission.take_next(is_large=False)) is not None:
        names.append(next_one.key.name)
    return names


@pytest.mark.case("F12")
def test_single_file_does_not_wait_for_somebody_elses_five_thousand() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    for number in range(5000):
        admission.offer(drop(1, f"many{number}"))
    admission.offer(drop(2, "single"))

    first = [admission.take_next(is_large=False) for _ in range(3)]

    assert [item.key.name for item in first if item is not None] == ["many0", "single", "many1"]


def test_large_files_have_lines_of_their_own_and_a_name_is_in_one() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    for name in ("large", "larger", "grown"):
        admission.offer(drop(1, name, size=LARGE_BYTES + 1))
    for name in ("a", "b"):
        admission.offer(drop(1, name, size=LARGE_BYTES))
    admission.offer(drop(1, "grown"))  # it was sent anew, and is small now

    large = [admission.take_next(is_large=True) for _ in range(3)]

    assert [item.key.name for item in large if item is not None] == ["large", "larger"]
    assert taken(admission) == ["a", "b", "grown"]


def test_who_is_over_his_limit_is_told_so_of_both_his_lines() -> None:
    admission = Admission(UserLimits(jobs=2), lambda uid: UserUsage(2, 200))
    admission.offer(drop(1, "large", size=LARGE_BYTES + 1))
    admission.offer(drop(1, "small"))

    assert admission.take_next(is_large=True) is None
    assert admission.take_next(is_large=False) is None

    assert {key.name for key in admission.waiting("")} == {"large", "small"}


def test_files_of_one_submitter_are_taken_as_they_came() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    for name in ("a", "b", "c"):
        admission.offer(drop(1, name))

    assert taken(admission) == ["a", "b", "c"]


@pytest.mark.case("F13")
def test_who_is_over_his_limit_waits_and_the_others_go_on() -> None:
    held = {1: UserUsage(2, 200), 2: NOTHING}
    admission = Admission(UserLimits(jobs=2), held.__getitem__)
    for number in range(MOST_TOLD + 5):
        admission.offer(drop(1, f"many{number}"))
    admission.offer(drop(2, "other"))

    assert taken(admission) == ["other"]
    waiting = admission.waiting("")
    assert len(waiting) == MOST_TOLD
    assert all("user_jobs" in why for why in waiting.values())

    held[1] = UserUsage(1, 100)
    first = admission.take_next(is_large=False)
    assert first is not None
    assert first.key.name == "many0"


def test_newer_file_of_a_name_takes_the_place_of_the_older_whosever_it_is() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    admission.offer(drop(1, "a"))
    admission.offer(drop(2, "a", size=200))

    found = admission.take_next(is_large=False)

    assert found is not None
    assert (found.identity.uid, found.identity.size) == (2, 200)
    assert not admission


def test_what_has_gone_is_forgotten() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    for name in ("a", "b"):
        admission.offer(drop(1, name))

    admission.keep_only({Key("", "b")})

    assert Key("", "a") not in admission
    assert Key("", "b") in admission
    assert taken(admission) == ["b"]


def test_an_obstacle_holds_all_up() -> None:
    admission = Admission(UserLimits(), lambda uid: NOTHING)
    admission.offer(drop(1, "a"))
    admission.offer(drop(2, "b"))

    assert set(admission.waiting("no room").values()) == {"no room"}
    assert admission.waiting("") == {}


def test_unfinished_jobs_are_counted_once_and_until_they_end() -> None:
    unfinished = JobIndex()
    headers = [
        JobHeader(id=f"job{number}", name=name, uid=uid, size=100, settings=JobSettings(model="m"))
        for number, (uid, name) in enumerate([(1, "a"), (1, "b"), (2, "a")])
    ]
    for header in [*headers, headers[0]]:
        unfinished.add(header)

    assert (unfinished.held(1), unfinished.held(2), unfinished.held(3)) == (
        UserUsage(2, 200),
        UserUsage(1, 100),
        NOTHING,
    )
    assert unfinished.named("a") == (headers[0], headers[2])

    for job in ("job0", "job0", "unknown"):
        unfinished.remove(job)
    assert unfinished.held(1) == UserUsage(1, 100)
    assert unfinished.named("a") == (headers[2],)
    unfinished.remove("job1")
    assert unfinished.held(1) == NOTHING
