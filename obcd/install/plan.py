"""What an installation consists of: every file with its content and mode, every folder. Pure but for reading templates.

templates (systemd/, etc/) + Machine + this Python ─► Plan ─► steps (see `apply`)
"""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from obcd.install.found import Machine
from obcd.package_data import shared

UNITS = (
    "obcd-host.service",
    "obcd-coordinator.service",
    "obcd.target",
    "obcd-load.service",
    "obcd-load.timer",
    "obcd-load@.service",
    "obcd-load@.timer",
)
UNIT_FOLDER = "/etc/systemd/system"
SYSUSERS = "/etc/sysusers.d/obcd.conf"
TMPFILES = "/etc/tmpfiles.d/obcd.conf"
MODULES = "/etc/modules-load.d/obcd.conf"
CONFIGURATION = "/etc/obcd/obcd.toml"
RECORD = "/etc/obcd/installed.json"
MACHINE_DROP_IN = f"{UNIT_FOLDER}/obcd-host.service.d/10-machine.conf"
COMMAND = "/usr/local/bin/obcd"
#: {file of etc/: where it goes}: under names that neither cron nor logrotate nor systemd reads.
SAMPLES = {
    "cron/obcd": "/etc/obcd/cron.sample",
    "logrotate/obcd": "/etc/obcd/logrotate.sample",
    "timer/obcd-load@.timer.d-nightly.conf": "/etc/obcd/load-timer.sample",
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
    """A file or a symbolic link that is put there whole.

    Attributes:
        path: Absolute, as on the installed machine.
        content: The file's bytes.
        mode: The file's mode.
        group: Who may read it beside root; "" for root's own.
        link: Where a symbolic link points; "" for a file.
    """

    path: str
    content: bytes = b""
    mode: int = 0o644
    group: str = ""
    link: str = ""

    @property
    def fingerprint(self) -> str:
        """What `apply.fingerprint` finds where it was put and left alone."""
        return f"link:{self.link}" if self.link else hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with its mode; on a running system systemd-tmpfiles makes it, with its owner."""

    path: str
    mode: int


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """All that is to be there."""

    items: tuple[Item, ...]
    folders: tuple[Folder, ...]


def make_plan(machine: Machine, python: str = sys.executable) -> InstallPlan:
    """Return what belongs on a machine.

    Args:
        python: The interpreter that the units start, an absolute path.
    """
    units = [Item(path=f"{UNIT_FOLDER}/{name}", content=_unit(name, python)) for name in UNITS]
    items = [
        Item(path=SYSUSERS, content=_template("sysusers.d/obcd.conf")),
        Item(path=TMPFILES, content=_template("tmpfiles.d/obcd.conf")),
        *units,
        *_for_cards(machine),
        Item(path=CONFIGURATION, content=HEAD.encode() + shared("obcd.toml").read_bytes(), mode=0o640, group="obcd"),
        *(Item(path=place, content=shared(name).read_bytes()) for name, place in SAMPLES.items()),
        Item(path=COMMAND, link=str(Path(python).parent / "obcd")),
    ]
    return InstallPlan(tuple(items), spool_folders())


def spool_folders() -> tuple[Folder, ...]:
    """Return the folders that tmpfiles.d lists, so that both say the same."""
    lines = _template("tmpfiles.d/obcd.conf").decode().splitlines()
    fields = [line.split() for line in lines if line.startswith("d ")]
    return tuple(Folder(path, int(mode, 8)) for _, path, mode, *_ in fields)


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
    """Return what depends on the machine's cards: groups that exist, modules, device files."""
    lines = []
    if machine.card_groups:
        lines += [
            "# The groups of this machine that may use its cards; one that does not exist would keep it from starting.",
            f"SupplementaryGroups={' '.join(machine.card_groups)}",
        ]
    if machine.nvidia:
        lines += [
            "# Make missing device files first, as root: the service may not use the setuid helper that does so.",
            *(f"ExecStartPre=-+{_device_command(program)}" for program in machine.nvidia),
        ]
    items = []
    if lines:
        head = "# Put here by `obcd install` from what it found on this machine; it is made anew by the next one."
        text = "\n".join([head, "[Service]", *lines, ""])
        items.append(Item(path=MACHINE_DROP_IN, content=text.encode()))
    if machine.nvidia:
        items.append(Item(path=MODULES, content=_template("modules-load.d/obcd.conf")))
    return items


def _device_command(program: str) -> str:
    """Return what makes device files: nvidia-modprobe the first card's and unified memory's, nvidia-smi all cards'."""
    if program.endswith("nvidia-modprobe"):
        return f"{program} -u -c=0"
    return f"/usr/bin/timeout 20 {program} -L"  # a card that hangs must not keep the others from starting
