"""What is asked under load: fixed prompts of our own, or a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from obcd.benchmark.bench_prompts import (
    BURN_IN_PROMPTS,
    in_turn,
    long_prompts,
    plain_settings,
    read_prompts,
    steady_prompts,
    without_chance,
)
from obcd.core.request.records import JobSettings, Request
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import InputError
from tests.golden.wording import wording


def test_prompts_of_our_own_are_the_same_every_time() -> None:
    first, second = long_prompts(), long_prompts()

    assert [first(number).prompt for number in range(50)] == [second(number).prompt for number in range(50)]
    assert steady_prompts() == steady_prompts()


def test_no_long_prompt_begins_like_another_so_that_none_is_cached() -> None:
    request = long_prompts()

    assert len({request(number).prompt[:6] for number in range(1000)}) == 1000


def test_prompts_of_a_burn_in_are_few_and_different() -> None:
    assert len({request.prompt for request in steady_prompts()}) == BURN_IN_PROMPTS


def test_prompts_of_our_own_are_asked_at_temperature_zero_with_what_loads_the_model() -> None:
    given = JobSettings(model="m", system="You are …", format="json", options={"temperature": 0.9, "num_gpu": 20})

    plain = plain_settings(given)

    assert (plain.system, plain.format) == (None, None)
    assert plain.options == {"temperature": 0, "seed": 7, "num_gpu": 20}


def test_line_of_a_file_loses_its_chance_and_keeps_what_else_it_wishes() -> None:
    request = Request(line=1, id=1, prompt="a", messages=[], options={"temperature": 0.9, "seed": 1, "num_predict": 9})

    assert without_chance(request).options == {"temperature": 0, "seed": 7, "num_predict": 9}


def test_file_is_asked_in_turn_whatever_shapes_are_in_it(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('\ufeff{"prompt": "a"}\n\n{"role": "user", "content": "b"}\nnonsense\n', "utf-8")

    requests, faults = read_prompts(path)

    assert [in_turn(requests)(number).prompt for number in range(4)] == ["a", "b", "a", "b"]
    assert len(faults) == 1
    assert "line 4: not JSON" in faults[0]


@pytest.mark.parametrize("content", ["", "\n\n", "nonsense\n", "x" * (LINE_BYTES + 1)])
def test_file_without_a_prompt_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(content, "utf-8")

    with pytest.raises(InputError, match=wording("holds-no-prompt")):
        read_prompts(path)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_prompts(tmp_path)
