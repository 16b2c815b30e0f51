"""A real systemd for tests, process 1 of its own namespaces over a throwaway copy of this machine's root.

    pytest ─ unshare ─ systemd (multi-user.target) ─ what a test installs and starts

It boots in under a second, has a network of its own (loopback), and ends with pytest, however that ends: each of the
three is killed when the one before it dies, and the kernel then kills whatever is left in the process namespace. Python
with obcd and all it needs lies at /opt/obcd inside, readable to every user, as on an installed machine.

Needs root, systemd, overlayfs and a mounted cgroup2; where one is missing, the test is skipped with the reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import PATIENCE, SOURCES, wait_until

BOOT = Path(__file__).with_name("systemd_boot.sh")
PROGRAMS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "systemctl")
#: Where obcd lies inside: a virtual environment as etc/manual/operating.md makes one.
VENV = "/opt/obcd"
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds a boot may take before the machine counts as unable.
BOOT_SECONDS = 20.0
CGROUP_PREFIX = "obcd-test-"


class CannotBootError(Exception):
    """This machine cannot run a systemd of ours; the text is the reason to skip."""


class SystemdSandbox:
    """A booted systemd; `power_off` ends it."""

    def __init__(self) -> None:
        self._cgroup = _make_cgroup()
        self._layer = Path(tempfile.mkdtemp(prefix="obcd-systemd-"))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self._unshare: subprocess.Popen[bytes] | None = None
        try:
            self._unshare = self._start()
            self._init = self._await_systemd(self._unshare)
            self._make_venv()
        except BaseException:
            self.kill()
            raise

    def run(
        self,
        *words: object,
        user: str = "",
        check: bool = True,
        timeout: float = PATIENCE,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end.

        Args:
            user: Run it as this user, with all groups; root when empty.
            check: Fail the test when it does not exit with 0.
        """
        done = subprocess.run(
            self._inside([str(word) for word in words], user, environment or {}), input=stdin,
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
        said = f"{' '.join(map(str, words))} → {done.returncode}\n{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def obcd(self, *words: object, user: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `obcd` inside."""
        return self.run(f"{VENV}/bin/obcd", *words, user=user, check=check)

    def path(self, name: str) -> Path:
        """Return a path inside, as seen from outside (absolute symbolic links in it lead astray)."""
        return Path(f"/proc/{self._init}/root") / name.lstrip("/")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside, with the folders above it."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(mode)

    def drop_in(self, unit: str, text: str, name: str = "test.conf") -> None:
        """Write a drop-in for a unit, and have systemd read it."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}", text)
        self.run("systemctl", "daemon-reload")

    def remove_drop_in(self, unit: str, name: str = "test.conf") -> None:
        """Take a drop-in away again."""
        self.path(f"/etc/systemd/system/{unit}.d/{name}").unlink()
        self.run("systemctl", "daemon-reload")

    def start_simulated(self, port: int, *options: object) -> None:
        """Start a simulated server inside, as a unit of its own; one that has the port is replaced."""
        unit = f"simulated-{port}"
        self.run("systemctl", "stop", unit, check=False)
        command = ("simulate", "--port", port, "--load-seconds", 0.01, *options)
        self.run("systemd-run", "--quiet", "--collect", f"--unit={unit}", f"{VENV}/bin/obcd", *command)
        listens = f"exec 3<>/dev/tcp/127.0.0.1/{port}"
        wait_until(lambda: self.run("bash", "-c", listens, check=False).returncode == 0, what=f"{unit} listens")

    def simulated_requests(self, port: int) -> list[dict[str, Any]]:
        """Return every generation request that a simulated server was asked."""
        script = f"import requests; print(requests.get('http://127.0.0.1:{port}/simulated/requests', timeout=10).text)"
        document: dict[str, Any] = json.loads(self.run(f"{VENV}/bin/python", "-c", script).stdout)
        found: list[dict[str, Any]] = document["requests"]
        return found

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, e.g. `show("obcd-host.service", "StatusText")`."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def main_pid(self, unit: str) -> int:
        """Return the main process of a unit, as numbered inside; 0 when there is none."""
        return int(self.show(unit, "MainPID") or 0)

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process, as numbered inside."""
        self.run("kill", "-s", number.name.removeprefix("SIG"), pid)

    def journal(self, unit: str, *options: object) -> list[dict[str, Any]]:
        """Return the journal of a unit, an entry each, oldest first."""
        output = self.run("journalctl", "--unit", unit, "--output=json", "--all", *options).stdout
        return [json.loads(line) for line in output.splitlines()]

    def messages(self, unit: str) -> str:
        """Return what a unit logged, for a failing test to show."""
        return self.run("journalctl", "--unit", unit, "--output=cat", check=False).stdout

    def add_user(self, name: str, *groups: str) -> None:
        """Make an ordinary user, a member of some groups."""
        self.run("useradd", "--create-home", *(["--groups", ",".join(groups)] if groups else []), name)

    def power_off(self, timeout: float = PATIENCE) -> None:
        """Shut it down in order, as `systemctl poweroff` does, then clean up."""
        if self._unshare is not None:
            os.kill(self._init, signal.SIGRTMIN + 4)  # systemd(1): starts poweroff.target
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._unshare.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End all of it at once, as a power cut does, then clean up; safe to call twice."""
        if self._unshare is not None:
            self._unshare.kill()  # --kill-child takes systemd with it, and the kernel all the rest
            self._unshare.wait(PATIENCE)
            self._unshare = None
        if self._cgroup.is_dir():
            wait_until(partial(_remove_cgroup, self._cgroup), what=f"{self._cgroup} is empty")
        self._log.close()
        shutil.rmtree(self._layer, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'  # before the namespace, whose root it then is
        spaces = ("--pid", "--mount", "--cgroup", "--uts", "--ipc", "--net", "--fork", "--kill-child")
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", join, str(self._cgroup), "unshare", *spaces,
             "sh", str(BOOT), str(self._layer), *_binds()],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip

    def _await_systemd(self, unshare: subprocess.Popen[bytes]) -> int:
        try:
            init = wait_until(lambda: self._find_init(unshare), BOOT_SECONDS, "systemd is process 1")
            private = Path(f"/proc/{init}/root/run/systemd/private")
            wait_until(lambda: self._is_alive(unshare) and private.exists(), BOOT_SECONDS, "systemd listens")
            self._init = init
            self.run("systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise CannotBootError(f"systemd does not boot here: {error}; {self._said()}") from None
        return init

    def _find_init(self, unshare: subprocess.Popen[bytes]) -> int:
        self._is_alive(unshare)
        children = psutil.Process(unshare.pid).children()
        return children[0].pid if children and children[0].name() == "systemd" else 0

    def _is_alive(self, unshare: subprocess.Popen[bytes]) -> bool:
        if unshare.poll() is not None:
            raise CannotBootError(f"no systemd can be started here: {self._said()}")
        return True

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-300:] or "nothing was said"

    def _make_venv(self) -> None:
        """Make /opt/obcd: an interpreter that everybody can read, this tree, and the packages of this Python."""
        home = _interpreter_home()
        self.write(f"{VENV}/pyvenv.cfg", f"home = {home}/bin\ninclude-system-site-packages = false\n")
        packages = [f"{VENV}/packages/{number}" for number in range(len(_package_folders()))]
        self.write(f"{VENV}/lib/{VERSION}/site-packages/obcd.pth", "\n".join([f"{VENV}/source", *packages]) + "\n")
        self.path(f"{VENV}/bin").mkdir()
        for name in ("python", "python3"):
            self.path(f"{VENV}/bin/{name}").symlink_to(f"{home}/bin/{VERSION}")
        script = f"#!{VENV}/bin/python\nimport sys\nfrom obcd.__main__ import main\nsys.exit(main())\n"
        self.write(f"{VENV}/bin/obcd", script, 0o755)
        tried = self.run(
            f"{VENV}/bin/python", "-c", "import ssl, psutil, obcd.config.loading", user="nobody", check=False
        )
        if tried.returncode:
            last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise CannotBootError(f"this Python cannot be used by other users inside: {last}")

    def _inside(self, words: Sequence[str], user: str, environment: Mapping[str, str]) -> list[str]:
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        variables = {"PATH": SEARCH_PATH, "LANG": "C.UTF-8", "HOME": "/root", "TERM": "dumb", "COLUMNS": "200"}
        as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"] if user else []
        if user == "nobody":  # its group has different names
            as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
        if user:
            variables["HOME"] = f"/home/{user}"
        settings = [f"{key}={value}" for key, value in {**variables, **environment}.items()]
        return ["nsenter", "--target", str(self._init), *spaces, "--", *as_user, "env", "-i", *settings, *words]


def _interpreter_home() -> str:
    """Return the prefix of the interpreter inside: this one's, else the system's of the same version, else a bound one.

    One that lies in somebody's home is bound only in need: a libpython of its own is not found where it was moved to.
    """
    if not sys.base_prefix.startswith(("/root/", "/home/", "/tmp/")):
        return sys.base_prefix
    return "/usr" if Path("/usr/bin", VERSION).exists() else f"{VENV}/python"


def _package_folders() -> list[str]:
    return list(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))


def _binds() -> list[str]:
    pairs = [(str(SOURCES), f"{VENV}/source")]
    pairs += [(folder, f"{VENV}/packages/{number}") for number, folder in enumerate(_package_folders())]
    if _interpreter_home() == f"{VENV}/python":
        pairs.append((sys.base_prefix, _interpreter_home()))
    return [word for pair in pairs for word in pair]


def cgroup_mount() -> Path | None:
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def _make_cgroup() -> Path:
    mount = cgroup_mount()
    if mount is None:
        raise CannotBootError("no cgroup2 is mounted")
    sweep_cgroups(mount)
    path = mount / f"{CGROUP_PREFIX}{os.getpid()}-{os.urandom(3).hex()}"
    try:
        path.mkdir()
    except OSError as error:
        raise CannotBootError(f"no cgroup can be made in {mount}: {error.strerror}") from None
    return path


def sweep_cgroups(mount: Path) -> None:
    """Remove the cgroups of test runs that were killed."""
    for left in mount.glob(f"{CGROUP_PREFIX}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(CGROUP_PREFIX).partition("-")[0])):
            _remove_cgroup(left)


def _remove_cgroup(path: Path) -> bool:
    """Remove an empty cgroup and those in it; tell whether it is gone."""
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):  # a process is still in it
            os.rmdir(folder)
    return not path.exists()


def why_not() -> str:
    """Return what this machine lacks for a systemd of ours, "" when nothing is known to be missing."""
    if os.geteuid() != 0:
        return "a systemd of our own needs root"
    if not any(os.access(f"{folder}/systemd/systemd", os.X_OK) for folder in ("/lib", "/usr/lib")):
        return "systemd is not installed"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text("utf-8"):
        return "the kernel has no overlayfs"
    return "" if cgroup_mount() is not None else "no cgroup2 is mounted"


@contextlib.contextmanager
def systemd_here() -> Iterator[SystemdSandbox]:
    """Yield a booted systemd, or skip the test with the reason; it is gone afterwards."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    try:
        sandbox = SystemdSandbox()
    except CannotBootError as error:
        pytest.skip(str(error))
    try:
        yield sandbox
    finally:
        sandbox.kill()


@pytest.fixture(scope="module")
def systemd() -> Iterator[SystemdSandbox]:
    """A systemd that the tests of one module share, with obcd at /opt/obcd and nothing installed."""
    with systemd_here() as sandbox:
        yield sandbox
