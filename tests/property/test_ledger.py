"""The ledger against a plain dict: results are appended, the machine stops at any byte, the rest is read back."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from obcd.core.request.records import Outcome
from obcd.spool.job import ledger
from obcd.spool.job.ledger import failure_record

REQUESTS = 6
ORDINALS = st.integers(0, REQUESTS - 1)
TEXTS = st.text(st.characters(), max_size=40)  # lone surrogates too


def make_record(ordinal: int, text: str, *, is_failure: bool) -> bytes:
    if is_failure:
        return failure_record(ordinal, ordinal + 1, "timeout", text, 4)
    document = {"ordinal": ordinal, "line": ordinal + 1, "outcome": Outcome.RESPONSE, "response": text, "seconds": 1.0}
    return ledger.encode(document)


RECORDS = st.builds(make_record, ORDINALS, TEXTS, is_failure=st.booleans())


class LedgerMachine(RuleBasedStateMachine):
    """`synced` are the records that count; what lies behind them on disk may be anything."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="obcd-ledger-"))
        self.path = self.folder / ledger.NAME
        self.synced: list[bytes] = []
        self.writer: ledger.LedgerWriter | None = None

    def teardown(self) -> None:
        self.stop_writer()
        shutil.rmtree(self.folder)

    def stop_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    @initialize()
    def begin(self) -> None:
        self.open_again()

    @precondition(lambda self: self.writer is None)
    @rule()
    def open_again(self) -> None:
        found = ledger.replay(self.path, REQUESTS)
        assert found.size == sum(len(ledger.frame(record)) for record in self.synced)
        assert self.path.exists() or found.size == 0
        self.writer = ledger.LedgerWriter(self.folder, found.size)

    @precondition(lambda self: self.writer is not None)
    @rule(records=st.lists(RECORDS, min_size=1, max_size=4))
    def append(self, records: list[bytes]) -> None:
        assert self.writer is not None
        self.writer.append(records)
        self.synced += records

    @precondition(lambda self: self.writer is not None)
    @rule(records=st.lists(RECORDS, min_size=1, max_size=4), data=st.data())
    def lose_power_while_appending(self, records: list[bytes], data: st.DataObject) -> None:
        """The tail may be cut at any byte; what of it was whole counts, for it can be read."""
        self.stop_writer()
        block = b"".join(map(ledger.frame, records))
        kept = data.draw(st.integers(0, len(block)))
        zeros = data.draw(st.integers(0, 20))
        with self.path.open("ab") as file:
            file.write(block[:kept] + b"\0" * zeros)
        while records and kept >= len(ledger.frame(records[0])):
            kept -= len(ledger.frame(records[0]))
            self.synced.append(records.pop(0))

    @precondition(lambda self: self.writer is not None)
    @rule(garbage=st.binary(max_size=60))
    def crash_into_garbage(self, garbage: bytes) -> None:
        self.stop_writer()
        with self.path.open("ab") as file:
            file.write(garbage)

    @precondition(lambda self: self.writer is not None and len(self.synced) > 0)
    @rule(data=st.data())
    def flip_a_bit(self, data: st.DataObject) -> None:
        """Whatever stands behind a damaged record is asked again, never guessed."""
        self.stop_writer()
        content = bytearray(self.path.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        self.path.write_bytes(content)
        end = 0
        for number, record in enumerate(self.synced):
            end += len(ledger.frame(record))
            if position < end:
                self.synced = self.synced[:number]
                return

    @invariant()
    def first_result_of_each_request_counts(self) -> None:
        expected: dict[int, bytes] = {}
        for raw in self.synced:
            expected.setdefault(parse(raw)["ordinal"], raw)
        places = ledger.index_results(self.path, REQUESTS)
        assert {number for number, place in enumerate(places) if place} == set(expected)
        if expected:
            with self.path.open("rb") as file:
                for ordinal, raw in expected.items():
                    assert ledger.read_record(file.fileno(), places[ordinal]) == parse(raw)


def parse(raw: bytes) -> dict[str, Any]:
    document = json.loads(raw)
    assert isinstance(document, dict)
    return document


LedgerMachine.TestCase.settings = settings(stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestLedger = LedgerMachine.TestCase


@given(records=st.lists(RECORDS, max_size=5), cut=st.integers(0, 10_000))
def test_replay_of_a_ledger_cut_anywhere_is_the_replay_of_its_whole_records(records: list[bytes], cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / ledger.NAME
        block = b"".join(map(ledger.frame, records))
        path.write_bytes(block[: min(cut, len(block))])
        ends, whole = 0, 0
        for record in records:
            ends += len(ledger.frame(record))
            whole += ends <= cut

        found = ledger.replay(path, REQUESTS)
        path.write_bytes(b"".join(map(ledger.frame, records[:whole])))

        assert ledger.replay(path, REQUESTS) == found
