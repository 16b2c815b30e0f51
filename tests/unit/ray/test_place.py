"""One keeper for each namespace and user on a machine, found by its lock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from obcd.errors import AlreadyRunningError
from obcd.ray.place import KeeperPlace


@pytest.fixture(autouse=True)
def _own_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_only_one_keeper_holds_a_namespace_and_its_end_frees_it() -> None:
    place = KeeperPlace("obcd")
    assert place.keeper() is None
    for _ in range(2):
        with place.hold():
            assert place.keeper() == os.getpid()
            with pytest.raises(AlreadyRunningError, match=str(os.getpid())), KeeperPlace("obcd").hold():
                pass
            with KeeperPlace("other").hold():
                pass
        assert place.keeper() is None


def test_the_state_is_read_back_and_damage_is_nothing() -> None:
    place = KeeperPlace("obcd")
    assert place.read() == {}
    place.folder.mkdir()
    place.show({"target": 3})
    assert place.read() == {"target": 3}
    (place.folder / "keeper.json").write_text("[")
    assert place.read() == {}
