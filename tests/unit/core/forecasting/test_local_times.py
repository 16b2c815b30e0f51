from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from obcd.core.forecasting.local_times import describe_moment, describe_span, parse_moment

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 12, 1, 18, 30, tzinfo=BERLIN).timestamp()  # a Tuesday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tomorrow 06:00", "2026-12-02T06:00+01:00"),
        ("Tomorrow at 6:00", "2026-12-02T06:00+01:00"),
        ("06:00", "2026-12-02T06:00+01:00"),
        ("19:00", "2026-12-01T19:00+01:00"),
        ("today 19:00", "2026-12-01T19:00+01:00"),
        ("tonight 24:00", "2026-12-02T00:00+01:00"),
        ("fri 18:00", "2026-12-04T18:00+01:00"),
        ("tuesday 18:00", "2026-12-08T18:00+01:00"),  # it is past for today
        ("tue 19:00", "2026-12-01T19:00+01:00"),
        ("in 90 min", "2026-12-01T20:00+01:00"),
        ("in 8 hours", "2026-12-02T02:30+01:00"),
        ("2026-12-24T06:00", "2026-12-24T06:00+01:00"),
        ("2026-12-24 06:00:30", "2026-12-24T06:00:30+01:00"),
        ("2026-12-24T06:00Z", "2026-12-24T07:00+01:00"),
        ("2027-03-28T02:30", "2027-03-28T03:00+02:00"),  # the clock skips it
    ],
)
def test_moment_is_understood(text: str, expected: str) -> None:
    assert parse_moment(text, NOW, BERLIN) == datetime.fromisoformat(expected).timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "soon", "tomorrow", "2026-12-24", "25:00", "06:60", "yesterday 06:00", "0001-01-01T00:00", "9999-12-31T23:00Z",
     "2026-13-01T00:00", "6", "in 99999999 days"],
)  # fmt: skip
def test_other_text_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r'write e\.g\. "tomorrow 06:00"'):
        parse_moment(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20:00", "20:00"),
        ("tomorrow 06:00", "06:00"),
        ("fri 18:00", "Fri 18:00"),
        ("2026-12-24T06:00", "2026-12-24 06:00"),
        ("today 07:00", "07:00"),
        ("2026-11-29T06:00", "2026-11-29 06:00"),
    ],
)
def test_moment_is_shown_as_short_as_it_is_clear(text: str, expected: str) -> None:
    assert describe_moment(parse_moment(text, NOW, BERLIN), NOW, BERLIN) == expected


def test_span_is_shown_in_minutes() -> None:
    shown = [describe_span(seconds) for seconds in (5, 90, 2400, 7500, 86400 * 4)]

    assert shown == ["1 min", "2 min", "40 min", "2 h 05 min", "4 days"]
