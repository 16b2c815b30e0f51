"""Loading and looking: what is gone is loaded again, what cannot be seen counts only where it has to be seen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from obcd.core.endpoint.faults import Fault, Harm, Remedy
from obcd.core.request.records import Signature
from obcd.ollama import control
from obcd.ollama.control import ControlError
from obcd.ollama.description import Description
from obcd.ollama.loaded import Loaded
from obcd.ollama.transport import Transport
from obcd.workers import loader
from obcd.workers.loader import LOADS, Loader, Preflight
from tests.golden.wording import wording

ASKED = Signature("llama3.2:latest", (("num_ctx", 8192),))
WHOLE = Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=100, context_length=8192)
LOW = Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=100, context_length=2048)
ON_CPU = Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=0, context_length=8192)
OTHER = Loaded(name="other:latest", size_bytes=100, vram_bytes=0)
TRANSPORT = Transport("http://127.0.0.1:1", 1.0)


class Server:
    """Stands for the calls to a server: each look tells the next answer, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *looks: Sequence[Loaded] | ControlError, trained: int = 131072):
        self.loads, self.looks = 0, list(looks)
        self.trained = trained
        monkeypatch.setattr(loader, "preload", self.preload)
        monkeypatch.setattr(loader, "ask_loaded", self.look)
        monkeypatch.setattr(loader, "ask_trained_context", lambda *_: self.trained)
        monkeypatch.setattr(loader, "ask_digests", lambda *_: {"llama3.2:latest": "new" * 20})

    def preload(self, *_: object) -> Fault | None:
        self.loads += 1
        return None

    def look(self, *_: object) -> Sequence[Loaded]:
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, ControlError):
            raise found
        return found


def ensure(*, require_gpu: bool = False) -> Fault | None:
    return Loader("http://127.0.0.1:1", Preflight(require_gpu=require_gpu)).ensure(TRANSPORT, ASKED)


def test_what_is_loaded_as_it_should_is_loaded_and_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [OTHER, WHOLE])
    made = Loader("http://127.0.0.1:1", Preflight(require_gpu=True))

    assert [made.ensure(TRANSPORT, ASKED) for _ in range(3)] == [None] * 3

    assert server.loads == 1


def test_model_that_is_gone_at_the_look_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [], [OTHER], [WHOLE])

    assert ensure(require_gpu=True) is None
    assert server.loads == 3


def test_model_that_never_stays_loaded_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [])

    assert ensure() is None
    assert server.loads == LOADS


@pytest.mark.parametrize("looks", [[], ControlError(wording("it-answers-with-status-404"))])
def test_what_cannot_be_seen_is_a_fault_where_the_gpu_is_required(
    monkeypatch: pytest.MonkeyPatch, looks: Sequence[Loaded] | ControlError
) -> None:
    Server(monkeypatch, looks)

    assert ensure() is None
    fault = ensure(require_gpu=True)

    assert fault is not None
    assert (fault.kind, fault.harm, fault.costs_attempt) == ("unseen", Harm.UNFIT, False)


def test_lowered_context_is_a_fault_and_is_looked_at_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(monkeypatch, [LOW], [WHOLE])
    made = Loader("http://127.0.0.1:1", Preflight())

    fault = made.ensure(TRANSPORT, ASKED)

    assert fault is not None
    assert (fault.kind, fault.remedy) == ("context_lowered", Remedy.ELSEWHERE)
    assert made.ensure(TRANSPORT, ASKED) is None
    assert server.loads == 2


def test_context_of_a_model_that_can_no_more_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, [LOW], trained=2048)

    assert ensure() is None


def test_model_on_the_cpu_is_a_fault_from_the_moment_the_gpu_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, [ON_CPU])
    made = Loader("http://127.0.0.1:1", Preflight())
    assert made.ensure(TRANSPORT, ASKED) is None

    made.configure(Preflight(require_gpu=True))

    fault = made.ensure(TRANSPORT, ASKED)
    assert fault is not None
    assert fault.kind == "off_gpu"


def test_answer_for_which_the_server_loaded_other_weights_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, [WHOLE])
    made = Loader("http://127.0.0.1:1", Preflight())

    fault = made.note_used(ASKED, "old", 2.0)

    assert fault is not None
    assert (fault.kind, fault.costs_attempt, fault.harm) == ("other_weights", False, Harm.NONE)
    assert fault.message == wording("its-llama3-2-is-another-one-3")


def test_load_times_of_repairs_are_no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, [WHOLE])
    made = Loader("http://127.0.0.1:1", Preflight())

    assert made.note_used(ASKED, "old", 3 * 0.18, requests=3) is None
    assert made.note_used(ASKED, "old", 3 * 0.18) is not None


@pytest.mark.parametrize("is_copy", [True, False])
def test_model_of_which_another_name_is_loaded_is_looked_at_by_its_weights(
    monkeypatch: pytest.MonkeyPatch, is_copy: bool
) -> None:
    # given a server that lists a model under the name that loaded it
    blobs = {"llama3.2:latest": "6a", "other:latest": "0b", "mine:latest": "6a"}
    digests = {"llama3.2:latest": "1", "other:latest": "2", "mine:latest": "1" if is_copy else "3"}
    mine = Loaded(name="mine:latest", size_bytes=100, vram_bytes=50)
    Server(monkeypatch, [OTHER, mine])
    monkeypatch.setattr(control, "ask_digests", lambda *_: digests)
    monkeypatch.setattr(control, "ask_description", lambda _, name, *__: Description(weights=blobs[name]))

    fault = ensure(require_gpu=True)

    assert fault is not None
    assert fault.kind == "off_gpu"
    blobs["mine:latest"] = "0c"
    mine_is_found = ensure(require_gpu=True)
    assert mine_is_found is not None
    assert mine_is_found.kind == ("off_gpu" if is_copy else "unseen")


@pytest.mark.parametrize(("digest", "seconds"), [("old", 0.1), ("newnewnewnew", 2.0), ("", 2.0)])
def test_answer_counts_whose_weights_are_right_or_any_or_were_not_loaded_anew(
    monkeypatch: pytest.MonkeyPatch, digest: str, seconds: float
) -> None:
    Server(monkeypatch, [WHOLE])

    assert Loader("http://127.0.0.1:1", Preflight()).note_used(ASKED, digest, seconds) is None


def test_model_that_the_server_loaded_anew_is_looked_at_before_the_next_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(monkeypatch, [WHOLE], [ON_CPU])
    made = Loader("http://127.0.0.1:1", Preflight(require_gpu=True))
    assert made.ensure(TRANSPORT, ASKED) is None

    made.note_used(ASKED, "", 2.0)

    assert made.ensure(TRANSPORT, ASKED) is not None
    assert server.loads == 2


@pytest.mark.parametrize(
    ("sent_before", "answered_before", "is_silent"),
    [(10.0, 20.0, True), (10.0, 9.0, True), (10.0, 4.0, False), (10.0, 0.0, False)],
    ids=["nobody since", "only at first", "lately", "just now"],
)
def test_silence_is_when_nobody_was_answered_for_the_second_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch, sent_before: float, answered_before: float, is_silent: bool
) -> None:
    made = Loader("http://127.0.0.1:1", Preflight())
    monkeypatch.setattr(loader, "monotonic", lambda: 100.0 - answered_before)
    made.note_used(ASKED, "", 0.0)
    monkeypatch.setattr(loader, "monotonic", lambda: 100.0)

    assert made.on_silence(ASKED, 100.0 - sent_before) is is_silent
    assert made.doubted == (ASKED if is_silent else None)


def test_answer_ends_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    Server(monkeypatch, [WHOLE])
    made = Loader("http://127.0.0.1:1", Preflight())
    made.on_silence(ASKED, 0.0)

    made.note_used(ASKED, "", 0.0)

    assert made.doubted is None


@pytest.mark.parametrize(
    ("look", "was_listed"), [([WHOLE], True), ([], False), (ControlError(wording("it-answers-with-status-404")), False)]
)
def test_r26_absence_of_a_model_says_something_only_of_a_server_that_lists_models(
    monkeypatch: pytest.MonkeyPatch, look: Sequence[Loaded] | ControlError, was_listed: bool
) -> None:
    Server(monkeypatch, look)
    made = Loader("http://127.0.0.1:1", Preflight())

    made.ensure(TRANSPORT, ASKED)

    assert made.was_listed is was_listed
