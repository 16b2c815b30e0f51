"""Hostile names and states: whatever stands in status.json, the page shows text and never fails."""

from __future__ import annotations

import json
import math
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.coordinator.view import View
from obcd.core.markup import Markup
from obcd.metrics.samples import exposition
from obcd.page.content import Privacy, sections, time_of, title
from obcd.page.document import document
from obcd.page.plots import PlotSpan, columns, show_plots
from obcd.page.static_files import StaticFiles
from obcd.page.status_source import SeenStatus, StatusCondition
from obcd.spool.history.thinning import HistoryPoint
from tests.unit.page.made import make_history, make_view

#: The elements of sections; hostile texts hold others.
TAGS = (
    "h2|h3|p|div|span|ul|li|dl|dt|dd|bdi|table|thead|tbody|tr|th|td|svg|rect|path|time|nav|figure|figcaption|details|"
    "summary"
)
#: The elements of the page around them, with the number of each.
AROUND = {"<html": 1, "<head": 2, "<title": 1, "<script": 1, "<h1": 1, "<a ": 1, "<meta": 3, "<link": 2, "<button": 1}
ATTRIBUTES = (
    r"class|id|role|scope|colspan|datetime|href|src|rel|type|lang|charset|name|content|tabindex|viewBox|x|d|width|height|"
    r"preserveAspectRatio|aria-[a-z]+|data-[a-z]+"
)
#: What the page consists of; nothing that comes from outside can look like it.
OWN = re.compile(rf'</?(?:{TAGS})(?: (?:(?:{ATTRIBUTES})="[^"<>]*"|hidden))*>')
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "</title><h1>x</h1>",
    "<!--", "]]>", "&lt;b&gt;", "{{7*7}}", "\x00\x1b[2J", "\u202egnp.exe", "\ud800", "javascript:alert(1)", "</svg><a>",
    "../../etc/passwd", "a" * 5000, "\r\nSet-Cookie: x=1", "<", ">", "&", '"', "`", "\u2028", "é" * 40, "",
]  # fmt: skip
WHOLE = [0, -1, 10**18, 10**400, -(10**400), 2**63, 3]
NUMBERS = [0, -1, 10**18, 1e308, -1e308, 5e-324, 0.1, 2**63, 1e15]
OTHERS: list[Any] = [[], {}, [[]], {"a": 1}, ["<b>"], {"<i>": "<i>"}, "UP", None, True, math.nan, math.inf, 10**400]
CONTROLS = re.compile("[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SMALL = make_view(1, 2, updated=1e9).to_json()
FILES = StaticFiles()


def mutate(chance: random.Random, changes: int) -> Any:
    """Return a status with some values replaced, most of them by ones of the same kind."""
    document = json.loads(json.dumps(SMALL))
    for _ in range(changes):
        place: Any = document
        while True:
            key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and chance.random() < 0.9:
                place = inner
                continue
            break
        if chance.random() < 0.02:
            place[key] = chance.choice(OTHERS)
        elif isinstance(inner, str):
            place[key] = chance.choice(HOSTILE) + chance.choice(HOSTILE)
        elif isinstance(inner, dict):
            inner[chance.choice(HOSTILE)] = chance.choice([*WHOLE, *HOSTILE[:1]])
        elif isinstance(inner, int):
            place[key] = not inner if isinstance(inner, bool) else chance.choice(WHOLE)
        elif isinstance(inner, float):
            place[key] = chance.choice(NUMBERS)
    return document


def check(chance: random.Random) -> bool:
    """Show one state; return whether it was one that can be read."""
    try:
        view = View.from_json(mutate(chance, chance.randint(1, 12)))
    except ValueError:
        seen = SeenStatus(StatusCondition.FOREIGN)
    else:
        seen = SeenStatus(
            chance.choice([StatusCondition.LIVE, StatusCondition.LIVE, StatusCondition.STOPPED]), view, view.updated
        )
        if chance.random() < 0.1:
            exposition(view).decode()
    rest = OWN.sub("", "".join(sections(seen, chance.choice(list(Privacy))).values()))
    assert "<" not in rest
    assert ">" not in rest
    assert not CONTROLS.search(rest)
    title(seen).encode()
    return seen.view is not None


@given(st.integers(0, 2**64))
def test_hostile_state_becomes_text(seed: int) -> None:
    check(random.Random(seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("half", [1, 2])
def test_half_a_million_hostile_states_become_text(half: int) -> None:
    chance = random.Random(half)

    readable = sum(check(chance) for _ in range(500_000))

    print(f"\n500000 fuzzed states, {readable} of them readable")
    assert readable > 100_000


@given(st.lists(st.sampled_from(HOSTILE), min_size=4, max_size=4))
def test_whole_page_with_hostile_texts_has_no_markup_but_ours(texts: list[str]) -> None:
    parts = {**sections(SeenStatus(StatusCondition.ABSENT, None, 1.0), Privacy.NAMES), "plots": Markup()}

    page = document(texts[0], texts[1], parts, time_of(1e300), PlotSpan.DAY, FILES)

    assert {name: page.count(name) for name in AROUND} == AROUND
    for hostile in filter(lambda text: text != "<" and "<" in text, texts):
        assert hostile not in page
    page.encode()


numbers = st.none() | st.floats() | st.sampled_from([1e300, -1.0, 0.0, 10.0**15])


@given(
    st.lists(
        st.builds(
            HistoryPoint,
            time=st.floats(0, 1e12),
            responses=numbers,
            failures=numbers,
            waiting=numbers,
            output_tokens=numbers,
            power_watts=numbers,
            utilization=numbers,
            slots=numbers,
        ),
        max_size=20,
    )
)
def test_odd_points_are_drawn_inside_the_plots(points: list[HistoryPoint]) -> None:
    drawn = show_plots(points, PlotSpan.HOUR)

    assert "<" not in OWN.sub("", re.sub(r"</?(a|b)( [^<>]*)?>", "", drawn))
    assert "nan" not in drawn
    assert "inf" not in drawn
    json.dumps(columns(points), allow_nan=False)


def test_checks_would_see_markup_from_outside() -> None:
    for hostile in ("<script>alert(1)</script>", "<p onclick=x>", '<p class="x" onclick="y">', "<img>", "</svg><a>"):
        assert "<" in OWN.sub("", f"<p>{hostile}</p>")
    assert len(make_history(1e9)) > 100
