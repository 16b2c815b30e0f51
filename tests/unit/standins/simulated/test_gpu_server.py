"""The simulated engine: the same work for everyone, and Ollama's cuts of long prompts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, cast

import pytest

from obcd.standins.simulated.faults import parse_rate
from obcd.standins.simulated.gpu_server import (
    Behaviour,
    SimulatedEngine,
    fitted_tokens,
    rendered,
    token_count,
    token_limit,
)
from obcd.standins.simulated.prefix_cache import PrefixCaching
from obcd.standins.wire.engine import Embeddings, EngineError, LoadSignature, Texts, Work, WorkOutcome
from obcd.standins.wire.http import Exchange
from obcd.standins.wire.request_values import PROMPT_TOO_LONG

INSTANT = Behaviour(seconds=0.0, load_seconds=0.0)


class Listener:
    """A reply that keeps its pieces."""

    def __init__(self, stream: bool = False) -> None:
        self.stream = stream
        self.exchange = cast("Exchange", None)
        self.pieces: list[str] = []

    async def send_piece(self, text: str, thinking: str = "") -> None:
        self.pieces.append(text)

    def body_of(self, outcome: WorkOutcome) -> bytes:
        return outcome.text.encode()


def work(prompt: str, *earlier: tuple[str, str], shift: bool = True, num_ctx: int = 4096, **fields: Any) -> Work:
    messages = [{"role": role, "content": content} for role, content in (*earlier, ("user", prompt))]
    signature = LoadSignature("llama3.2:latest", num_ctx, shift)
    return Work(**{"signature": signature, "messages": messages, "options": {}, "prompt": prompt, **fields})


def answer(engine: SimulatedEngine, request: Work, reply: Listener | None = None) -> WorkOutcome:
    async def story() -> WorkOutcome:
        outcome = await engine.generate(request, reply or Listener())
        assert outcome is not None
        return outcome

    return asyncio.run(story())


def test_answer_depends_on_the_prompt_alone() -> None:
    first, second = (answer(SimulatedEngine(INSTANT), work("hello")) for _ in range(2))

    assert first.text == second.text != answer(SimulatedEngine(INSTANT), work("bye")).text
    assert (first.eval_tokens, first.done_reason) == (64, "stop")


def test_stream_brings_the_same_text_in_pieces() -> None:
    reply = Listener(stream=True)

    outcome = answer(SimulatedEngine(INSTANT), work("hello"), reply)

    assert "".join(reply.pieces) == outcome.text
    assert len(reply.pieces) == 64


def test_num_predict_cuts_an_answer_short() -> None:
    outcome = answer(SimulatedEngine(INSTANT), work("hello", options={"num_predict": 5}))

    assert (outcome.eval_tokens, outcome.done_reason) == (5, "length")


def test_spread_varies_the_length_by_prompt_and_not_by_server() -> None:
    spread = replace(INSTANT, spread=0.7)
    lengths = [answer(SimulatedEngine(spread), work(f"prompt {index}")).eval_tokens for index in range(60)]

    assert lengths == [answer(SimulatedEngine(spread), work(f"prompt {index}")).eval_tokens for index in range(60)]
    assert min(lengths) < 40
    assert max(lengths) > 90


def test_oldest_messages_are_dropped_first_and_the_system_message_stays() -> None:
    system, old = ("system", "s" * 400), ("user", "o" * 40_000)

    assert fitted_tokens(work("new", system, old)) == 104 + 5
    with pytest.raises(EngineError, match="exceed_context_size_error"):
        fitted_tokens(work("new", system, old, truncate=False))


def test_single_long_prompt_is_cut_in_the_middle_with_ollamas_count() -> None:
    assert fitted_tokens(work("x" * 40_000)) == 2051
    assert fitted_tokens(work("x" * 400_000, num_ctx=32_768)) == 16_387
    with pytest.raises(EngineError) as caught:
        fitted_tokens(work("x" * 40_000, shift=False))
    assert (caught.value.status, caught.value.text) == (400, PROMPT_TOO_LONG)


def test_answer_ends_with_the_context_where_shift_is_off() -> None:
    assert token_limit(work("x", shift=False, num_ctx=100), 60) == 40
    assert token_limit(work("x", num_ctx=100), 60) == 1000
    assert token_limit(work("x", num_ctx=100, options={"num_predict": 5000}), 60) == 1000


def test_garbled_answer_is_as_long_and_says_something_else() -> None:
    garbling = replace(INSTANT, faults=(parse_rate("garbled=1"),))
    right, wrong = answer(SimulatedEngine(INSTANT), work("hello")), answer(SimulatedEngine(garbling), work("hello"))

    assert (wrong.eval_tokens, wrong.done_reason) == (right.eval_tokens, "stop")
    assert wrong.text != right.text
    assert len(wrong.text) == len(right.text)


DOCUMENT = "d" * 4000  # 1,000 tokens
REMEMBERING = Behaviour(
    load_seconds=0.0, answer_tokens=1, tokens_per_second=1e6, prompt_tokens_per_second=10_000.0,
    prefix_cache=PrefixCaching.SLOTS,
)  # fmt: skip


def test_reply_counts_cached_tokens_and_takes_the_time_of_the_others() -> None:
    engine = SimulatedEngine(REMEMBERING)
    first = answer(engine, work(DOCUMENT + "one?"))
    began = time.monotonic()
    second = answer(engine, work(DOCUMENT + "two?"))
    took = time.monotonic() - began

    assert first.prompt_tokens == second.prompt_tokens == 1005
    assert (first.cached_tokens, second.cached_tokens) == (0, 1004)
    assert first.prompt_seconds == pytest.approx(0.1005)
    assert second.prompt_seconds == pytest.approx(0.0001)
    assert took < 0.09


def test_server_without_a_prefix_cache_evaluates_every_prompt_in_full() -> None:
    engine = SimulatedEngine(INSTANT)

    assert [answer(engine, work(DOCUMENT)).cached_tokens for _ in range(2)] == [0, 0]


def test_model_that_is_loaded_again_remembers_nothing() -> None:
    engine = SimulatedEngine(replace(REMEMBERING, seconds=0.0))
    request = work(DOCUMENT)

    def cached() -> int:
        return answer(engine, request).cached_tokens

    assert (cached(), cached()) == (0, 1003)
    asyncio.run(engine.unload(request.signature))
    assert cached() == 0
    with pytest.raises(EngineError):
        answer(engine, work("[[simulate:crash]]"))
    assert cached() == 0


def test_requests_in_flight_together_each_evaluate_their_prefix() -> None:
    engine = SimulatedEngine(REMEMBERING, slots=2)

    async def story() -> list[WorkOutcome | None]:
        return await asyncio.gather(*(engine.generate(work(DOCUMENT + word), Listener()) for word in ("one", "two")))

    assert [outcome and outcome.cached_tokens for outcome in asyncio.run(story())] == [0, 0]
    assert answer(engine, work(DOCUMENT + "six")).cached_tokens > 1000


def test_request_that_its_client_leaves_frees_its_slot() -> None:
    engine = SimulatedEngine(replace(REMEMBERING, prompt_tokens_per_second=10.0))

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.generate(work(DOCUMENT), Listener()), 0.01)

    asyncio.run(leave())
    engine.behaviour = REMEMBERING

    assert answer(engine, work(DOCUMENT)).cached_tokens == 0


def test_prompt_is_rendered_as_system_tools_messages() -> None:
    tool = {"type": "function", "function": {"name": "weather"}}
    text = rendered(work("now?", ("user", "then?"), ("system", "be brief"), tools=[tool]))

    places = [text.index(part) for part in ("be brief", "weather", "then?", "now?")]
    assert places == sorted(places)
    assert rendered(work("now?", raw_prompt="raw")) == "raw"


def test_other_picture_ends_what_two_prompts_share() -> None:
    messages = [{"role": "user", "content": "what is it?", "images": [picture]} for picture in ("aaaa", "bbbb")]

    assert rendered(work("", messages=messages[:1])) != rendered(work("", messages=messages[1:]))


def embed(*inputs: str, behaviour: Behaviour, clock: list[float], **fields: Any) -> Embeddings:
    """Embed texts at once; the seconds that it would have taken are added to the clock."""
    engine = SimulatedEngine(behaviour)

    async def wait(seconds: float) -> None:
        clock.append(seconds)

    engine._wait = wait  # type: ignore[method-assign]
    signature = LoadSignature("nomic-embed-text:latest", 512)
    texts = Texts(**{"signature": signature, "inputs": inputs, "attempts": [1] * len(inputs), **fields})
    return asyncio.run(engine.embed(texts))


@pytest.mark.parametrize(
    ("behaviour", "gain"),
    [
        (Behaviour(seconds=0.004), 1.45),  # v0.33 (contract 9.2)
        (Behaviour(seconds=0.004, embed_call_seconds=0.0001), 1.03),  # v0.24
    ],
)
def test_call_takes_its_own_time_and_that_of_each_text(behaviour: Behaviour, gain: float) -> None:
    single, group = list[float](), list[float]()

    for number in range(64):
        embed(f"text {number}", behaviour=behaviour, clock=single)
    found = embed(*(f"text {number}" for number in range(64)), behaviour=behaviour, clock=group)

    assert sum(single) / sum(group) == pytest.approx(gain, abs=0.03)
    assert len(found.vectors) == 64
    assert found.prompt_tokens == sum(token_count(f"text {number}") for number in range(64))  # one count for all


def test_one_text_too_long_refuses_the_whole_call() -> None:
    with pytest.raises(EngineError) as caught:
        embed("short", "word " * 1000, behaviour=INSTANT, clock=[], truncate=False)

    assert caught.value.status == 400


def test_marker_in_any_text_of_a_call_counts_by_the_times_that_this_text_has_come() -> None:
    with pytest.raises(EngineError):
        embed("one", "[[simulate:crash*1]] two", behaviour=INSTANT, clock=[])

    assert len(embed("[[simulate:crash*1]] two", "one", behaviour=INSTANT, clock=[], attempts=[2, 1]).vectors) == 2
