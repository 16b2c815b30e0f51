"""Mutated lines by the thousand: each has one result or one reason, and every kind of reason comes up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from obcd.spool.folders.layout import Layout
from obcd.spool.job import ledger
from tests.faults.checks import quick_syncs
from tests.property.test_mangled import SEEDS, TOKENS
from tests.unit.spool.spools import accepted, drop_of, make_layout, order_of, put

#: Lines in `make test` and in `make soak`, and in one file.
FEW, MANY, IN_A_FILE = 10_000, 2_000_000, 5_000
MAX_LINE_BYTES = 6000
#: What the reasons of bad lines say; each must be reached.
REASONS = (
    *(
        "not JSON",
        "not UTF-8",
        "nested deeper",
        "too many digits",
        "too large",
        "occurs twice in it",
        "byte order mark",
    ),
    *("is not a JSON number", "where an object is needed", "longer than", "no prompt in it", "is empty", "must be"),
    *("is not supported: ", "embeddings"),
)


def mutate(dice: random.Random) -> bytes:
    """Return a seed with up to three places cut, doubled, spliced from another, or replaced by a parser's words."""
    line = dice.choice(SEEDS)
    for _ in range(dice.randrange(4)):
        start = dice.randrange(len(line) + 1)
        end = min(len(line), start + dice.randrange(13))
        kinds = (
            dice.choice(TOKENS),
            dice.randbytes(dice.randrange(5)),
            line[start:end] * 2,
            dice.choice(SEEDS)[start:],
        )
        line = line[:start] + dice.choice(kinds) + line[end:]
    if dice.random() < 0.0005:
        line = line.ljust(MAX_LINE_BYTES + 1, b"x")
    return line.replace(b"\n", b" ")


def fuzz(scratch: Path, total: int) -> Counter[str]:
    """Accept so many mutated lines, and return how often each reason came up."""
    dice, found = random.Random(3), Counter[str]()
    layout = make_layout(scratch / "root")
    for number in range(total // IN_A_FILE):
        lines = [b'{"prompt": "first"}', *(mutate(dice) for _ in range(IN_A_FILE - 2)), b'{"prompt": "last"}']
        found += fuzz_file(layout, f"job{number}", lines)
    return found


def fuzz_file(layout: Layout, job: str, lines: list[bytes]) -> Counter[str]:
    path = put(layout, b"\n".join(lines) + b"\n", f"{job}.jsonl")
    header = accepted(layout, order_of(drop_of(path), job, max_line_bytes=MAX_LINE_BYTES))
    requests = [number for number, line in enumerate(lines, 1) if line.strip()]
    replay = ledger.replay(layout.jobs / job / ledger.NAME, len(requests))
    assert header.requests == len(requests)
    assert sum(replay.done) == header.bad_lines
    text = (layout.jobs / job / ledger.NAME).read_text("ascii")
    for folder in (layout.jobs / job, layout.claim(job, "")):
        for item in folder.iterdir():
            item.unlink()
        folder.rmdir()
    return Counter({reason: text.count(reason) for reason in REASONS})


@pytest.mark.case("E12", "E13", "E14", "E15", "E19", "E20")
def test_mutated_lines_have_a_result_or_a_reason_each(scratch: Path) -> None:
    with quick_syncs():
        found = fuzz(scratch, FEW)

    assert len(SEEDS) >= 30
    assert set(REASONS) <= {reason for reason, times in found.items() if times}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.case("E12", "E13", "E14", "E15", "E19", "E20")
def test_two_million_mutated_lines_have_a_result_or_a_reason_each(scratch: Path, count: Callable[[str], None]) -> None:
    with quick_syncs():
        found = fuzz(scratch, MANY)

    count(f"mutated lines: {MANY}, of them with a reason {found.total()}: {dict(found)}")
    assert set(REASONS) <= {reason for reason, times in found.items() if times}
