from __future__ import annotations

from obcd.page.signs import bar, gauge


def test_parts_of_a_bar_follow_each_other_and_never_leave_it() -> None:
    assert 'x="0" width="60"' in bar((0.6, "fill"), (0.7, "miss"))
    assert 'x="60" width="40"' in bar((0.6, "fill"), (0.7, "miss"))
    assert "rect" not in bar((-1.0, "fill"), (0.0, "miss"))


def test_gauge_says_in_words_what_its_bar_shows() -> None:
    made = gauge([(0.5, "fill")], "50 %", "1 of 2")

    assert 'aria-hidden="true"' in made
    assert "50 %" in made
    assert "1 of 2" in made
