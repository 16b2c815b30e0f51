"""The files of the history: what is written is read again, whatever a crash left between."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from obcd.clock import seconds_of
from obcd.spool.folders import disk
from obcd.spool.history.history_files import DAY_SECONDS, FOLDER, KEEP_DAYS, SEARCH_BYTES, read_history, write_history
from obcd.spool.history.history_line import CardColumns, EndpointColumns, HistoryLine, JobColumns

NOON = seconds_of("2026-11-22T12:00:00.000Z")
LINE = HistoryLine(
    time=NOON,
    seconds=60.0,
    jobs=2,
    waiting=812,
    responses=97,
    failures={"timeout": 1},
    prompt_tokens=9000,
    output_tokens=4100,
    slot_seconds=1920.0,
    busy_seconds=960.0,
    idle_seconds={"endpoint_down": 960.0},
    utilization=0.93,
    power_watts=300.0,
    endpoints=EndpointColumns(
        name=("a", "b"), host=("h", ""), gpu=(0, 1), state=("UP", "DOWN"), slots=(16, 16), in_flight=(16, 0),
        up_seconds=(60.0, 0.0), slot_seconds=(960.0, 960.0), busy_seconds=(960.0, 0.0),
        answered=(97, 0), faults=(1, 0), prompt_tokens=(9000, 0), output_tokens=(4100, 0),
    ),
    cards=CardColumns(
        uuid=("GPU-1",), host=("h",), index=(0,), product=("H100",), utilization=(0.93,), memory_used_bytes=(2**34,),
        power_watts=(300.0,), energy_joules=(8e7,), temperature_celsius=(None,), xid_errors=(1,), last_xid=(79,),
    ),
    active=JobColumns(job=("j1",), done=(98,), failed=(1,), prompt_tokens=(9000,), output_tokens=(4100,),
                      work_seconds=(55.5,)),
)  # fmt: skip


def at(seconds: float) -> HistoryLine:
    return HistoryLine(time=seconds, seconds=60.0)


def times(root: Path, since: float = 0.0) -> list[float]:
    return [line.time for line in read_history(root, since)]


def test_line_survives_its_file(tmp_path: Path) -> None:
    write_history(tmp_path, LINE)

    assert list(read_history(tmp_path)) == [LINE]


def test_brief_line_has_totals_alone(tmp_path: Path) -> None:
    write_history(tmp_path, LINE)

    (line,) = read_history(tmp_path, is_brief=True)

    assert (line.responses, line.failed, line.idle, line.power_watts) == (97, 1, 960.0, 300.0)
    assert (line.endpoints, line.cards, line.active) == (EndpointColumns(), CardColumns(), JobColumns())


def test_without_a_history_there_are_no_lines(tmp_path: Path) -> None:
    assert times(tmp_path) == []


def test_only_lines_since_a_time_are_read_over_the_change_of_a_day(tmp_path: Path) -> None:
    midnight = NOON + DAY_SECONDS / 2
    for moment in (NOON, midnight - 30, midnight + 30, midnight + 90):
        write_history(tmp_path, at(moment))

    assert times(tmp_path, midnight - 30) == [midnight - 30, midnight + 30, midnight + 90]
    assert times(tmp_path, midnight + 60) == [midnight + 90]


@pytest.mark.parametrize("is_brief", [False, True])
def test_lines_since_any_time_are_found_in_a_long_file(tmp_path: Path, is_brief: bool) -> None:
    moments = [NOON + minute * 60 for minute in range(600)]
    for moment in moments:
        write_history(tmp_path, replace(LINE, time=moment))
    path = next((tmp_path / FOLDER).iterdir())
    assert path.stat().st_size > 5 * SEARCH_BYTES

    for since in (0.0, NOON, NOON + 1, *moments[::37], moments[-1], moments[-1] + 1):
        found = [line.time for line in read_history(tmp_path, since, is_brief=is_brief)]
        assert found == [moment for moment in moments if moment >= since]


def test_long_file_with_damage_gives_the_lines_around_it(tmp_path: Path) -> None:
    for minute in range(600):
        write_history(tmp_path, replace(LINE, time=NOON + minute * 60))
    path = next((tmp_path / FOLDER).iterdir())
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2 - 3000)
        file.write(b"\0" * 6000)

    assert times(tmp_path, NOON + 599 * 60) == [NOON + 599 * 60]
    assert len(times(tmp_path)) > 580


def test_torn_line_is_skipped_and_the_next_one_is_whole(tmp_path: Path) -> None:
    write_history(tmp_path, at(NOON))
    path = next((tmp_path / FOLDER).iterdir())
    path.write_bytes(path.read_bytes() * 2)
    for cut in range(1, len(path.read_bytes()) // 2, 40):
        os.truncate(path, path.stat().st_size - cut)

        assert times(tmp_path)[:1] == [NOON] or path.stat().st_size < 100
        before = len(times(tmp_path))
        write_history(tmp_path, at(NOON + cut))

        assert times(tmp_path)[before:] == [NOON + cut]


@pytest.mark.parametrize(
    "raw",
    [
        b"\0" * 4096 + b"\n",
        b"null\n[]\n7\n",
        b"[" * 100_000 + b"\n",
        b'{"time": 1e999, "seconds": 60}\n',
        b'{"time": 1795348800, "seconds": -1}\n',
        b'{"time": 1795348800, "seconds": 60, "endpoints": {"name": ["a"], "slots": [1, 2]}}\n',
        b'{"time": 1795348800, "seconds": 60, "cards": 7}\n',
    ],
)
def test_damaged_lines_are_skipped(tmp_path: Path, raw: bytes) -> None:
    write_history(tmp_path, at(NOON))
    path = next((tmp_path / FOLDER).iterdir())
    path.write_bytes(raw + path.read_bytes() + raw)

    assert times(tmp_path) == [NOON]


def test_line_of_an_earlier_version_is_filled(tmp_path: Path) -> None:
    write_history(tmp_path, LINE)
    path = next((tmp_path / FOLDER).iterdir())
    document = json.loads(path.read_text("utf-8"))
    for column in ("up_seconds", "faults", "host"):
        del document["endpoints"][column]
    del document["cards"]["energy_joules"], document["active"]
    path.write_text(json.dumps(document) + "\n", "utf-8")

    (line,) = read_history(tmp_path)

    assert (line.endpoints.up_seconds, line.endpoints.faults, line.endpoints.host) == ((0.0, 0.0), (0, 0), ("", ""))
    assert (line.cards.energy_joules, line.active, line.endpoints.answered) == ((None,), JobColumns(), (97, 0))


def test_line_of_a_newer_version_is_read_without_what_is_not_known(tmp_path: Path) -> None:
    write_history(tmp_path, at(NOON))
    path = next((tmp_path / FOLDER).iterdir())
    path.write_text(path.read_text().replace('{"name":[]', '{"later":[1],"name":[]', 1).replace("{", '{"newer":{},', 1))

    assert times(tmp_path) == [NOON]


def test_finished_days_are_packed_and_those_of_a_fortnight_ago_removed(tmp_path: Path) -> None:
    for day in range(KEEP_DAYS + 3):
        write_history(tmp_path, at(NOON + day * DAY_SECONDS))
        write_history(tmp_path, at(NOON + day * DAY_SECONDS + 60))

    names = sorted(path.name for path in (tmp_path / FOLDER).iterdir())
    assert len(names) == KEEP_DAYS + 1
    assert (names[0], names[-1]) == ("2026-11-24.jsonl.gz", "2026-12-08.jsonl")
    assert all(name.endswith(".gz") for name in names[:-1])
    assert len(times(tmp_path)) == 2 * (KEEP_DAYS + 1)


def test_day_that_was_packed_and_not_yet_removed_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(tmp_path, at(NOON))
    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", lambda path: None)
        write_history(tmp_path, at(NOON + DAY_SECONDS))

    assert times(tmp_path) == [NOON, NOON + DAY_SECONDS]
    write_history(tmp_path, at(NOON + 2 * DAY_SECONDS))
    assert times(tmp_path) == [NOON, NOON + DAY_SECONDS, NOON + 2 * DAY_SECONDS]


def test_packed_day_that_is_damaged_gives_the_lines_before_the_damage(tmp_path: Path) -> None:
    for minute in range(500):
        write_history(tmp_path, at(NOON + minute * 1.001))
    write_history(tmp_path, at(NOON + DAY_SECONDS))
    path = tmp_path / FOLDER / "2026-11-22.jsonl.gz"
    os.truncate(path, path.stat().st_size // 2)

    found = times(tmp_path)

    assert (found[0], found[-1], 2 < len(found) < 501) == (NOON, NOON + DAY_SECONDS, True)


def test_group_may_read_the_history_and_others_may_not(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_history(tmp_path, at(NOON))
        write_history(tmp_path, at(NOON + DAY_SECONDS))
    finally:
        os.umask(old)

    folder = tmp_path / FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}


def test_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "victim").write_text("mine\n")
    (tmp_path / FOLDER / "2026-11-22.jsonl").symlink_to(tmp_path / "victim")

    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        write_history(tmp_path, LINE)

    assert (tmp_path / "victim").read_text() == "mine\n"
