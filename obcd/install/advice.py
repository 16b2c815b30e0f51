"""What an administrator is told around an installation, as text. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from obcd.install import service
from obcd.install.apply import InstallVerb
from obcd.install.found import OLDEST_SYSTEMD, STOCK_PORT, Machine, Stock
from obcd.install.plan import CONFIGURATION, MODULES, UNIT_FOLDER

#: How a Python that services can use is made.
VENV_COMMANDS = """\
  python3 -m venv /opt/obcd
  /opt/obcd/bin/pip install obcd        # or the folder of a checkout in place of obcd
  /opt/obcd/bin/obcd install"""

WITHOUT_SYSTEMD = (
    "without it `obcd host` and `obcd coordinator` run in the foreground under anything that starts them again; "
    "`obcd install --root DIR` writes the files for another machine"
)


def unreadable_python(reason: str) -> str:
    """Return why this Python will not do, and how to make one that does."""
    return f"the services run as user obcd, and {reason}; make an environment that they can read:\n{VENV_COMMANDS}"


def no_systemd(version: int | None) -> str:
    """Return what is missing, and what works without it."""
    what = "no systemd runs this machine" if version is None else f"this machine's systemd is {version}"
    return f"{what}, and the units need {OLDEST_SYSTEMD} or newer; {WITHOUT_SYSTEMD}"


def about_stock(stock: Stock) -> list[str]:
    """Return what to do about an Ollama that is there already; nothing of it is done by us."""
    lines = []
    if stock.unit or stock.is_listening:
        what = f"{stock.unit} is here" if stock.unit else f"something answers on port {STOCK_PORT}"
        lines.append(f"{what}: a second Ollama would hold the memory of all cards. Where obcd-host runs:")
        stop = (
            "systemctl disable --now ollama" if stock.unit else f"stop it (ss -ltnp 'sport = :{STOCK_PORT}' shows it)"
        )
        lines.append(f"  {stop}")
    if stock.models:
        folder = shlex.quote(stock.models)
        parents = " ".join(shlex.quote(item) for item in _parents(stock.models))
        lines += [
            f"Its models lie in {stock.models}. To use them as they are:",
            f"  setfacl -R -m u:obcd:rwX -m d:u:obcd:rwX {folder} && setfacl -m u:obcd:x {parents}",
            f'  models = "{stock.models}"           # in [host] of {CONFIGURATION}',
            "  systemctl edit obcd-host              # [Service], then ReadWritePaths=" + stock.models,
            "or get them anew with `obcd host pull MODEL` once obcd-host runs.",
        ]
    return lines


def _parents(folder: str) -> list[str]:
    """Return the folders above one that a user of another group may be kept out of, e.g. `/usr/share/ollama`."""
    parts = folder.strip("/").split("/")
    paths = ["/" + "/".join(parts[:count]) for count in range(1, len(parts))]
    return [path for path in paths if path not in ("/usr", "/usr/share", "/var", "/var/lib", "/home", "/srv", "/opt")]


def next_steps(
    machine: Machine, written: Mapping[str, InstallVerb], *, is_here: bool, outdated: Sequence[str] = ()
) -> list[str]:
    """Return what comes after an installation.

    Args:
        written: What was put there, and over what.
        is_here: Whether it went into this machine's own system.
        outdated: Daemons that run and are older than the code.
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
        lines.append(f"What runs is still the old: systemctl try-restart {' '.join(outdated)}")
    if is_here and MODULES in written:
        lines.append("The next boot loads nvidia-uvm; to do it now: systemctl restart systemd-modules-load")
    return [
        *lines,
        "Next:",
        f"  edit {CONFIGURATION}, then: obcd check",
        "  systemctl enable --now obcd-host           on every machine with GPUs",
        "  systemctl enable --now obcd-coordinator    on one machine",
        "  usermod -aG obcd NAME                      for everybody who drops files (they log in again)",
        "Changes of your own to a unit belong into drop-ins (systemctl edit UNIT): those are never touched.",
    ]


def what_is_left(*, is_configuration_kept: bool, own: Sequence[str] = ()) -> list[str]:
    """Return where the data lies after an uninstall, and how it is removed.

    Args:
        own: Drop-ins and old files of the administrator's.
    """
    folders = ["/var/spool/obcd", "/var/lib/obcd", "/var/log/obcd", *(["/etc/obcd"] if is_configuration_kept else [])]
    return [
        "Left as they are: prompts and answers in /var/spool/obcd, Ollama's keys and models in /var/lib/obcd,",
        "logs in /var/log/obcd" + (f", your {CONFIGURATION}." if is_configuration_kept else "."),
        *([f"Yours, and left too: {' '.join(shlex.quote(path) for path in own)}"] if own else []),
        "To remove them for good:",
        f"  rm -r {' '.join(folders)} && userdel obcd",
        "  groupdel obcd    # where the group is left: userdel keeps one that has members",
        f"This program lies in {sys.prefix}.",
    ]
