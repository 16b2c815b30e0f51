"""Find the facts that an installation needs: groups, driver, Ollama, systemd. It changes nothing."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

#: Groups whose members may use graphics cards, on the distributions that have them.
CARD_GROUPS = ("render", "video")
UNIT_FOLDERS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
#: Where Ollama's installer and distributions keep the models of their service.
MODEL_FOLDERS = ("usr/share/ollama/.ollama/models", "var/lib/ollama/.ollama/models", "var/lib/ollama/models")
STOCK_PORT = 11434
#: Exists while obcd-host.service runs (RuntimeDirectory=).
OWN_RUNTIME = "run/obcd-host"
#: The oldest systemd that knows ProtectProc= and all other settings of obcd's units.
OLDEST_SYSTEMD = 247
#: Names of files that are kept beside an installed file, e.g. `obcd.toml.old`, `obcd.toml.old.2`.
LEFT_NAME = re.compile(r"^(obcd|load-timer|cron|logrotate).*\.(new|old)(\.\d+)?$", re.ASCII)
#: Folders that the units hide from their processes (ProtectHome=, PrivateTmp=).
HIDDEN = ("/root", "/home", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - compared, nothing is written there


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """An Ollama on this machine that obcd does not run.

    Attributes:
        unit: Path of its unit; "" if it has none.
        is_listening: Whether something answers on its port now.
        models: The folder of its models; "" if there is none.
    """

    unit: str = ""
    is_listening: bool = False
    models: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine, or the tree of one under `--root`.

    Attributes:
        card_groups: Those of `CARD_GROUPS` that exist.
        nvidia: Absolute paths of `nvidia-modprobe` and `nvidia-smi`, if they exist.
        ollama: Path of the program; "" if there is none.
        stock: None if there is no sign of another Ollama service.
    """

    card_groups: tuple[str, ...] = ()
    nvidia: tuple[str, ...] = ()
    ollama: str = ""
    stock: Stock | None = None


def look(root: Path) -> Machine:
    """Return the facts about a machine: this one if `root` is `/`."""
    is_here = root == Path("/")
    nvidia = [f"/usr/bin/{name}" for name in ("nvidia-modprobe", "nvidia-smi")]
    return Machine(
        card_groups=_card_groups(root),
        nvidia=tuple(name for name in nvidia if os.access(root / name.lstrip("/"), os.X_OK)),
        ollama=_find_ollama(root, is_here=is_here),
        stock=_find_stock(root, is_here=is_here),
    )


def systemd_version() -> int | None:
    """Return the version of the systemd that runs this machine, None if no systemd runs it."""
    if not Path("/run/systemd/system").is_dir():  # sd_booted(3)
        return None
    try:
        said = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return None
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


def unreadable_reason() -> str:
    """Return why a service could not use this Python and this obcd, "" if it can.

    Example: `/home/ann/venv/bin/python is under /home, which services do not see`.
    """
    interpreter = Path(sys.executable)
    places = (interpreter, interpreter.resolve(), Path(sys.prefix), Path(__file__).resolve().parents[1])
    reasons = (_hidden_reason(str(place)) or _closed_reason(place) for place in places)
    return next((reason for reason in reasons if reason), "")


def code_time() -> float:
    """Return when the newest file of this obcd was written, in Unix seconds."""
    files = (path for path in Path(__file__).resolve().parents[1].rglob("*.py"))
    return max(path.stat().st_mtime for path in files)


def own_leftovers(root: Path, known: Collection[str]) -> list[str]:
    """Return files that an administrator made beside obcd's, or `--force` left: drop-ins, `X.old`, `X.new`.

    Args:
        known: Paths that are reported elsewhere.
    """
    folders = [path for path in (root / UNIT_FOLDERS[0], root / "etc/obcd") if path.is_dir()]
    found = [path for folder in folders for path in folder.glob("obcd*.d/*")]
    found += [path for folder in folders for path in folder.iterdir() if LEFT_NAME.search(path.name)]
    return sorted(path for path in map(partial(_inside, root), found) if path not in known)


def _hidden_reason(place: str) -> str:
    folder = next((item for item in HIDDEN if place == item or place.startswith(f"{item}/")), "")
    return f"{place} is under {folder}, which services do not see" if folder else ""


def _closed_reason(place: Path) -> str:
    for path in (place, *place.parents):
        mode = path.stat().st_mode
        needed = stat.S_IXOTH if path != place or stat.S_ISDIR(mode) else stat.S_IXOTH | stat.S_IROTH
        if mode & needed != needed:
            return f"{path} may not be read by other users (mode {stat.S_IMODE(mode):04o})"
    return ""


def _card_groups(root: Path) -> tuple[str, ...]:
    try:
        text = (root / "etc/group").read_text("utf-8", "replace")
    except OSError:
        return ()
    names = {line.partition(":")[0] for line in text.splitlines()}
    return tuple(name for name in CARD_GROUPS if name in names)


def _find_ollama(root: Path, *, is_here: bool) -> str:
    if is_here:
        return shutil.which("ollama") or ""
    places = (f"/{folder}/ollama" for folder in ("usr/local/bin", "usr/bin"))
    return next((place for place in places if os.access(root / place.lstrip("/"), os.X_OK)), "")


def _find_stock(root: Path, *, is_here: bool) -> Stock | None:
    units = (root / folder / "ollama.service" for folder in UNIT_FOLDERS)
    unit = next((path for path in units if path.is_file()), None)
    models = next((path for path in _model_folders(root, unit, is_here=is_here) if _is_folder(path)), None)
    is_ours = (root / OWN_RUNTIME).is_dir()  # with three or more cards one of obcd's servers has that port
    is_listening = is_here and not is_ours and _listens(STOCK_PORT)
    if unit is None and models is None and not is_listening:
        return None
    return Stock(unit=_inside(root, unit), is_listening=is_listening, models=_inside(root, models))


def _inside(root: Path, path: Path | None) -> str:
    return "/" + str(path.relative_to(root)) if path is not None else ""


def _model_folders(root: Path, unit: Path | None, *, is_here: bool) -> Iterator[Path]:
    """Yield folders that may hold models, the likeliest first: from the unit, the usual ones, the user's home."""
    if unit is not None:
        for path in (unit, *sorted((root / "etc/systemd/system/ollama.service.d").glob("*.conf"))):
            for folder in re.findall(
                r"^Environment=.*?OLLAMA_MODELS=([^\s\"']+)", path.read_text("utf-8", "replace"), re.M
            ):
                yield root / str(folder).lstrip("/")
    yield from (root / folder for folder in MODEL_FOLDERS)
    if is_here:
        try:
            yield Path(pwd.getpwnam("ollama").pw_dir) / ".ollama/models"
        except KeyError:
            return


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # this user may not look into it
        return False


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
