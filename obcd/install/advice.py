"""The texts for an administrator around an installation. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from obcd.install import service
from obcd.install.apply import InstallVerb
from obcd.install.found import OLDEST_SYSTEMD, STOCK_PORT, Machine, Stock
from obcd.install.plan import CONFIGURATION, MODULES, UNIT_FOLDER

#: Commands that make a Python environment which services can use.
VENV_COMMANDS = """\
  python3 -m venv /opt/obcd
  /opt/obcd/bin/pip install obcd        # or the folder of a checkout instead of obcd
  /opt/obcd/bin/obcd install"""

WITHOUT_SYSTEMD = (
    "without systemd, run `obcd host` and `obcd coordinator` in the foreground under any program that restarts them; "
    "`obcd install --root DIR` writes the files for another machine"
)


def unreadable_python(reason: str) -> str:
    """Return why services cannot use this Python, and how to make one that they can use."""
    return f"the services run as user obcd, and {reason}; make an environment that they can read:\n{VENV_COMMANDS}"


def no_systemd(version: int | None) -> str:
    """Return that systemd is missing or too old, and what works without it."""
    what = "this machine does not run systemd" if version is None else f"this machine's systemd is {version}"
    return f"{what}, and the units need {OLDEST_SYSTEMD} or newer; {WITHOUT_SYSTEMD}"


def about_stock(stock: Stock) -> list[str]:
    """Return what to do about an Ollama that is already installed; obcd does none of it."""
    lines = []
    if stock.unit or stock.is_listening:
        what = f"{stock.unit} is installed" if stock.unit else f"something answers on port {STOCK_PORT}"
        lines.append(f"{what}: a second Ollama would hold the memory of all cards. Where obcd-host runs, do this:")
        stop = (
            "systemctl disable --now ollama" if stock.unit else f"stop it (ss -ltnp 'sport = :{STOCK_PORT}' shows it)"
        )
        lines.append(f"  {stop}")
    if stock.models:
        folder = shlex.quote(stock.models)
        parents = " ".join(shlex.quote(item) for item in _parents(stock.models))
        lines += [
            f"Its models are in {stock.models}. To use them from there:",
            f"  setfacl -R -m u:obcd:rwX -m d:u:obcd:rwX {folder} && setfacl -m u:obcd:x {parents}",
            f'  models = "{stock.models}"           # in [host] of {CONFIGURATION}',
            "  systemctl edit obcd-host              # [Service], then ReadWritePaths=" + stock.models,
            "or pull them again with `obcd host pull MODEL` when obcd-host runs.",
        ]
    return lines


def _parents(folder: str) -> list[str]:
    """Return the folders above a folder that may be closed to a user of another group, e.g. `/usr/share/ollama`."""
    parts = folder.strip("/").split("/")
    paths = ["/" + "/".join(parts[:count]) for count in range(1, len(parts))]
    return [path for path in paths if path not in ("/usr", "/usr/share", "/var", "/var/lib", "/home", "/srv", "/opt")]


def next_steps(
    machine: Machine, written: Mapping[str, InstallVerb], *, is_here: bool, outdated: Sequence[str] = ()
) -> list[str]:
    """Return the next steps after an installation.

    Args:
        written: The installed paths, and what happened to each.
        is_here: Whether it was installed on this machine itself.
        outdated: Running daemons that are older than the code.
    """
    lines = []
    if not machine.ollama:
        lines.append("There is no `ollama` program yet; obcd-host needs it (https://ollama.com/download/linux).")
    if not is_here:
        lines.append("On that machine, once: systemd-sysusers, systemd-tmpfiles --create, systemctl daemon-reload.")
    if is_here and any(
        verb is not InstallVerb.NEW and path.startswith(f"{UNIT_FOLDER}/") for path, verb in written.items()
    ):
        outdated = service.DAEMONS
    if outdated:
        lines.append(f"The running daemons are still the old ones: systemctl try-restart {' '.join(outdated)}")
    if is_here and MODULES in written:
        lines.append("The next boot loads nvidia-uvm; to do it now: systemctl restart systemd-modules-load")
    return [
        *lines,
        "Next:",
        f"  edit {CONFIGURATION}, then: obcd check",
        "  systemctl enable --now obcd-host           on every machine with GPUs",
        "  systemctl enable --now obcd-coordinator    on one machine",
        "  usermod -aG obcd NAME                      for everyone who drops files (they must log in again)",
        "Put your own changes to a unit into a drop-in (systemctl edit UNIT): obcd never changes those.",
    ]


def what_is_left(*, is_configuration_kept: bool, own: Sequence[str] = ()) -> list[str]:
    """Return where the data is after an uninstall, and how to remove it.

    Args:
        own: Drop-ins and old files of the administrator.
    """
    folders = ["/var/spool/obcd", "/var/lib/obcd", "/var/log/obcd", *(["/etc/obcd"] if is_configuration_kept else [])]
    return [
        "Not removed: prompts and answers in /var/spool/obcd, Ollama's keys and models in /var/lib/obcd,",
        "logs in /var/log/obcd" + (f", your {CONFIGURATION}." if is_configuration_kept else "."),
        *([f"Your files, not removed either: {' '.join(shlex.quote(path) for path in own)}"] if own else []),
        "To remove them:",
        f"  rm -r {' '.join(folders)} && userdel obcd",
        "  groupdel obcd    # if the group still exists: userdel keeps a group that has members",
        f"This program is in {sys.prefix}.",
    ]
