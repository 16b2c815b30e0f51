from __future__ import annotations

import random
import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from obcd.core.forecasting.windows import Windows, parse_window
from tests.golden.wording import wording

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTS = "mon-fri 20:00-07:00"


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def shown(moment: float | None, zone: ZoneInfo = BERLIN) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, zone).isoformat(timespec="minutes")


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-12-01T19:59:59", False),  # a Tuesday
        ("2026-12-01T20:00", True),
        ("2026-12-02T06:59:59", True),
        ("2026-12-02T07:00", False),
        ("2026-12-05T06:00", True),  # Saturday morning belongs to Friday night
        ("2026-12-05T20:00", False),
        ("2026-12-07T06:00", False),  # Monday morning would belong to Sunday night
    ],
)
def test_window_over_midnight_belongs_to_the_day_on_which_it_opens(moment: str, is_open: bool) -> None:
    assert Windows.parse(NIGHTS, BERLIN).is_open(at(moment)) is is_open


def test_closed_window_says_when_it_opens_and_an_open_one_when_it_closes() -> None:
    windows = Windows.parse(NIGHTS, BERLIN)

    opens, closes = windows.opens_at(at("2026-12-05T12:00")), windows.closes_at(at("2026-12-01T23:00"))

    assert (shown(opens), shown(closes)) == ("2026-12-07T20:00+01:00", "2026-12-02T07:00+01:00")
    assert windows.opens_at(at("2026-12-01T23:00")) == at("2026-12-01T23:00")


def test_windows_that_meet_are_one() -> None:
    windows = Windows.parse([NIGHTS, "sat-sun"], BERLIN)

    assert shown(windows.closes_at(at("2026-12-05T12:00"))) == "2026-12-07T00:00+01:00"
    assert shown(windows.closes_at(at("2026-12-04T23:00"))) == "2026-12-07T00:00+01:00"


@pytest.mark.parametrize("text", ["00:00-24:00", "mon-sun", "00:00-12:00; 12:00-24:00", "mon-wed; thu,fri,sat,sun"])
def test_windows_that_fill_the_week_never_close(text: str) -> None:
    windows = Windows.parse(text, BERLIN)

    assert windows.is_open(at("2026-12-01T12:00"))
    assert windows.closes_at(at("2026-12-01T12:00")) is None


def test_no_window_means_always() -> None:
    assert Windows().is_open(0.0)
    assert Windows().closes_at(0.0) is None
    assert Windows().opens_at(5.0) == 5.0


@pytest.mark.parametrize(
    ("text", "opens", "closes"),
    [
        # On 28 March 2027 the clock goes from 02:00 to 03:00: the time that is skipped is the moment of the change.
        ("sun 02:30-05:00", "2027-03-28T03:00+02:00", "2027-03-28T05:00+02:00"),
        ("sat 22:00-02:30", "2027-03-27T22:00+01:00", "2027-03-28T03:00+02:00"),
        ("sun 02:15-02:45", "2027-04-04T02:15+02:00", "2027-04-04T02:45+02:00"),  # not at all in that night
    ],
)
def test_beginning_of_summer_time(text: str, opens: str, closes: str) -> None:
    windows = Windows.parse(text, BERLIN)
    moment = windows.opens_at(at("2027-03-27T12:00"))

    assert (shown(moment), shown(windows.closes_at(moment))) == (opens, closes)


@pytest.mark.parametrize(
    ("text", "opens", "closes"),
    [
        # On 25 October 2026 the hour from 02:00 to 03:00 comes twice: the first counts.
        ("sun 02:30-05:00", "2026-10-25T02:30+02:00", "2026-10-25T05:00+01:00"),
        ("sat 22:00-02:30", "2026-10-24T22:00+02:00", "2026-10-25T02:30+02:00"),
    ],
)
def test_end_of_summer_time(text: str, opens: str, closes: str) -> None:
    windows = Windows.parse(text, BERLIN)
    moment = windows.opens_at(at("2026-10-24T12:00"))

    assert (shown(moment), shown(windows.closes_at(moment))) == (opens, closes)
    assert not Windows.parse("sat 22:00-02:30", BERLIN).is_open(at("2026-10-25T02:15", fold=1))


def test_night_of_a_change_has_an_hour_less_or_more() -> None:
    windows = Windows.parse("20:00-07:00", BERLIN)

    spring = windows.open_seconds(at("2027-03-27T12:00"), at("2027-03-28T12:00"))
    autumn = windows.open_seconds(at("2026-10-24T12:00"), at("2026-10-25T12:00"))

    assert (spring, autumn) == (10 * 3600, 12 * 3600)


def test_midnight_that_a_clock_skips_is_the_moment_of_the_change() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 2027-03-28: from 00:00 to 01:00
    windows = Windows.parse("sat 12:00-24:00; sun 00:00-06:00", beirut)

    assert shown(windows.closes_at(at("2027-03-27T13:00", beirut)), beirut) == "2027-03-28T06:00+03:00"


def test_country_that_skipped_a_day_had_no_window_on_it() -> None:
    apia = ZoneInfo("Pacific/Apia")  # there was no Friday 30 December 2011
    windows = Windows.parse("fri 08:00-09:00", apia)

    assert shown(windows.opens_at(at("2011-12-29T12:00", apia)), apia) == "2012-01-06T08:00+14:00"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"])
def test_window_is_open_when_the_clock_on_the_wall_says_so(zone: str) -> None:
    """A window that ends at 06:30 and begins at 22:15 never meets the hours of a change, so the wall decides."""
    local, chance = ZoneInfo(zone), random.Random(20)
    windows = Windows.parse("22:15-06:30", local)
    for _ in range(300):
        moment = at("2026-01-01T00:00", local) + chance.random() * 3 * 365 * 86400
        wall = datetime.fromtimestamp(moment, local).time()
        is_night = wall >= datetime(2026, 1, 1, 22, 15).time() or wall < datetime(2026, 1, 1, 6, 30).time()
        assert windows.is_open(moment) is is_night, datetime.fromtimestamp(moment, local)


def test_spell_answers_for_all_moments_in_it() -> None:
    windows, chance = Windows.parse([NIGHTS, "sat 10:00-14:00"], BERLIN), random.Random(1)
    for _ in range(100):
        moment = at("2027-03-20T00:00") + chance.random() * 14 * 86400
        spell = windows.around(moment)
        assert spell.holds(moment)
        assert spell.since is not None
        assert spell.until is not None
        for other in (spell.since, spell.until - 0.5):
            assert windows.is_open(other) is spell.is_open
        assert windows.is_open(spell.until) is not spell.is_open
        assert windows.is_open(spell.since - 0.5) is not spell.is_open


def test_clock_that_is_set_back_finds_the_window_that_was_open_then() -> None:
    windows = Windows.parse("mon 20:00-22:00", BERLIN)

    assert not windows.is_open(at("2026-12-05T12:00"))
    assert windows.is_open(at("2026-11-30T21:00"))
    assert not windows.is_open(at("2026-11-29T21:00"))


def test_work_goes_on_in_the_next_window() -> None:
    windows = Windows.parse(NIGHTS, BERLIN)

    end = windows.after(at("2026-12-04T06:00"), 3 * 3600.0)

    assert shown(end) == "2026-12-04T22:00+01:00"
    assert windows.open_seconds(at("2026-12-04T06:00"), end) == 3 * 3600.0


def test_machine_zone_is_used_without_another(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = at("2026-12-01T20:00")
    zoned, plain = Windows.parse(NIGHTS, ZoneInfo("UTC")), Windows.parse(NIGHTS)
    offset = datetime.fromtimestamp(moment).astimezone().utcoffset()
    assert offset is not None

    assert plain.opens_at(moment - 6 * 3600) == zoned.opens_at(moment - 6 * 3600 + offset.total_seconds()) - (
        offset / timedelta(seconds=1)
    )


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("20:00-07:00", "0123456", 1200, 1860),
        ("Mon-Fri 20:00 – 07:00", "01234", 1200, 1860),
        ("saturday, sun 8:30-9:00", "56", 510, 540),
        ("fri-mon 00:00-24:00", "4560", 0, 1440),
        ("daily 12:00-13:00", "0123456", 720, 780),
        ("sat sun", "56", 0, 1440),
    ],
)
def test_window_is_parsed(text: str, days: str, start: int, end: int) -> None:
    window = parse_window(text)

    assert (window.days, window.start, window.end) == (frozenset(map(int, days)), start, end)


@pytest.mark.parametrize(
    "text", ["", "mon-fri 20-7", "mon-fri 25:00-07:00", "20:60-21:00", "someday 08:00-09:00", "08:00-08:00",
             "24:00-07:00", "20:00-07:00 mon", "x" * 100_000, "mon-" * 30_000]
)  # fmt: skip
def test_text_that_is_no_window_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.{10,200}$"):
        parse_window(text)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ("", wording("a-text-is-empty-write-days")),
        ([NIGHTS, " "], wording("a-text-is-empty-write-days")),
        (f"{NIGHTS};", wording("there-is-no-window-beside-a-semicolon", f"{NIGHTS};")),
        (f"; {NIGHTS}", wording("there-is-no-window-beside-a-semicolon", f"; {NIGHTS}")),
    ],
)
def test_window_that_is_missing_is_named_with_an_example(texts: str | list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(reason)}$"):
        Windows.parse(texts)
