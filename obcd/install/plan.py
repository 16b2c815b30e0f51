"""The plan of an installation: every file with its content and mode, every folder. It only reads templates.

templates (systemd/, etc/), manual + Machine + this Python ─► Plan ─► steps (see `apply`)
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from obcd.config.json_schema import configuration_schema
from obcd.install.completion import PLACES, script
from obcd.install.found import Machine
from obcd.manual.man_pages import MAN_PAGES, render_man_page
from obcd.manual.pages import read_page
from obcd.package_data import shared

UNITS = (
    "obcd-host.service",
    "obcd-coordinator.service",
    "obcd.target",
    "obcd-load.service",
    "obcd-load.timer",
    "obcd-load@.service",
    "obcd-load@.timer",
    "obcd-metrics.service",
    "obcd-api.service",
)
UNIT_FOLDER = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/obcd.conf"
TMPFILES = "/etc/tmpfiles.d/obcd.conf"
MODULES = "/etc/modules-load.d/obcd.conf"
CONFIGURATION = "/etc/obcd/obcd.toml"
SCHEMA = "/etc/obcd/obcd.schema.json"
RECORD = "/etc/obcd/installed.json"
MACHINE_DROP_IN = f"{UNIT_FOLDER}/obcd-host.service.d/10-machine.conf"
COMMAND = "/usr/local/bin/obcd"
#: Where man(1) looks for the pages of what lies in /usr/local/bin.
MAN_FOLDER = "/usr/local/share/man"
#: {file of etc/: installed path}: the names are such that neither cron nor logrotate nor systemd reads them; Prometheus
#: and Grafana read theirs where an administrator names them.
SAMPLES = {
    "cron/obcd": "/etc/obcd/cron.sample",
    "logrotate/obcd": "/etc/obcd/logrotate.sample",
    "timer/obcd-load@.timer.d-nightly.conf": "/etc/obcd/load-timer.sample",
    "prometheus/obcd.rules.yml": "/etc/obcd/prometheus.rules.yml",
    "grafana/obcd.json": "/etc/obcd/grafana.json",
}

#: The sample configuration's first lines, as installed.
HEAD = """\
# obcd's configuration on this machine, read by obcd-host, obcd-coordinator and every `obcd` command.
# After a change: `obcd check`, then `systemctl reload obcd-coordinator` or `systemctl restart obcd-host`.
# Members of group obcd can read it: a token in [host] environment is better kept in a drop-in of obcd-host.service.
#
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or a symbolic link that appears complete or not at all.

    Attributes:
        path: Absolute, as on the installed machine.
        content: The file's bytes.
        mode: The file's mode.
        group: The group that may read it, beside root; "" for root's group.
        link: Where a symbolic link points; "" for a file.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    group: str = ""
    link: str = ""

    @property
    def fingerprint(self) -> str:
        """What `apply.fingerprint` returns for it while nobody has changed it."""
        return f"link:{self.link}" if self.link else hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with its mode; on a running system systemd-tmpfiles makes it, with its owner."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """All files and folders of an installation."""

    items: tuple[Item, ...]
    folders: tuple[Folder, ...]


def make_plan(machine: Machine, python: str = sys.executable) -> InstallPlan:
    """Return the plan for a machine.

    Args:
        python: The interpreter that the units start, an absolute path.
    """
    units = [Item(path=f"{UNIT_FOLDER}/{name}", content=_unit(name, python)) for name in UNITS]
    items = [
        Item(path=SYSUSERS, content=_template("sysusers.d/obcd.conf")),
        Item(path=TMPFILES, content=_template("tmpfiles.d/obcd.conf")),
        *units,
        *_for_cards(machine),
        Item(path=CONFIGURATION, content=_configuration(), mode=0o640, group="obcd"),
        Item(path=SCHEMA, content=_schema()),
        *(Item(path=place, content=shared(name).read_bytes()) for name, place in SAMPLES.items()),
        *(Item(path=f"{MAN_FOLDER}/{page.file_name}", content=render_man_page(page, read_page)) for page in MAN_PAGES),
        *(Item(path=place, content=script(shell).encode()) for shell, place in PLACES.items()),
        Item(path=COMMAND, link=str(Path(python).parent / "obcd")),
    ]
    return InstallPlan(tuple(items), spool_folders())


def spool_folders() -> tuple[Folder, ...]:
    """Return the folders that tmpfiles.d lists, so that both lists agree."""
    lines = _template("tmpfiles.d/obcd.conf").decode().splitlines()
    fields = [line.split() for line in lines if line.startswith("d ")]
    return tuple(Folder(path, int(mode, 8)) for _, path, mode, *_ in fields)


def _configuration() -> bytes:
    """Return the sample with `HEAD` below its first line, the `#:schema` directive."""
    directive, _, sample = shared("obcd.toml").read_text("utf-8").partition("\n")
    return f"{directive}\n{HEAD}{sample}".encode()


def _schema() -> bytes:
    return json.dumps(configuration_schema(), ensure_ascii=False, indent=1).encode() + b"\n"


def _template(name: str) -> bytes:
    return shared(name, "systemd").read_bytes()


def _unit(name: str, python: str) -> bytes:
    return _template(name).replace(b"@PYTHON@", quoted(python).encode())


def quoted(program: str) -> str:
    """Return a path as the first word of ExecStart=, systemd.service(5) "Command lines"."""
    text = program.replace("%", "%%").replace("$", "$$")
    if not re.search(r"[\s\"'\\;]", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _for_cards(machine: Machine) -> list[Item]:
    """Return the items that depend on the machine's cards: groups that exist, modules, device files."""
    lines = []
    if machine.card_groups:
        lines += [
            "# The groups of this machine that may use its cards; a missing group would stop the service.",
            f"SupplementaryGroups={' '.join(machine.card_groups)}",
        ]
    if machine.nvidia:
        lines += [
            "# Make missing device files first, as root: the service may not use the setuid helper that does this.",
            *(f"ExecStartPre=-+{_device_command(program)}" for program in machine.nvidia),
        ]
    items = []
    if lines:
        head = "# Written by `obcd install` for this machine; the next `obcd install` writes it again."
        text = "\n".join([head, "[Service]", *lines, ""])
        items.append(Item(path=MACHINE_DROP_IN, content=text.encode()))
    if machine.nvidia:
        items.append(Item(path=MODULES, content=_template("modules-load.d/obcd.conf")))
    return items


def _device_command(program: str) -> str:
    """Return the command that makes device files: nvidia-modprobe for card 0 and unified memory, nvidia-smi for all."""
    if program.endswith("nvidia-modprobe"):
        return f"{program} -u -c=0"
    return f"/usr/bin/timeout 20 {program} -L"  # a card that hangs must not stop the others from starting
