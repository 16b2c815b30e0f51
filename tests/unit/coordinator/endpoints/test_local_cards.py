"""The cards of the coordinator's own machine, from the file of the watch of its servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from obcd.clock import wall
from obcd.coordinator.endpoints.local_cards import MOST_CARDS, default_folders, read_cards
from obcd.host.cards.card import Readings
from obcd.host.servers.plan import SYSTEM_RUNTIME
from obcd.host.watch.watch_file import FILE_NAME, STALE_SECONDS
from obcd.hosts.record import CardReading

UUID = "GPU-1"


def document(**changes: Any) -> dict[str, Any]:
    """Return what the watch writes of one card with an Xid."""
    reading = {name: getattr(Readings(uuid=UUID, index=3, utilisation_percent=50), name) for name in Readings.__slots__}
    found = {"updated": wall(), "cards": {UUID: reading}, "xid_counts": {UUID: {"count": 2, "last": 79}}}
    return found | changes


def write(folder: Path, content: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / FILE_NAME).write_text(json.dumps(content), "utf-8")
    return folder


def test_card_is_read_with_its_load_and_its_faults(tmp_path: Path) -> None:
    folder = write(tmp_path, document())

    assert read_cards([tmp_path / "none", folder]) == (
        CardReading(uuid=UUID, index=3, utilization=0.5, xid_errors=2, last_xid=79),
    )


def test_first_folder_with_a_current_file_counts(tmp_path: Path) -> None:
    old = write(tmp_path / "old", document(updated=wall() - STALE_SECONDS - 1))
    new = write(tmp_path / "new", document())

    assert read_cards([old]) == ()
    assert len(read_cards([old, new])) == 1


@pytest.mark.parametrize(
    "content",
    [
        None, [], {}, {"updated": "x", "cards": {}}, document(cards=[]), document(cards={UUID: 3}),
        document(cards={UUID: {"uuid": 7}}), document(cards={UUID: {"uuid": UUID, "index": "0", "is_lost": False}}),
    ],
)  # fmt: skip
def test_file_that_is_no_watchs_gives_no_card(tmp_path: Path, content: object) -> None:
    assert read_cards([write(tmp_path, content)]) == ()


def test_link_is_not_followed_and_a_folder_is_no_file(tmp_path: Path) -> None:
    real = write(tmp_path / "real", document())
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / FILE_NAME).symlink_to(real / FILE_NAME)
    (tmp_path / "dir" / FILE_NAME).mkdir(parents=True)

    assert read_cards([tmp_path / "link", tmp_path / "dir"]) == ()


def test_no_more_cards_are_taken_than_a_machine_has(tmp_path: Path) -> None:
    one = document()["cards"][UUID]
    many = {f"GPU-{number}": one for number in range(MOST_CARDS + 5)}

    assert len(read_cards([write(tmp_path, document(cards=many))])) == MOST_CARDS


def test_folders_are_those_of_up_of_the_unit_and_of_the_user(tmp_path: Path) -> None:
    up, unit, own = default_folders(tmp_path)

    assert (up, unit) == (tmp_path, SYSTEM_RUNTIME)
    assert own not in (up, unit)
