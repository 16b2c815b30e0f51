"""How many refused requests pause a job."""

from __future__ import annotations

import pytest

from obcd.coordinator.jobs.refusal_count import LEAST, RefusalCount


@pytest.mark.parametrize(("requests", "most"), [(1, 20), (60, 20), (1000, 20), (1001, 21), (100_000, 2000)])
def test_r24b_two_percent_and_twenty_at_least_pause_a_job(requests: int, most: int) -> None:
    count = RefusalCount()

    assert not count.add(most - 1, requests)
    assert count.add(1, requests)


def test_it_takes_twice_as_many_after_each_resume() -> None:
    count, paused = RefusalCount(), []
    for number in range(1, 8 * LEAST):
        if count.add(1, 100):
            paused.append(number)
            count.on_resume()

    assert paused == [LEAST, 3 * LEAST, 7 * LEAST]
    assert count.refused == 8 * LEAST - 1
