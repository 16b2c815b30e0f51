"""What counts as a repetition, and which seed the second try has."""

from __future__ import annotations

import time

import pytest

from obcd.core.request.records import JobSettings, Request
from obcd.ollama.repetition import SEED_STEP, ends_in_repetition, with_other_seed


@pytest.mark.parametrize(
    "text",
    [
        " no" * 40,
        "Once upon a time" + " there was" * 31,
        "x" + "no\n no  " * 20,  # Ollama compares without white space
        '{"a": "' + "\n" * 31,
        "}" * 31,
        '[1, 2], "' + '{"id": 7, "name": "Bonn"}, ' * 30,
        "もう" * 31,
    ],
)
def test_same_piece_again_and_again_is_one(text: str) -> None:
    assert ends_in_repetition(text)


@pytest.mark.parametrize(
    "text", ["", "no", "no no no no", " ".join(map(str, range(100))), "no " * 40 + "and then the answer came."]
)
def test_other_ends_are_none(text: str) -> None:
    assert not ends_in_repetition(text)


def test_longest_text_takes_no_time() -> None:
    text = "".join(map(str, range(2_000_000)))
    began = time.process_time()

    assert not ends_in_repetition(text)

    assert time.process_time() - began < 0.2


def request(**options: object) -> Request:
    return Request(line=1, id=1, prompt="Why?", messages=[], options=options)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0.0, "seed": 5}, {"top_k": 1}])
def test_r25_no_second_try_where_every_seed_gives_the_same(options: dict[str, object]) -> None:
    assert with_other_seed(request(**options), JobSettings(model="m")) is None
    assert with_other_seed(request(), JobSettings(model="m", options=options)) is None


def test_r25_second_try_has_another_seed() -> None:
    settings = JobSettings(model="m", options={"seed": 7})

    without = with_other_seed(request(), JobSettings(model="m"))
    of_job = with_other_seed(request(temperature=0.7), settings)
    of_line = with_other_seed(request(seed=9), settings)

    assert without is not None
    assert "seed" not in without.options
    assert of_job is not None
    assert of_job.options == {"temperature": 0.7, "seed": 7 + SEED_STEP}
    assert of_line is not None
    assert of_line.options["seed"] == 9 + SEED_STEP
