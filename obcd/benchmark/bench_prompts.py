"""The prompts of a bench or a burn-in: a prompt file, or built-in prompts that are the same everywhere and always."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from obcd.core.request.lines import parse_line
from obcd.core.request.records import JobSettings, Request
from obcd.core.user_limits import LINE_BYTES
from obcd.errors import InputError, LineError
from obcd.text import printable
from obcd.text_files import bounded_lines

#: The seed for everything that is drawn and sent here, so that two runs do the same work.
SEED = 7
#: Options with which a model chooses its likeliest word each time.
NO_CHANCE = {"temperature": 0, "seed": SEED}
#: Most prompts that are read from a file, and most bytes of them: they stay in memory.
MAX_PROMPTS, MAX_PROMPT_BYTES = 10_000, 2**28
#: Number of prompts of a burn-in: few, so that each is sent often.
BURN_IN_PROMPTS = 16

_THEMES = (
    "a lighthouse", "the smell of rain", "a night train", "bread", "an old clock", "a harbour in winter", "bees",
    "a mountain path", "glass", "a library", "the first snow", "a river delta", "copper", "an orchard", "a bridge",
)  # fmt: skip
_WORDS = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "juniper", "kelp", "lagoon",
    "maple", "nectar", "opal", "pine",
)  # fmt: skip


def plain_settings(settings: JobSettings) -> JobSettings:
    """Return the settings for the built-in prompts: no system message or schema, temperature 0, the fixed seed."""
    return replace(settings, system=None, format=None, options={**settings.options, **NO_CHANCE})


def without_chance(request: Request) -> Request:
    """Return a request whose answer does not depend on chance, whatever its line says."""
    return replace(request, options={**request.options, **NO_CHANCE})


def long_prompts() -> Callable[[int], Request]:
    """Return prompts whose answers are as long as they may be; each begins differently, so that no prefix is cached."""

    def request(number: int) -> Request:
        drawn = random.Random(SEED + number)
        theme, places = drawn.choice(_THEMES), drawn.randint(7, 99)
        return _request(number, f"{number + 1}. Write a very long story about {theme}, in {places} chapters.")

    return request


def steady_prompts() -> list[Request]:
    """Return prompts that determine every word of the answer, so that requests in the same batch hardly change it."""
    drawn = random.Random(SEED)
    return [_request(number, _copy_task(drawn)) for number in range(BURN_IN_PROMPTS)]


def in_turn(requests: Sequence[Request]) -> Callable[[int], Request]:
    """Return a function that repeats the requests in their order without end."""
    return lambda number: requests[number % len(requests)]


def read_prompts(path: Path) -> tuple[list[Request], list[str]]:
    """Read a prompt file.

    Returns:
        Its requests, at most `MAX_PROMPTS` and `MAX_PROMPT_BYTES`, and a sentence for each line that is not a valid
        prompt.

    Raises:
        InputError: If it cannot be read, or has no valid prompt.
    """
    requests: list[Request] = []
    faults: list[str] = []
    name = printable(str(path))
    try:
        with path.open("rb") as file:
            left = MAX_PROMPT_BYTES
            for line, raw in _filled_lines(file):
                try:
                    requests.append(_short_line(raw, line))
                except LineError as error:
                    faults.append(f"{name}, line {line}: {error}")
                left -= len(raw)
                if len(requests) == MAX_PROMPTS or left <= 0:
                    break
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    if not requests:
        raise InputError(f"{name} has no valid prompt" + (f": {faults[0]}" if faults else ""))
    return requests, faults


def _filled_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for line, raw in enumerate(bounded_lines(file, LINE_BYTES), 1):
        if raw.strip():
            yield line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw


def _short_line(raw: bytes, line: int) -> Request:
    if len(raw) > LINE_BYTES:
        raise LineError(f"longer than {LINE_BYTES} bytes")
    return parse_line(raw.rstrip(b"\n"), line)


def _copy_task(drawn: random.Random) -> str:
    first, words = drawn.randint(100, 800), ", ".join(drawn.sample(_WORDS, 10))
    tasks = (
        f"Count from {first} to {first + 30}, one number a line, nothing else.",
        f"Repeat this list exactly, three times, nothing else: {words}",
        f"Write these words in capital letters, in the same order, nothing else: {words}",
        f"Count down from {first + 30} to {first}, one number a line, nothing else.",
    )
    return drawn.choice(tasks)


def _request(number: int, prompt: str) -> Request:
    messages: list[dict[str, object]] = [{"role": "user", "content": prompt}]
    return Request(line=number + 1, id=number + 1, prompt=prompt, messages=messages)
