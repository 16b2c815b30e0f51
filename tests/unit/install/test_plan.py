from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from obcd.config.loading import load_settings
from obcd.config.settings import Settings
from obcd.install.completion import PLACES, script
from obcd.install.found import Machine
from obcd.install.plan import (
    CONFIGURATION,
    MACHINE_DROP_IN,
    MAN_FOLDER,
    MODULES,
    TMPFILES,
    UNIT_FOLDER,
    Item,
    make_plan,
    quoted,
    spool_folders,
)
from obcd.manual.man_pages import MAN_PAGES
from obcd.package_data import shared
from obcd.spool.folders.layout import Layout
from tests.golden.wording import wording

PYTHON = "/opt/obcd/bin/python"


@functools.cache
def items_of(machine: Machine) -> Mapping[str, Item]:
    return {item.path: item for item in make_plan(machine, PYTHON).items}


def test_every_template_has_its_place() -> None:
    items = items_of(Machine(nvidia=("/usr/bin/nvidia-smi",)))

    folder = shared("", "systemd")
    templates = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    placed = {path.removeprefix(f"{UNIT_FOLDER}/").removeprefix("/etc/") for path in items}
    assert len(templates) >= 10
    assert templates <= placed


def test_units_name_the_python_they_were_installed_with() -> None:
    items = items_of(Machine())

    services = {path: item.content.decode() for path, item in items.items() if path.endswith(".service")}
    assert len(services) == 7
    for text in services.values():
        assert "@PYTHON@" not in text
        assert f"ExecStart={PYTHON} " in text


@pytest.mark.parametrize(
    ("program", "written"),
    [
        ("/opt/obcd/bin/python", "/opt/obcd/bin/python"),
        ("/opt/our tools/bin/python", '"/opt/our tools/bin/python"'),
        ("/opt/100%/python", "/opt/100%%/python"),
        ("/opt/$x/python", "/opt/$$x/python"),
        ('/opt/a"b\\c/python', '"/opt/a\\"b\\\\c/python"'),
    ],
)
def test_path_is_quoted_as_systemd_reads_it(program: str, written: str) -> None:
    assert quoted(program) == written


def test_machine_without_cards_gets_nothing_for_cards() -> None:
    items = items_of(Machine())

    assert MACHINE_DROP_IN not in items
    assert MODULES not in items


def test_groups_and_device_files_come_from_what_the_machine_has() -> None:
    items = items_of(Machine(card_groups=("render",), nvidia=("/usr/bin/nvidia-modprobe", "/usr/bin/nvidia-smi")))

    lines = items[MACHINE_DROP_IN].content.decode().splitlines()
    assert "SupplementaryGroups=render" in lines
    assert "ExecStartPre=-+/usr/bin/nvidia-modprobe -u -c=0" in lines
    assert wording("execstartpre-usr-bin-timeout-20-usr") in lines
    assert b"nvidia-uvm" in items[MODULES].content


def test_installed_configuration_is_valid_and_for_the_group_alone(tmp_path: Path) -> None:
    item = items_of(Machine())[CONFIGURATION]

    path = tmp_path / "obcd.toml"
    path.write_bytes(item.content)
    assert load_settings(path).model_dump() == Settings().model_dump()
    assert (item.mode, item.group) == (0o640, "obcd")


def test_every_shell_finds_its_completion_script() -> None:
    items = items_of(Machine())

    assert {shell: items[place].content.decode() for shell, place in PLACES.items()} == {
        shell: script(shell) for shell in ("bash", "zsh", "fish")
    }
    assert items[PLACES["zsh"]].content.startswith(b"#compdef obcd\n")


def test_tmpfiles_and_the_daemon_agree_on_folders_and_on_what_is_private(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path / "obcd")
    layout.create([])

    modes = {folder.path: folder.mode for folder in spool_folders()}
    made = {path: path.stat().st_mode & 0o777 for path in (layout.jobs, layout.claims.parent)}
    assert {
        wording("var-spool-obcd", path.relative_to(layout.root)): mode for path, mode in made.items()
    }.items() <= modes.items()
    assert modes["/var/spool/obcd/inbox"] == 0o3730
    assert modes["/var/spool/obcd/outbox"] == 0o2750
    assert modes["/var/spool/obcd/staging/submitted"] == 0o700  # else whoever is first there makes it


def test_man_pages_lie_where_man_looks_for_what_is_in_usr_local() -> None:
    items = items_of(Machine())

    pages = {path: item for path, item in items.items() if path.startswith(MAN_FOLDER)}
    assert [path.removeprefix("/usr/local/share/man/") for path in pages] == [page.file_name for page in MAN_PAGES]
    assert all(item.mode == 0o644 and b".TH OBCD" in item.content for item in pages.values())


def test_every_folder_belongs_to_the_daemon() -> None:
    text = items_of(Machine())[TMPFILES].content.decode()

    owners = {tuple(line.split()[3:5]) for line in text.splitlines() if line.startswith("d ")}
    assert owners == {("obcd", "obcd")}


def test_fingerprint_tells_a_link_from_a_file() -> None:
    file, link = Item(path="/a", content=b"x"), Item(path="/a", link="/x")

    assert len(file.fingerprint) == 64
    assert json.dumps(link.fingerprint) == '"link:/x"'
