"""`host`: a host starts; a server is killed, two hang; supervisord itself is killed, and stopped.

No GPU is needed: `ollama` and NVML are stand-ins (tests/gpu_support.py); supervisord, the watch and the
launcher are real. The last two rows need a systemd of our own; where none can be booted they are left out, and the
reason is said.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.spool import wait_until
from tests.gpu_support import StandIns, cards, free_base
from tests.integration.systemd_sandbox import VENV, CannotBootError, SystemdSandbox, why_not
from tests.support import is_gone, make_environment, obcd_command

START_COUNT, COUNT, HUNG_COUNT = 8, 4, 2
#: Goals, in seconds.
START_GOAL, KILL_GOAL, HANG_GOAL, UNIT_GOAL = 3.0, 3.0, 30.0, 6.0
#: Seconds after which a measurement has failed.
PATIENCE = 90.0
UNIT = "obcd-host.service"
UNIT_FOLDER, UNIT_PORTS = Path("/srv/standins"), range(11432, 11432 + COUNT)
DROP_IN = f"""[Service]
Environment=PATH={UNIT_FOLDER}/bin:/usr/bin:/bin PYTHONPATH={UNIT_FOLDER}/python STANDIN_FOLDER={UNIT_FOLDER}/records
ReadWritePaths={UNIT_FOLDER}
"""


def measure() -> list[Figure]:
    """Start hosts, and break what can break."""
    return [
        *_starts(),
        *_killed_server(),
        *_hung_servers(),
        *_under_systemd(),
    ]


class Machine:
    """One `obcd host` on stand-ins; a context manager that leaves nothing."""

    def __init__(self, count: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="obcd-bench-"))
        self._count = count
        self.stand_ins = StandIns(self._folder / "machine", cards(count))
        self.base = free_base(count)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._process.wait()
        self.stand_ins.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def ports(self) -> range:
        return range(self.base, self.base + self._count)

    def start(self) -> float:
        """Start the host and return the seconds until every server answered."""
        folder = self._folder
        environment = make_environment(folder, XDG_STATE_HOME=str(folder / "state"))
        words = ("host", "--gpus", self._count, "--base-port", self.base, "--runtime", folder / "run")
        began = time.monotonic()
        with open(folder / "host.log", "wb") as log:
            self._process = subprocess.Popen(
                obcd_command(*words), env=self.stand_ins.environment(environment),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        return self._wait(self._all_answer, "every server answers") - began

    def _all_answer(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise ChildProcessError(f"obcd host ended with {self._process.returncode}:\n{self.text()}")
        return all(map(answers, self.ports))

    def await_watch(self) -> None:
        """Wait until the watch has seen every server answer."""
        said = f"{self._count}/{self._count} servers answer"
        path = self._folder / "run" / "watch.json"
        self._wait(lambda: path.exists() and said in path.read_text("utf-8"), "the watch sees every server answer")

    def await_successor(self, port: int, old: int) -> float:
        """Return when another server answered on a port."""
        return self._wait(
            lambda: self.stand_ins.pid(port) != old and answers(port), f"another server answers on {port}"
        )

    def _wait(self, done: Callable[[], bool], what: str) -> float:
        try:
            return wait_until(done, PATIENCE, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.text()}") from None

    def text(self) -> str:
        """Return what host, supervisord, watch and servers wrote."""
        logs = [self._folder / "host.log", *sorted((self._folder / "run" / "logs").glob("*.log"))]
        return "".join(f"== {path.name}\n{path.read_text('utf-8', 'replace')}" for path in logs if path.exists())


def answers(port: int) -> bool:
    """Tell whether a server answers /api/version."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/api/version")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _starts() -> Iterator[Figure]:
    with Machine(START_COUNT) as machine:
        yield Figure(f"start to {START_COUNT} answering servers, NVML", machine.start(), "s", most=START_GOAL)


def _killed_server() -> list[Figure]:
    """Kill one of four servers; nobody else may notice."""
    with Machine(COUNT) as machine:
        machine.start()
        machine.await_watch()
        stand_ins, victim = machine.stand_ins, machine.ports[1]
        before = {port: stand_ins.pid(port) for port in machine.ports}
        runner, at = stand_ins.runner(victim), time.monotonic()
        os.kill(before[victim], signal.SIGKILL)
        took = machine.await_successor(victim, before[victim]) - at
        disturbed = sum(stand_ins.pid(port) != pid for port, pid in before.items() if port != victim)
        expected = {number for port in machine.ports for number in (stand_ins.pid(port), stand_ins.runner(port))}
        left = sum(pid not in expected for pid in stand_ins.alive()) + (not is_gone(runner))
    return [
        Figure("server killed to its successor answering", took, "s", most=KILL_GOAL),
        Figure("other servers disturbed by that", disturbed, most=0, is_worst=True),
        Figure("runners left by that", left, most=0, is_worst=True),
    ]


def _hung_servers() -> list[Figure]:
    """Hang two servers at once; one of them, and its runner, ignore TERM."""
    with Machine(HUNG_COUNT) as machine:
        machine.start()
        machine.await_watch()
        stubborn, meek = machine.ports
        old = {port: machine.stand_ins.pid(port) for port in machine.ports}
        machine.stand_ins.switch("stubborn", stubborn)
        began = time.monotonic()
        for port in machine.ports:
            machine.stand_ins.switch("hang-ps", port)
        took = {port: machine.await_successor(port, old[port]) - began for port in (meek, stubborn)}
        machine.stand_ins.switch("stubborn", stubborn, on=False)
    return [
        Figure("/api/ps hangs to its successor answering", took[meek], "s", most=HANG_GOAL, is_worst=True),
        Figure("the same, and it ignores TERM", took[stubborn], "s", most=HANG_GOAL, is_worst=True),
    ]


class Unit:
    """obcd-host.service as it is installed, with stand-ins, under a systemd of our own."""

    def __init__(self, sandbox: SystemdSandbox) -> None:
        self._sandbox = sandbox
        sandbox.obcd("install")
        place = sandbox.path(str(UNIT_FOLDER))
        self._stand_ins = StandIns(place, cards(COUNT), seen_as=UNIT_FOLDER, interpreter=f"{VENV}/bin/python")
        sandbox.run("chown", "-R", "obcd:obcd", UNIT_FOLDER)
        sandbox.drop_in(UNIT, DROP_IN)
        sandbox.run("systemctl", "start", UNIT)

    def strike(self, number: signal.Signals) -> float:
        """Send supervisord a signal; return the seconds until all servers are new, answer, and nothing old is left."""
        ours = f"{COUNT}/{COUNT} servers answer"
        wait_until(lambda: self._sandbox.show(UNIT, "StatusText") == ours, PATIENCE, "the unit is well")
        old, at = self._now(), time.monotonic()
        self._sandbox.signal(self._sandbox.main_pid(UNIT), number)
        return wait_until(lambda: self._is_renewed(old), PATIENCE, f"the unit is well after {number.name}") - at

    def _now(self) -> set[int]:
        stand_ins = self._stand_ins
        return {number for port in UNIT_PORTS for number in (stand_ins.pid(port), stand_ins.runner(port))}

    def _is_renewed(self, old: set[int]) -> bool:
        now = self._now()
        return not now & old and self._alive() == now and self._listen(UNIT_PORTS)

    def _alive(self) -> set[int]:
        done = self._sandbox.run("pgrep", "-f", f"{UNIT_FOLDER}/bin/ollama", check=False)
        return {int(word) for word in done.stdout.split()}

    def _listen(self, ports: Iterable[int]) -> bool:
        asks = "printf 'GET /api/version HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q version <&3"
        script = " && ".join(f"exec 3<>/dev/tcp/127.0.0.1/{port} && {asks}" for port in ports)
        return self._sandbox.run("bash", "-c", script, check=False).returncode == 0


def _under_systemd() -> list[Figure]:
    try:
        if reason := why_not():
            raise CannotBootError(reason)
        sandbox = SystemdSandbox()
    except CannotBootError as error:
        print(f"host: not measured under systemd: {error}", file=sys.stderr)
        return []
    try:
        unit = Unit(sandbox)
        killed, stopped = unit.strike(signal.SIGKILL), unit.strike(signal.SIGSTOP)
    finally:
        sandbox.kill()
    return [
        Figure(f"supervisord killed under systemd to {COUNT} new servers answering", killed, "s", most=UNIT_GOAL),
        Figure("supervisord stopped (SIGSTOP) to the same: its watchdog", stopped, "s", most=HANG_GOAL),
    ]
