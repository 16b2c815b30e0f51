from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from obcd.hosts.machine import machine_id


def name_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename=name))


def test_copies_of_an_image_are_different_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "machine-id").write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    found = []
    for name in ("n1", "n1", "n2"):
        name_host(monkeypatch, name)
        found.append(machine_id([tmp_path / "machine-id"]))

    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 32
    assert "3d1219c7" not in found[0]


def test_second_source_counts_where_the_first_one_is_missing_or_empty(tmp_path: Path) -> None:
    first, second = tmp_path / "machine-id", tmp_path / "boot_id"
    second.write_text("d4c5aee8")
    wanted = machine_id([second])

    assert machine_id([first, second]) == wanted
    first.write_text("\n")
    assert machine_id([first, second]) == wanted
    first.write_text("a")
    assert machine_id([first, second]) != wanted
    assert machine_id([tmp_path / "none"]) == ""
