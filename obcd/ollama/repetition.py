"""Answers that repeat themselves: Ollama ends a generation after some thirty equal tokens. Pure.

The reply is then a 200 with `done: false` and the text so far; the same prompt with the same seed ends the same way.
"""

from __future__ import annotations

from dataclasses import replace

from obcd.core.request.records import JobSettings, Request, request_options, whole_option

#: Equal pieces at the end of a text that make a repetition. Ollama compares pieces without the white space around them
#: and stops after the 30th (llm/llama_server.go, v0.33); a text may lack some of them.
REPEATS = 16
#: Longest piece, in characters, and the characters at the end of a text that are examined.
LONGEST_PIECE = 100
_TAIL = 2 * REPEATS * LONGEST_PIECE
#: Added to a seed for the second try: far from the seeds of the other answers of a line.
SEED_STEP = 1_000_003


def ends_in_repetition(text: str) -> bool:
    """Return whether a text ends with the same piece again and again, or with nothing but white space."""
    tail = text[-_TAIL:]
    if len(tail) - len(tail.rstrip()) >= REPEATS:
        return True
    dense = "".join(tail.split())
    for size in range(1, min(LONGEST_PIECE, len(dense) // REPEATS) + 1):
        end = dense[-size * REPEATS :]
        if end[size:] == end[:-size]:
            return True
    return False


def with_other_seed(request: Request, settings: JobSettings) -> Request | None:
    """Return the request with another seed; None if the model always takes the likeliest token, whatever the seed.

    Without a seed the server draws one for each request.
    """
    options = request_options(request, settings)
    temperature = options.get("temperature")
    if options.get("top_k") == 1 or (isinstance(temperature, int | float) and temperature <= 0):
        return None
    seed = whole_option(options, "seed", -1)
    if seed < 0:
        return request
    return replace(request, options={**request.options, "seed": (seed + SEED_STEP) % 2**31})
