"""The threads of a worker: every ticket and every probe comes back."""

from __future__ import annotations

import json
import queue
import select
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import monotonic
from obcd.core.answer.fault_kinds import FaultKind
from obcd.core.answer.outcomes import Cost, KeptAnswer, ModelAnswer
from obcd.core.endpoint.concurrency import Span
from obcd.core.endpoint.deadlines import KNOWN, Deadlines
from obcd.core.endpoint.faults import Fault, Harm, Remedy, worker_fault
from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request, signature_of
from obcd.ollama.client import HUNG
from obcd.ollama.control import ControlError, Probe
from obcd.ollama.loaded import Loaded
from obcd.ollama.transport import AbortedError, RefusedError, Transport
from obcd.secret import Secret
from obcd.spool.job.cache import AnswerCache, measure
from obcd.workers import worker
from obcd.workers.channel import Channel, channel_pair
from obcd.workers.loader import Loader, Preflight
from obcd.workers.messages import (
    Answered,
    Ask,
    Cancel,
    Configure,
    Faulted,
    LookAround,
    LookedAround,
    Probed,
    ProbeNow,
    Weighed,
)
from obcd.workers.recovery_driver import RecoveryDriver
from obcd.workers.slots import job_requests
from obcd.workers.slots import slot as slots
from obcd.workers.slots.job_requests import Asked, JobRequests
from obcd.workers.slots.slot import TWICE, SharedBySlots, Slot
from obcd.workers.worker import WorkerSpec
from tests.golden.wording import wording
from tests.unit.spool.spools import accept_bytes, make_layout

SECRET = "Name: John Smith"
URL = "http://127.0.0.1:1"


def common_of(jobs: JobRequests) -> SharedBySlots:
    loader = Loader(URL, Preflight())
    recovery = RecoveryDriver(URL, loader, Deadlines(), lambda: None, lambda _: None)
    return SharedBySlots(loader, recovery, jobs, AnswerCache(jobs._jobs / "cache.sqlite", lambda _: None))


@pytest.mark.parametrize("error", [ValueError(SECRET), RuntimeError(SECRET), RecursionError(SECRET), MemoryError()])
def test_error_that_nobody_expected_is_a_fault_and_the_thread_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    # given a job cache that fails as nothing should
    def fails(*_: object) -> Any:
        raise error

    monkeypatch.setattr(job_requests, "parse_line", fails)
    monkeypatch.setattr(job_requests, "OpenJob", fails)
    jobs = JobRequests(tmp_path)
    if isinstance(error, ValueError):  # that one is expected there
        monkeypatch.setattr(jobs, "read", lambda *_: (None, None))
    common = common_of(jobs)
    said: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slot = Slot(common, "a", Transport(URL, 1.0), said.put)
    threading.Thread(target=slot.run, daemon=True).start()

    for ticket in (7, 8):
        # when
        common.asks.put(Ask(ticket, "j", 0, 1))
        answer = said.get(timeout=10)

        # then
        assert answer.ticket == ticket
        fault = answer.fault
        assert (fault.kind, fault.remedy, fault.costs_attempt, fault.harm) == (
            "worker_fault",
            Remedy.ELSEWHERE,
            True,
            Harm.NONE,
        )
        assert "Smith" not in fault.message
        assert slot.in_flight.limit is None


def test_probe_that_fails_as_none_should_is_told_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise AssertionError(SECRET)

    monkeypatch.setattr(worker, "probe", fails)
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", "http://127.0.0.1:1", tmp_path, 1.0))
    threading.Thread(target=made._probe_forever, daemon=True).start()

    for _ in range(2):
        select.select([ours], [], [], 10)
        (message,) = ours.receive()
        assert isinstance(message, Probed)
        assert (message.probe.failure or "").startswith(wording("the-worker-failed-while-it-probed"))
        made._take(ProbeNow())
    select.select([ours], [], [], 10)
    ours.receive()
    ours.close()
    theirs.close()


def test_worker_tells_what_the_server_has_in_memory_and_when_it_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a server that says it once, and then no more
    found = Loaded(name="Llama3.2", size_bytes=1, vram_bytes=1, expires_at=1234.5)
    replies = [(found,)]

    def ask(url: str, token: object) -> tuple[Loaded, ...]:
        if not replies:
            raise ControlError("it does not answer")
        return replies.pop()

    monkeypatch.setattr(worker, "ask_loaded", ask)
    monkeypatch.setattr(worker, "probe", lambda *_: Probe(None))
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", URL, tmp_path, 1.0))
    threading.Thread(target=made._probe_forever, daemon=True).start()
    select.select([ours], [], [], 10)
    ours.receive()  # a worker probes at its start

    for ends in ({"llama3.2:latest": 1234.5}, None):
        # when
        made._take(LookAround())
        select.select([ours], [], [], 10)
        (message,) = ours.receive()

        # then no probe is made for it
        assert isinstance(message, LookedAround)
        assert message.ends == ends
        assert message.seconds >= 0
    ours.close()
    theirs.close()


def test_slots_are_made_as_requests_come_and_serve_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a worker whose requests take until they are released
    asked, release = threading.Semaphore(0), threading.Semaphore(0)

    def ask(slot: Any, message: Ask) -> Faulted:
        asked.release()
        release.acquire()
        return Faulted(message.ticket, 0, worker_fault("over"))

    monkeypatch.setattr(Slot, "_ask", ask)
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", "http://127.0.0.1:1", tmp_path, 1.0))

    def take_answers(count: int) -> list[int]:
        release.release(count)
        answers: list[Any] = []
        while len(answers) < count:
            assert select.select([ours], [], [], 10)[0]
            answers += ours.receive()
        return sorted(item.ticket for item in answers)

    # when three come, all are asked at once; then two more, in the slots that are there
    for tickets in (range(3), range(3, 5)):
        for ticket in tickets:
            made._take(Ask(ticket, "j", 0, 1))
        assert all(asked.acquire(timeout=10) for _ in tickets)
        assert take_answers(len(tickets)) == list(tickets)
    assert len(made._slots) == 3

    # when it is told another limit, then all slots have it, and those to come
    made._take(Configure(7.0))
    for ticket in range(4):
        made._take(Ask(ticket, "j", 0, 1))
    assert take_answers(4) == list(range(4))
    assert [slot._transport.connect_timeout for slot in made._slots] == [7.0] * 4
    ours.close()
    theirs.close()


def test_request_that_is_withdrawn_before_a_slot_takes_it_up_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker whose slots have not begun yet
    threads: list[Any] = []
    reasons: list[str] = []

    def ask(slot: Any, message: Ask) -> Faulted:
        try:
            slot._transport.post("/api/chat", b"{}")
        except (AbortedError, RefusedError) as error:
            reasons.append(str(error))
        return Faulted(message.ticket, 0, worker_fault("over"))

    monkeypatch.setattr(Slot, "_ask", ask)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))  # noqa: PLW0108 - binds it
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", "http://127.0.0.1:1", tmp_path, 1.0))
    for ticket in (1, 2):
        made._take(Ask(ticket, "j", 0, 1))

    # when one of two is withdrawn, and one that is long over
    made._take(Cancel(2))
    made._take(Cancel(99))
    monkeypatch.undo()
    monkeypatch.setattr(Slot, "_ask", ask)
    threads[0].start()
    assert select.select([ours], [], [], 10)[0]
    answers = ours.receive()
    while len(answers) < 2:
        assert select.select([ours], [], [], 10)[0]
        answers += ours.receive()

    # then that one alone is not asked, and nothing of it is kept
    assert [reason == "cancelled" for reason in reasons] == [False, True]
    assert (made._common.withdrawn, made._in_flight) == (set(), set())
    ours.close()
    theirs.close()


def test_nothing_is_sent_to_a_server_that_answers_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, settings = parse_line(b'{"prompt": "Why?"}', 1), JobSettings(model="m")
    jobs = JobRequests(tmp_path)
    monkeypatch.setattr(jobs, "read", lambda *_: Asked(request, settings, signature_of(request, settings)))
    common = common_of(jobs)
    slot = Slot(common, "a", Transport(URL, 1.0), lambda _: None)

    common.loader.on_silence(signature_of(request, settings), 0.0)
    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Faulted)
    assert (result.fault.kind, result.fault.costs_attempt) == ("doubted", False)
    assert common.loader.doubted is not None  # what is refused does not end the silence


def test_what_is_at_a_server_that_hangs_is_broken_off_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a worker with one request at the server and one that is being read
    ours, theirs = channel_pair()
    made = worker._Worker(Channel(theirs), WorkerSpec("a", URL, tmp_path, 1.0))
    monkeypatch.setattr(threading.Thread, "start", lambda _: None)
    for ticket in (1, 2):
        made._take(Ask(ticket, "j", 0, 1))
    made._slots[0].in_flight.is_sent = True

    made._break_off()

    with pytest.raises(AbortedError, match=HUNG):
        made._slots[0]._transport.post("/api/chat", b"{}")
    with pytest.raises(RefusedError):
        made._slots[1]._transport.post("/api/chat", b"{}")
    ours.close()
    theirs.close()


def test_limit_of_a_request_follows_the_answers_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a slot whose endpoint answers at once, 100 tokens in a second
    request = parse_line(b'{"prompt": "Why?"}', 1)
    settings = JobSettings(model="m", num_predict=1000, request_timeout_seconds=600.0)
    limits: list[float] = []
    cost = Cost(seconds=1.0, eval_seconds=1.0, eval_tokens=100)

    def ask(*_: object) -> ModelAnswer:
        assert slot.in_flight.limit is not None
        limits.append(slot.in_flight.limit - monotonic())
        return ModelAnswer(text="So.", model="m", done_reason="stop", cost=cost)

    jobs = JobRequests(tmp_path)
    monkeypatch.setattr(jobs, "read", lambda *_: Asked(request, settings, signature_of(request, settings)))
    monkeypatch.setattr(slots, "ask_fitting", ask)
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    slot = Slot(common_of(jobs), "a", Transport(URL, 1.0), lambda _: None)

    # when it has answered eight
    for ticket in range(KNOWN + 1):
        assert isinstance(slot._try_to_ask(Ask(ticket, "j", 0, 1)), Answered)

    # then the next one may take four times as long as a thousand tokens
    assert limits[0] == pytest.approx(600, abs=1)
    assert limits[-1] == pytest.approx(40, abs=1)


def test_answer_that_is_remembered_is_given_without_asking_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a slot whose server answers once
    request = parse_line(b'{"prompt": "Why?", "options": {"seed": 1}, "n": 2}', 4)
    settings = JobSettings(model="m", cache=True)
    cost = Cost(1.5, 1.5, 1.5, 1.5, 0.25, prompt_tokens=3, eval_tokens=100)
    asked: list[int] = []

    def ask(*_: object) -> ModelAnswer:
        asked.append(1)
        return ModelAnswer(text="So.", model="m", done_reason="stop", finished=100.0, cost=cost)

    jobs = JobRequests(tmp_path)
    monkeypatch.setattr(
        jobs, "read", lambda *_: Asked(request, settings, signature_of(request, settings), has_seed=True)
    )
    monkeypatch.setattr(slots, "ask_fitting", ask)
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    monkeypatch.setattr(Loader, "note_used", lambda *_: None)
    slot = Slot(common_of(jobs), "a", Transport(URL, 1.0), lambda _: None)

    def answer(ordinal: int, digest: str, *, is_hedged: bool = False) -> tuple[Answered, dict[str, Any]]:
        result = slot._try_to_ask(Ask(1, "j", ordinal, 1, digest, is_hedged=is_hedged))
        assert isinstance(result, Answered)
        return result, json.loads(result.record)

    # when it is asked the same three times
    first, record = answer(0, "a80c4f17acd5", is_hedged=True)
    slot._recovery.refusal = lambda: worker_fault("nobody is asked")  # type: ignore[method-assign]
    again, remembered = answer(7, "a80c4f17acd5", is_hedged=True)
    slot._recovery.refusal = lambda: None  # type: ignore[method-assign]
    answer(8, "6a0746a1ec1a")
    answer(9, "")
    answer(9, "")

    # then the second is the first one's, but for its place and time; other or unknown weights are asked
    assert len(asked) == 4
    assert (record["attempts"], record.pop("hedged")) == (1, True)
    assert (first.span, again.span) == (Span(3.0, 0.25, load=1.5, tokens=100, prompt=1.5), None)
    assert remembered.pop("finished") > record.pop("finished") == 100.0
    times = ("seconds", "load_seconds", "prompt_eval_seconds", "eval_seconds", "wait_seconds")
    assert remembered == {**record, **dict.fromkeys(times, 0.0), "cached": True, "ordinal": 7}
    assert (remembered["seed"], remembered["line"], again.counts.cached) == (1, 4, 1)


def test_failure_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = parse_line(b'{"prompt": "Why?", "options": {"seed": 1}}', 4)
    settings = JobSettings(model="m", cache=True)
    common = common_of(JobRequests(tmp_path))
    monkeypatch.setattr(common.jobs, "read", lambda *_: Asked(request, settings, signature_of(request, settings)))
    monkeypatch.setattr(slots, "ask_fitting", lambda *_: worker_fault("no"))
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    slot = Slot(common, "a", Transport(URL, 1.0), lambda _: None)

    assert isinstance(slot._try_to_ask(Ask(1, "j", 0, 1, "a80c4f17acd5")), Faulted)

    assert measure(tmp_path / "cache.sqlite").answers == 0


def test_request_is_asked_with_the_signature_that_its_lease_names(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    lines = b'{"prompt": "one"}\n{"prompt": "two", "model": "qwen3", "options": {"num_ctx": 512}}\n'
    header = accept_bytes(layout, lines)
    jobs = JobRequests(layout.jobs)

    asked = [jobs.read(header.id, ordinal, ordinal) for ordinal in (0, 1, 0)]

    assert [each.signature for each in asked] == [header.signatures[number] for number in (0, 1, 0)]
    assert [each.signature for each in asked] == [signature_of(each.request, each.settings) for each in asked]
    with pytest.raises(LookupError):
        jobs.read(header.id, 0, 2)


@pytest.mark.parametrize(("empty", "seeds"), [("keep", [7, 7]), ("retry", [7, 107])])
def test_r07_empty_answer_is_asked_for_again_with_another_seed(tmp_path: Path, empty: str, seeds: list[int]) -> None:
    layout = make_layout(tmp_path)
    settings = JobSettings(model="m", options={"seed": 7}, empty=empty)
    accept_bytes(layout, b'{"prompt": "x"}\n', settings=settings)
    jobs = JobRequests(layout.jobs)

    assert [jobs.read("job1", 0, 0, attempt).request.options.get("seed", 7) for attempt in (1, 2)] == seeds


@pytest.mark.parametrize(("empty", "text"), [("keep", " \n"), ("retry", "new"), ("fail", "new")])
def test_empty_answer_of_an_earlier_job_is_used_only_where_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: str, text: str
) -> None:
    layout = make_layout(tmp_path)
    settings = JobSettings(model="m", options={"seed": 7}, empty=empty, cache=True)
    accept_bytes(layout, b'{"prompt": "x"}\n', settings=settings)
    common = common_of(JobRequests(layout.jobs))
    monkeypatch.setattr(AnswerCache, "find", lambda *_: ModelAnswer(text=" \n", model="m", done_reason="stop"))
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    monkeypatch.setattr(Loader, "note_used", lambda *_: None)
    monkeypatch.setattr(slots, "ask_fitting", lambda *_: ModelAnswer(text="new", model="m", done_reason="stop"))
    slot = Slot(common, "a", Transport(URL, 1.0), lambda _: None)

    answer = slot._ask(Ask(1, "job1", 0, 1, "digest"))

    assert isinstance(answer, Answered)
    assert json.loads(answer.record)["response"] == text


# --- faults that the worker weighs -----------------------------------------------------------------------------------

TIMEOUT = Fault(FaultKind.TIMEOUT, "no answer within the time limit", Remedy.ELSEWHERE, harm=Harm.STRIKE)
CUT = Fault(FaultKind.CUT, "the connection broke", Remedy.ELSEWHERE, harm=Harm.STRIKE)
REPEATS = Fault(
    FaultKind.REPETITION, "it repeats itself: change the prompt", Remedy.NEVER, kept=KeptAnswer(text=" no no")
)


def slot_that_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, *outcomes: ModelAnswer | Fault
) -> tuple[Slot, list[Request]]:
    """Return a slot whose server gives these outcomes one after the other, and the requests that it gets."""
    request, settings = parse_line(line, 1), JobSettings(model="m", attempts=2)
    jobs = JobRequests(tmp_path)
    asked = Asked(request, settings, signature_of(request, settings), has_seed=True)
    monkeypatch.setattr(jobs, "read", lambda *_: asked)
    sent: list[Request] = []
    waiting = list(outcomes)

    def ask(_: object, request: Request, *__: object) -> ModelAnswer | Fault:
        sent.append(request)
        return waiting.pop(0)

    monkeypatch.setattr(slots, "ask_fitting", ask)
    monkeypatch.setattr(Loader, "ensure", lambda *_: None)
    monkeypatch.setattr(Loader, "note_used", lambda *_: None)
    return Slot(common_of(jobs), "a", Transport(URL, 1.0), lambda _: None), sent


def test_r25_answer_that_repeats_itself_is_asked_for_once_more_with_another_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b'{"prompt": "Why?", "options": {"seed": 7, "temperature": 0.5}}'
    answer = ModelAnswer(text="So.", model="m", done_reason="stop", finished=1.0)
    slot, sent = slot_that_gets(tmp_path, monkeypatch, line, REPEATS, answer)

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Answered)
    seeds = [request.options["seed"] for request in sent]
    assert len(set(seeds)) == 2
    assert json.loads(result.record)["seed"] == seeds[1]


@pytest.mark.parametrize(("temperature", "times"), [(0.5, 2), (0, 1)])
def test_r25_answer_that_repeats_itself_again_is_the_failure_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float, times: int
) -> None:
    line = json.dumps({"prompt": "Why?", "options": {"temperature": temperature}}).encode()
    slot, sent = slot_that_gets(tmp_path, monkeypatch, line, REPEATS, REPEATS)

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Faulted)
    assert (result.fault.kind, result.fault.remedy, result.fault.kept) == ("repetition", Remedy.NEVER, REPEATS.kept)
    happened, _, advice = result.fault.message.partition(":")
    assert happened.endswith(TWICE) is (times == 2)
    assert TWICE not in advice
    assert len(sent) == times


def test_r24_fault_that_nobody_knows_is_weighed_and_the_model_counts_as_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = Fault(FaultKind.SERVER_ERROR, "status 500", Remedy.ELSEWHERE, harm=Harm.STRIKE, reply=SECRET)
    slot, _ = slot_that_gets(tmp_path, monkeypatch, b'{"prompt": "Why?"}', unknown)
    weighed: list[Fault] = []
    forgotten: list[int] = []

    def weigh(fault: Fault, *_: object) -> Fault:
        weighed.append(fault)
        return replace(fault, is_refusal=True)

    given: list[object] = []
    monkeypatch.setattr(slot, "_give_back", given.append)
    monkeypatch.setattr(slot._refusals, "weigh", weigh)
    monkeypatch.setattr(Loader, "forget", lambda _: forgotten.append(1))

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert weighed == [unknown]
    assert given == [Weighed(1)]  # its slot is free meanwhile
    assert isinstance(result, Faulted)
    assert result.fault.is_refusal
    assert SECRET not in repr(result)
    assert forgotten == []


@pytest.mark.parametrize(("is_gone", "costs", "reached"), [(True, False, True), (False, True, True)])
def test_r26_cut_of_a_whole_server_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool, costs: bool, reached: bool
) -> None:
    cut = Fault(FaultKind.CUT, "it broke", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    slot, _ = slot_that_gets(tmp_path, monkeypatch, b'{"prompt": "Why?"}', cut)
    monkeypatch.setattr(slot._cuts, "is_server_gone", lambda *_: is_gone)

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Faulted)
    assert (result.fault.kind, result.fault.costs_attempt, result.fault.reached_model) == ("cut", costs, reached)


def test_fault_of_a_load_is_not_that_of_its_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = Fault(FaultKind.CRASHED, "it crashed", Remedy.ELSEWHERE, harm=Harm.STRIKE)
    slot, sent = slot_that_gets(tmp_path, monkeypatch, b'{"prompt": "Why?"}')
    monkeypatch.setattr(Loader, "ensure", lambda *_: crashed)

    result = slot._try_to_ask(Ask(1, "j", 0, 1))

    assert isinstance(result, Faulted)
    assert (result.fault.kind, result.fault.reached_model, sent) == ("crashed", False, [])


@pytest.mark.parametrize(("attempt", "kind", "waits"), [(1, "timeout", 0), (2, "crashed", 1)])
def test_last_attempt_in_a_process_that_hung_and_was_replaced_is_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int, kind: str, waits: int
) -> None:
    slot, _ = slot_that_gets(tmp_path, monkeypatch, b'{"prompt": "Why?"}', TIMEOUT)
    waited: list[int] = []

    def wait(_: object) -> bool:
        waited.append(1)
        return True

    monkeypatch.setattr(slot._recovery, "wait_for_reload", wait)
    slot.in_flight._is_overdue = True

    result = slot._try_to_ask(Ask(1, "j", 0, attempt))

    assert isinstance(result, Faulted)
    assert (result.fault.kind, result.fault.costs_attempt, len(waited)) == (kind, attempt == 1, waits)


def test_fault_is_examined_with_the_token_that_was_configured_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, _ = slot_that_gets(tmp_path, monkeypatch, b'{"prompt": "Why?"}', CUT)
    tokens: list[Secret | None] = []
    monkeypatch.setattr(slot._cuts, "is_server_gone", lambda _, __, token: tokens.append(token))
    token = Secret("new")
    slot.set_connection(1.0, token)

    slot._try_to_ask(Ask(1, "j", 0, 1))

    assert tokens == [token]
