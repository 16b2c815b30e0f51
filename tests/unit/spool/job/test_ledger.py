from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from obcd.core.answer.counts import Counts
from obcd.core.answer.outcomes import Response, Result
from obcd.core.answer.tally import Tally
from obcd.errors import RecordError
from obcd.spool.job import ledger
from obcd.spool.job.ledger import LedgerWriter, Replay, frame, index_results, read_result, read_valid, replay
from tests.unit.spool.spools import answer, failure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ledger.NAME


def write(path: Path, *records: bytes, tail: bytes = b"") -> None:
    path.write_bytes(b"".join(map(frame, records)) + tail)


def text_of(result: Result) -> str:
    assert isinstance(result, Response)
    return result.answer.text or ""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- reading ---------------------------------------------------------------------------------------------------------


def test_record_comes_back_as_it_was_appended(path: Path) -> None:
    records = [answer(0, "plain"), answer(1, 'odd \ud800 \u2028 \x00 \n "'), failure(2)]
    writer = LedgerWriter(path.parent, 0)
    writer.append(records[:1])
    writer.append(records[1:])
    writer.close()

    assert [raw for _, raw in read_valid(path)] == records
    assert list(read_valid(path))[-1][0] == path.stat().st_size == writer.size


def test_frame_is_checksum_space_json_line_feed() -> None:
    assert frame(b'{"ordinal":0}') == b'cf2ed12b {"ordinal":0}\n'


def test_replay_counts_what_it_finds(path: Path) -> None:
    write(path, answer(0, seconds=1.5), answer(2, done_reason="length"), failure(3))

    found = replay(path, 5)

    assert found == Replay(
        done=bytes([1, 0, 1, 1, 0]),
        size=path.stat().st_size,
        counts=Counts(responses=2, failures=1, cut_short=1, prompt_tokens=6, eval_tokens=14, work_seconds=2.0),
        failures={"server_error": 1},
        records=3,
    )


@pytest.mark.parametrize(("counted", "expected"), [
    (None, Tally()),
    (3, Tally()),
    (2, Tally(failures={"server_error": 1})),
    (0, Tally(responses=3, failures={"server_error": 1}, prompt_tokens=6, output_tokens=14)),
])  # fmt: skip
def test_records_that_the_counters_do_not_have_are_tallied(path: Path, counted: int | None, expected: Tally) -> None:
    write(path, answer(0), answer(2), answer(2), failure(3))  # the third one does not count

    found = replay(path, 5, times=[2, 1, 1, 1, 1], counted=None if counted is None else counted + (counted > 1))

    assert found.uncounted == expected


def test_failures_are_counted_by_class_for_all_requests_that_share_them(path: Path) -> None:
    write(path, failure(0), failure(2), failure(2), answer(1))

    assert replay(path, 3, times=[1, 1, 4]).failures == {"server_error": 5}


def test_weights_of_the_first_answer_of_each_model_are_found_again(path: Path) -> None:
    write(
        path,
        answer(0),
        answer(1, weights=["llama3.2:latest", "a80c4f17acd5"]),
        answer(1, weights=["llama3.2:latest", "6a0746a1ec1a"]),  # the first record of a request counts
        answer(2, weights=["qwen3:8b", "6a0746a1ec1a"]),
    )

    assert replay(path, 3).weights == {"llama3.2:latest": "a80c4f17acd5", "qwen3:8b": "6a0746a1ec1a"}


def test_missing_ledger_is_an_empty_one(path: Path) -> None:
    assert replay(path, 3) == Replay(done=bytes(3), size=0)
    assert list(index_results(path, 3)) == [0, 0, 0]
    assert not path.exists()


def test_first_of_two_records_of_one_request_counts(path: Path) -> None:
    write(path, answer(0, "first"), answer(1), answer(0, "second"), failure(1))

    assert (replay(path, 2).counts.responses, replay(path, 2).counts.failures) == (2, 0)
    places = index_results(path, 2)
    with path.open("rb") as file:
        assert text_of(read_result(file.fileno(), places[0])) == "first"


def test_record_of_a_request_that_the_job_does_not_have_is_passed_over(path: Path) -> None:
    write(path, answer(7), answer(-1), answer(0))

    assert replay(path, 2).done == bytes([1, 0])
    assert list(index_results(path, 2))[1] == 0


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 500,
        frame(answer(1))[:-1],
        frame(answer(1))[:20],
        b"0",
        b"\n",
        b"00000000 " + answer(1) + b"\n",
        frame(answer(1)).upper(),
    ],
)
def test_damaged_tail_is_cut_off_once_and_for_all(path: Path, tail: bytes) -> None:
    write(path, answer(0), tail=tail)
    whole = len(frame(answer(0)))

    found = replay(path, 2)

    assert (found.done, found.size) == (bytes([1, 0]), whole)
    assert path.stat().st_size == whole
    assert replay(path, 2) == found


def test_everything_after_a_record_that_is_wrong_in_the_middle_is_asked_again(path: Path) -> None:
    write(path, answer(0), answer(1), answer(2))
    content = bytearray(path.read_bytes())
    middle = len(frame(answer(0))) + 30
    content[middle] ^= 1
    path.write_bytes(content)

    assert replay(path, 3).done == bytes([1, 0, 0])
    assert path.stat().st_size == len(frame(answer(0)))


def test_record_larger_than_one_read_comes_back_whole(path: Path) -> None:
    write(path, answer(0), answer(1, "x" * 100_000), answer(2))
    places = index_results(path, 3)

    with path.open("rb") as file:
        assert len(text_of(read_result(file.fileno(), places[1]))) == 100_000
        assert read_result(file.fileno(), places[2]).ordinal == 2


def test_place_without_an_end_of_record_raises(path: Path) -> None:
    path.write_bytes(b"00000000 {")

    with path.open("rb") as file, pytest.raises(RecordError):
        read_result(file.fileno(), 1)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_writer_cuts_off_what_lies_behind_the_valid_part(path: Path) -> None:
    write(path, answer(0), tail=b"half a rec")
    size = len(frame(answer(0)))

    writer = LedgerWriter(path.parent, size)
    writer.append([answer(1)])
    writer.close()

    assert [json.loads(raw)["ordinal"] for _, raw in read_valid(path)] == [0, 1]
    assert path.read_bytes() == frame(answer(0)) + frame(answer(1))


def test_append_that_the_disk_cuts_short_is_recorded_once_by_the_next_writer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LedgerWriter(path.parent, 0)
    writer.append([answer(0)])
    real_write, calls = os.write, []

    def full_disk(descriptor: int, block: bytes) -> int:
        calls.append(len(block))
        if len(calls) == 1:
            return real_write(descriptor, block[: len(block) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full_disk)
        with pytest.raises(OSError, match="No space"):
            writer.append([answer(1), answer(2)])
    writer.close()
    assert path.stat().st_size > writer.size  # the short write is there

    again = LedgerWriter(path.parent, writer.size)
    again.append([answer(1), answer(2)])
    again.close()

    assert [json.loads(raw)["ordinal"] for _, raw in read_valid(path)] == [0, 1, 2]


def test_append_whose_sync_failed_does_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LedgerWriter(path.parent, 0)

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(OSError, match="Input/output"):
            writer.append([answer(0)])
    writer.close()
    assert writer.size == 0

    again = LedgerWriter(path.parent, writer.size)
    again.append([answer(0)])
    again.close()
    assert path.read_bytes() == frame(answer(0))


def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    writer = LedgerWriter(path.parent, 0)
    monkeypatch.setattr(os, "write", lambda descriptor, block: real_write(descriptor, block[:7]))

    writer.append([answer(0), answer(1)])
    writer.close()

    assert path.read_bytes() == frame(answer(0)) + frame(answer(1))


def test_writer_that_cannot_cut_leaves_no_descriptor_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, answer(0), tail=b"x")

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", refuse)
    before = open_files()

    with pytest.raises(OSError, match="No space"):
        LedgerWriter(path.parent, len(frame(answer(0))))

    assert open_files() == before
