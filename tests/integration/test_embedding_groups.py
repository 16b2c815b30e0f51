"""Texts for vectors in groups, at a simulated server: one slot of a worker, and a whole coordinator."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.endpoint.deadlines import Deadlines
from obcd.core.request.records import JobSettings
from obcd.ollama.client import TIMED_OUT
from obcd.ollama.transport import Transport
from obcd.spool.job.cache import AnswerCache
from obcd.standins.simulated.gpu_server import Behaviour
from obcd.workers.loader import Loader, Preflight
from obcd.workers.messages import Answered, Ask, AskGroup, Faulted, Grouped
from obcd.workers.recovery_driver import RecoveryDriver
from obcd.workers.slots.job_requests import JobRequests
from obcd.workers.slots.slot import SharedBySlots, Slot
from tests.integration.loopback import SimulatedServer, ok, read_request, replies, serving, simulating
from tests.support import NEVER_HEDGED, Cluster, run_obcd, wait_until
from tests.unit.spool.spools import accept_bytes, make_layout

pytestmark = pytest.mark.integration

MODEL = "nomic-embed-text"
SETTINGS = JobSettings(model=MODEL, num_ctx=512)
LONG = "word " * 1000
QUICK = Behaviour(models=(MODEL,), seconds=0.001, load_seconds=0.0)


@pytest.fixture
def server() -> Iterator[SimulatedServer]:
    with simulating(QUICK) as started:
        yield started


class WorkedSlot:
    """One slot of a worker, with a job of texts."""

    def __init__(self, root: Path, url: str) -> None:
        self.layout = make_layout(root)
        self.said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        loader = Loader(url, Preflight())
        recovery = RecoveryDriver(url, loader, Deadlines(), lambda: None, lambda _: None)
        answers = AnswerCache(root / "cache.sqlite", pytest.fail)
        self.common = SharedBySlots(loader, recovery, JobRequests(self.layout.jobs), answers)
        self.slot = Slot(self.common, "a", Transport(url, 1.0), self.said.put)
        threading.Thread(target=self.slot.run, daemon=True).start()

    def accept(self, texts: list[str], job: str = "j", *, cache: bool = False, openai: bool = False) -> None:
        lines = [
            {"custom_id": str(number), "method": "POST", "url": "/v1/embeddings", "body": {"input": text}}
            if openai
            else {"embed": text}
            for number, text in enumerate(texts)
        ]
        content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        settings = JobSettings(model=MODEL, num_ctx=512, cache=cache)
        accept_bytes(self.layout, content, job, f"{job}.jsonl", settings=settings)

    def ask(self, ordinals: range, job: str = "j", digest: str = "") -> None:
        self.common.asks.put(AskGroup(tuple(Ask(100 + ordinal, job, ordinal, 1, digest) for ordinal in ordinals)))

    def result(self) -> Grouped:
        found = self.said.get(timeout=10)
        assert isinstance(found, Grouped)
        return found


def record_of(answered: object) -> dict[str, Any]:
    assert isinstance(answered, Answered)
    record: dict[str, Any] = json.loads(answered.record)
    return record


def test_group_with_one_text_too_long_answers_all_others_in_a_few_calls(
    tmp_path: Path, server: SimulatedServer
) -> None:
    slot = WorkedSlot(tmp_path, server.url)
    slot.accept([LONG if number == 11 else f"text {number}" for number in range(64)])

    slot.ask(range(64))
    found = slot.result()

    failed = [outcome for outcome in found.outcomes if isinstance(outcome, Faulted)]
    assert [(item.ticket, item.line, item.fault.kind) for item in failed] == [(111, 12, FaultKind.TOO_LONG)]
    records = sorted((record_of(item) for item in found.outcomes if item not in failed), key=lambda item: item["line"])
    assert len(records) == 63
    assert len(server.requests()) == 1 + 2 * 6
    # each has the vector of its own text, and one record of a call has its tokens
    slot.ask(range(1))
    assert record_of(slot.result().outcomes[0])["embeddings"] == records[0]["embeddings"]
    assert sum(call.requests for call in found.calls) == 63
    assert sum(record["prompt_tokens"] for record in records) == sum((len(f"text {number}") + 3) // 4 for number in
                                                                     range(64) if number != 11)  # fmt: skip
    assert sum(record["prompt_tokens"] > 0 for record in records) == len(found.calls)
    assert {record.get("group_size", 1) for record in records} == {call.requests for call in found.calls}


def test_text_that_the_cache_knows_is_not_sent_and_openai_lines_do_not_take_it(
    tmp_path: Path, server: SimulatedServer
) -> None:
    # given the answers of a group
    slot = WorkedSlot(tmp_path, server.url)
    texts = [f"text {number}" for number in range(4)]
    slot.accept(texts, cache=True)
    slot.ask(range(4), digest="d")
    first = [record_of(outcome) for outcome in slot.result().outcomes]

    # when another job has three of its texts
    slot.accept(["new", *texts[:2], "newer", texts[2]], "k", cache=True)
    slot.ask(range(5), "k", digest="d")
    second = {record["line"]: record for record in map(record_of, slot.result().outcomes)}

    # then two are sent, and no tokens count twice
    assert {line for line, record in second.items() if record.get("cached")} == {2, 3, 5}
    assert [second[line]["embeddings"] for line in (2, 3, 5)] == [record["embeddings"] for record in first[:3]]
    assert {second[line]["prompt_tokens"] for line in (2, 3, 5)} == {0}
    assert {second[line]["group_size"] for line in (1, 4)} == {2}

    # and OpenAI's lines, which report their own tokens, are computed once more, and then known to all
    slot.accept(texts[:1], "o", cache=True, openai=True)
    found = []
    for _ in range(2):
        slot.common.asks.put(Ask(7, "o", 0, 1, "d"))
        found.append(record_of(slot.said.get(timeout=10)))
    assert [(record["prompt_tokens"], record.get("cached", False)) for record in found] == [(2, False), (2, True)]


def test_connection_that_is_cut_in_the_middle_blames_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(conn: Any) -> None:
        read_request(conn)
        conn.sendall(ok(b'{"embeddings": [[0.5, 0.5], [0.5, 0.5]]}')[:-5])

    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    monkeypatch.setattr(Loader, "refusal", lambda *_: None)
    with serving(cut, replies(ok(b'{"models": []}'))) as broken:
        slot = WorkedSlot(tmp_path, broken.url)
        slot.accept(["one", "two"])
        slot.ask(range(2))
        found = slot.result()

    faults = [outcome.fault for outcome in found.outcomes if isinstance(outcome, Faulted)]
    assert [(fault.kind, fault.costs_attempt, fault.is_shared) for fault in faults] == [
        (FaultKind.CUT, False, True)
    ] * 2  # fmt: skip


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Callable[[], tuple[WorkedSlot, SimulatedServer]]]:
    with simulating(Behaviour(models=(MODEL,), seconds=0.3, load_seconds=0.0)) as slow:

        def begin() -> tuple[WorkedSlot, SimulatedServer]:
            slot = WorkedSlot(tmp_path, slow.url)
            slot.accept(["one", "two"])
            slot.ask(range(2))
            wait_until(slow.requests)
            return slot, slow

        yield begin


def test_group_goes_on_for_the_others_when_one_is_cancelled(
    hanging: Callable[[], tuple[WorkedSlot, SimulatedServer]],
) -> None:
    slot, _ = hanging()

    slot.slot.in_flight.cancel(100, is_overdue=False)

    assert all(isinstance(outcome, Answered) for outcome in slot.result().outcomes)


def test_group_is_cancelled_with_its_last_request(hanging: Callable[[], tuple[WorkedSlot, SimulatedServer]]) -> None:
    slot, slow = hanging()

    for ticket in (100, 101):
        slot.slot.in_flight.cancel(ticket, is_overdue=False)

    faults = [outcome.fault for outcome in slot.result().outcomes if isinstance(outcome, Faulted)]
    assert [(fault.kind, fault.costs_attempt) for fault in faults] == [(FaultKind.CANCELLED, False)] * 2
    wait_until(lambda: slow.requests()[0]["outcome"] == "cancelled")


def test_late_group_charges_nobody(
    hanging: Callable[[], tuple[WorkedSlot, SimulatedServer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, _ = hanging()

    slot.slot.in_flight.enforce_limit(slot.slot.in_flight.limit or 0.0)

    faults = [outcome.fault for outcome in slot.result().outcomes if isinstance(outcome, Faulted)]
    assert [(fault.is_late_group, fault.costs_attempt) for fault in faults] == [(True, False)] * 2
    assert TIMED_OUT not in str(faults)


def test_job_with_all_that_can_go_wrong_gives_each_line_one_result_and_true_sums(cluster: Cluster) -> None:
    """One text too long, one that crashes the model each time, equal texts, and a worker that is killed."""
    server = cluster.simulate("--seconds", 0.002, "--load-seconds", 0.0, "--models", MODEL)
    config = cluster.configure(server.names, model=MODEL, dedupe=True, requests={"num_ctx": 512})
    tweaks = {
        **NEVER_HEDGED,
        "obcd.core.endpoint.retry:ENDPOINT_BASE": 0.1,
        "obcd.core.endpoint.retry:REQUEST_BASE": 0.1,
    }
    coordinator = cluster.coordinate(config, tweaks=tweaks)
    texts = [f"text {number % 1500}" for number in range(1600)]
    texts[700], texts[1200] = LONG, "[[simulate:crash]]"
    coordinator.drop(b"".join(json.dumps({"embed": text}).encode() + b"\n" for text in texts))
    wait_until(lambda: len(server.account()) > 30)
    os.kill(coordinator.worker_pids()[server.names[0]], signal.SIGKILL)

    done = coordinator.published()

    done.assert_complete(1600)
    assert [(item["line"], item["class"]) for item in done.errors] == [(701, "too_long"), (1201, "poison")]
    assert max(item["attempts"] for item in done.responses) <= 4
    by_text: dict[str, Any] = {}
    for item in done.responses:
        assert by_text.setdefault(item["prompt"], item["embeddings"]) == item["embeddings"]
    assert max(item.get("group_size", 1) for item in done.responses) >= 4
    tokens = sum((len(text) + 3) // 4 for text in set(texts) - {LONG, "[[simulate:crash]]"})
    same = sum(item["prompt_tokens"] for item in done.responses if "same_as" in item)
    assert done.manifest["tokens"]["prompt"] == tokens + same
    verified = run_obcd(cluster.environment, "verify", str(done.folder))
    assert verified.returncode == 0, verified.stdout + verified.stderr
