"""Start obcd's processes by forking one that has imported everything: imports take most of a short command's time.

`WarmProcess` is `subprocess.Popen` for the command lines `python -m obcd …` and `python -c SCRIPT …`. Each process of
pytest has one *preloaded* process, which forks twice. The grandchild becomes a child of pytest, because pytest adopts
orphans for that moment (`PR_SET_CHILD_SUBREAPER`, prctl(2)); it then does what the interpreter does for the command
line. The fork server and the resource tracker of `multiprocessing` are forked as well. `subprocess.Popen` starts
everything else: other programs, other settings of the interpreter, processes with another user or umask.
`OBCD_TEST_COLD=1` starts every process that way.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any

from obcd.cli.main import COMMANDS

#: Besides the commands: what they import when they run.
_PRELOADED = (
    "obcd.coordinator.daemon", "obcd.workers.worker", "obcd.spool.outbox.publication", "obcd.standins.serve",
    "obcd.cli.live",
)  # fmt: skip
_SOURCES = Path(__file__).resolve().parent.parent
_PR_SET_CHILD_SUBREAPER = 36
_MESSAGE_BYTES = 200_000
#: What an interpreter reads once, at its start. obcd itself reads NOTIFY_SOCKET when it is imported.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "NOTIFY_SOCKET")
#: Of these, the one that may differ: folders before our own, with stand-ins of modules that obcd imports when needed.
_PATH = "PYTHONPATH"
_guard = threading.Lock()
#: The exit code of a fork, once it is known.
_exit_code: int | None = None


class WarmProcess(subprocess.Popen[Any]):
    """A process of obcd, forked where that is the same as starting it."""

    def _execute_child(self, *arguments: Any) -> None:
        """Do what `subprocess` leaves to this method; its arguments are those of Python 3.11 to 3.14."""
        command, executable, preexec, _, passed, cwd, environment, _, _, is_shell = arguments[:10]
        pipes, others = arguments[10:16], arguments[17:]  # between them: restore_signals
        is_plain = not (executable or preexec or passed or is_shell) and all(n in (None, -1, False) for n in others)
        if not is_plain or not _is_forkable(command, environment):
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        files = [number if fd == -1 else fd for number, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        self.pid = _preloaded().start(list(command), os.fspath(cwd or Path.cwd()), environment, files)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _is_forkable(command: Sequence[str], environment: Mapping[str, str] | None) -> bool:
    """Return whether a fork of the preloaded process does the same as this command."""
    is_ours = command[0] == sys.executable and (list(command[1:3]) == ["-m", "obcd"] or command[1] == "-c")
    if not is_ours or environment is None or "OBCD_TEST_COLD" in os.environ:
        return False
    *others, last = _search_path(environment)
    if last != str(_SOURCES) or any(Path(folder, "sitecustomize.py").exists() for folder in others):
        return False
    return _settings(environment) == _settings(os.environ)


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_READ_AT_START) and name != _PATH}


def _search_path(environment: Mapping[str, str]) -> list[str]:
    return environment.get(_PATH, "").split(os.pathsep)


@functools.cache
def _preloaded() -> _Preloaded:
    return _Preloaded()


class _Preloaded:
    """The tests' end of the preloaded process, which ends when this end is closed."""

    def __init__(self) -> None:
        self._channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = f"from tests.warm_start import serve; serve({other.fileno()})"
        environment = {**os.environ, "PYTHONPATH": str(_SOURCES)}
        self._process = subprocess.Popen([sys.executable, "-c", script], env=environment, pass_fds=[other.fileno()])
        other.close()

    def start(self, command: list[str], cwd: str, environment: Mapping[str, str], files: Sequence[int]) -> int:
        """Start a process with these three files, and return its id; it is a child of this process."""
        request = json.dumps([command, cwd, dict(environment)]).encode()
        with _guard:
            _adopt_orphans(True)
            try:
                socket.send_fds(self._channel, [request], list(files))
                return int(self._channel.recv(100))
            finally:
                _adopt_orphans(False)


def _adopt_orphans(is_wanted: bool) -> None:
    """Make orphans among our descendants our children, or no longer; see prctl(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(is_wanted), 0, 0, 0)


def serve(fd: int) -> None:
    """Be the preloaded process: fork for each request; in the fork, return as the process that was asked for."""
    channel = socket.socket(fileno=fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_leave)  # the first to be registered is the last to be called
    for name in (*(place.attribute.partition(":")[0] for place in COMMANDS.values()), *_PRELOADED):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    while True:
        message, files, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 3)
        if not message:
            return
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            parent, pid = os.getpid(), os.fork()
            if not pid:
                while os.getppid() == parent:  # whoever asks to be ended with its parent means the tests
                    time.sleep(0.0005)
                _run(message, files)
                return
            os.write(writing, b"%d" % pid)
            os._exit(0)
        os.waitpid(between, 0)  # only now the grandchild is an orphan, and so the child of the tests' process
        channel.send(os.read(reading, 100))
        for number in (reading, writing, *files):
            os.close(number)


def _run(request: bytes, files: Sequence[int]) -> None:
    """Run what was asked for, and note with which code it ends; any other error is the interpreter's to report."""
    global _exit_code  # noqa: PLW0603 - one process has one
    try:
        _become(request, files)
        _exit_code = 0
    except SystemExit as end:
        _exit_code = end.code if isinstance(end.code, int) else None
        raise


def _leave() -> None:
    """End the fork at once: the interpreter would free a thousand modules one by one, longer than a command runs."""
    if _exit_code is None:
        return
    with contextlib.suppress(OSError, ValueError):  # what cannot be written, the interpreter tries again and reports
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(_exit_code)


def _become(request: bytes, files: Sequence[int]) -> None:
    """Do in this fork what the interpreter does for a command line."""
    command, cwd, environment = json.loads(request)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
    _close_all_but(range(3))
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(cwd)
    sys.path[:1] = ["" if command[1] == "-c" else cwd, *_search_path(environment)[:-1]]
    util.spawnv_passfds = _fork_passing  # type: ignore[assignment]
    sys.orig_argv = command
    sys.argv = ["-c" if command[1] == "-c" else "", *command[3:]]
    if command[1] == "-m":
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = ModuleType("__main__")
        exec(command[2], vars(sys.modules["__main__"]))


def _fork_passing(path: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
    """Start Python with `-c` and these files, as `multiprocessing.util.spawnv_passfds` does, by forking."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _close_all_but({0, 1, 2, *files})
        sys.modules["__main__"] = ModuleType("__main__")
        exec(arguments[-1], vars(sys.modules["__main__"]))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:  # noqa: BLE001 - nothing may unwind into what called this
        traceback.print_exc()
        code = 1
    os._exit(code)


def _close_all_but(kept: Collection[int]) -> None:
    for file in map(int, os.listdir("/proc/self/fd")):
        if file not in kept:
            with contextlib.suppress(OSError):  # the one that read the folder
                os.close(file)
