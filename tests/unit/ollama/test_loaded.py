"""What a server holds, judged: context and card."""

from __future__ import annotations

import pytest

from obcd.core.endpoint.faults import Harm, Remedy
from obcd.core.request.records import Signature
from obcd.ollama.loaded import Loaded, find_loaded, is_lowered, judge_context, judge_gpu
from tests.golden.wording import wording

ASKED = Signature("llama3.2:latest", (("num_ctx", 8192),))


def loaded(*, vram: int = 100, context: int = 8192) -> Loaded:
    return Loaded(name="llama3.2:latest", size_bytes=100, vram_bytes=vram, context_length=context)


@pytest.mark.parametrize(
    ("vram", "words"),
    [(100, ""), (0, wording("it-is-computed-on-the-cpu")), (50, wording("only-50-of-it-lies-on")), (1, "only 1 %")],
)
def test_model_has_to_lie_on_the_card_as_a_whole(vram: int, words: str) -> None:
    fault = judge_gpu(loaded(vram=vram))

    assert (fault is None) == (vram == 100)
    assert fault is None or fault.message.startswith(words)


@pytest.mark.parametrize(
    ("context", "trained", "is_fault"),
    [
        (8192, 131072, False),
        (16384, 131072, False),  # another request's, larger: the next one loads anew or fits
        (4096, 131072, True),
        (2048, 2048, False),  # all that the model can
        (1024, 2048, True),
        (0, 131072, False),  # not told, by an older Ollama
        (7937, 131072, False),  # the same multiple of 256
        (7936, 131072, True),
    ],
)
def test_smaller_context_than_asked_is_a_fault_unless_the_model_has_no_more(
    context: int, trained: int, is_fault: bool
) -> None:
    fault = judge_context(loaded(context=context), ASKED, trained)

    assert (fault is not None) == is_fault
    if fault is not None:
        assert wording("a-context-of-tokens-in-place", context, min(8192, trained)) in fault.message
        assert (fault.remedy, fault.costs_attempt, fault.harm) == (Remedy.ELSEWHERE, False, Harm.UNFIT)


def test_signature_without_a_context_is_never_lowered() -> None:
    assert not is_lowered(loaded(context=16), Signature("llama3.2:latest", ()))


def test_model_is_found_by_its_canonical_name() -> None:
    models = (loaded(), Loaded(name="Qwen3:0.6B", size_bytes=1, vram_bytes=1))

    found = find_loaded(models, "qwen3:0.6b")

    assert found is models[1]
    assert find_loaded(models, "qwen3:latest") is None
