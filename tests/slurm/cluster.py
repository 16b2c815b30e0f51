"""A real Slurm of three machines on this one: `login` with the controller, and two nodes with four cards each.

                  login 10.77.0.1  munged, slurmctld            one pid, mount, network and host name space each;
                    │ bridge                                    those of the nodes lie inside that of login, so that
          ┌─────────┴─────────┐                                 nothing outlives it. Files are shared, as on NFS.
    n1 10.77.0.11       n2 10.77.0.12    slurmd

The programs are Debian's (slurmctld, slurmd, slurm-client, munge), found on PATH or in OBCD_SLURM_PATH. The cards are
stand-ins: device files for Slurm, a module for NVML, and `ollama` is a simulated server.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.gpu_support import StandIns, card
from tests.support import SOURCES, all_gone, is_gone, make_environment, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue", "sinfo")
TOOLS = ("unshare", "nsenter", "ip", "setpriv", "mount")
LOGIN, NODES = "login", {"n1": "10.77.0.11", "n2": "10.77.0.12"}
ADDRESS = "10.77.0.1"
CARDS = 4

CONFIGURATION = """\
ClusterName=obcd
SlurmctldHost=login({address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=10
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=100000
{nodes}
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""
#: Becomes init of the machine, which waits for whatever is orphaned there. Its own /tmp would hide a checkout below it.
_INIT = "hostname {name}; ip link set lo up; {own_tmp} {more} sleep infinity & wait"
_OWN_TMP = "mount -t tmpfs none /tmp;"
if SOURCES.is_relative_to("/tmp"):
    _kept = shlex.quote(str(SOURCES))
    _back = f"mkdir -p {_kept}; mount --no-canonicalize --bind /proc/self/fd/9 {_kept};"
    _OWN_TMP = f"exec 9<{_kept}; {_OWN_TMP} {_back} exec 9<&-;"


def why_no_slurm() -> str:
    """Return why there can be no cluster here, or nothing."""
    missing = [name for name in (*PROGRAMS, *TOOLS) if _which(name) is None]
    if missing:
        return (
            f"{', '.join(missing)} not found: apt-get install slurmctld slurmd slurm-client munge iproute2 util-linux"
        )
    if os.geteuid() != 0:
        return "only root makes the machines' namespaces"
    spaces = [*_spaces(), "ip", "link", "add", "br0", "type", "bridge"]
    done = subprocess.run(spaces, capture_output=True, text=True, check=False, timeout=60)
    return f"no namespaces with a bridge: {done.stderr.strip()}" if done.returncode else ""


def _which(name: str) -> str | None:
    path = os.environ.get("OBCD_SLURM_PATH") or f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return shutil.which(name, path=path) or shutil.which(name)


def _spaces() -> list[str]:
    return ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]


class SlurmCluster:
    """The cluster, which runs from its making until `end`.

    Attributes:
        folder: Its files, at a short path that all machines share.
        home: A person's home on it.
        environment: What commands on its machines get.
    """

    def __init__(self, folder: Path, *, simulate: str = "--seconds 0.05") -> None:
        self.folder, self.home = folder, folder / "home"
        self._inits: dict[str, int] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment(simulate)
        self._boot()

    # --- what commands find there ----------------------------------------------------------------------------------

    def _environment(self, simulate: str) -> None:
        programs = self.folder / "bin"
        for made in (self.home, programs, self.folder / "machine", self.folder / "state"):
            made.mkdir()
        _script(programs / "obcd", f'exec {shlex.quote(sys.executable)} -m obcd "$@"')
        (programs / "python").symlink_to(sys.executable)
        for name in NODES:
            described = [card(index, uuid=node_card(name, index)) for index in range(CARDS)]
            stand_ins = StandIns(self.folder / name, described, seen_as=self.folder / "machine")
            _script(stand_ins.bin / "ollama", f'[ "$1" = serve ] || exit 2\nexec obcd simulate {simulate}')
        found = {os.path.dirname(_which(name) or "") for name in PROGRAMS}
        path = ":".join([str(programs), str(self.folder / "machine" / "bin"), *sorted(found), os.environ["PATH"]])
        base = {key: value for key, value in make_environment(self.home).items() if not key.startswith("SLURM_")}
        del base["XDG_RUNTIME_DIR"]
        self.environment = {
            **base, "PATH": path, "HOME": str(self.home), "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PYTHONPATH": f"{self.folder / 'machine' / 'python'}:{SOURCES}",
            "STANDIN_FOLDER": str(self.folder / "machine" / "records"),
        }  # fmt: skip

    # --- machines --------------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        hosts = self.folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n10.77.0.1 login\n" + "".join(f"{at} {n}\n" for n, at in NODES.items()))
        nodes = "".join(
            f"NodeName={name} NodeAddr={at} CPUs=8 RealMemory=8000 Gres=gpu:{CARDS}\n" for name, at in NODES.items()
        )
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(folder=self.folder, address=ADDRESS, nodes=nodes), "utf-8"
        )
        (self.folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/tty[0-3]\n", "utf-8")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(64))
        key.chmod(0o400)
        bridge = f"ip link add br0 type bridge; ip address add {ADDRESS}/24 dev br0; ip link set br0 up;"
        more = f"mount --bind {hosts} /etc/hosts; {bridge}"
        self._start_machine(LOGIN, more)
        self._serve(LOGIN, [_which("munged") or "", "--foreground", "--force", "--num-threads", "1",
                            f"--socket={self.folder}/munge.sock", f"--key-file={key}",
                            f"--pid-file={self.folder}/munge.pid", f"--log-file={self.folder}/munge.log",
                            f"--seed-file={self.folder}/munge.seed"])  # fmt: skip
        wait_until((self.folder / "munge.sock").exists, what=lambda: self.log("munge"))
        self._serve(LOGIN, [_which("slurmctld") or "", "-D"])
        for name in NODES:
            self.start_node(name)
        wait_until(lambda: self.ready_nodes() == len(NODES), what=self.logs)

    def start_node(self, name: str) -> None:
        """Switch a node on."""
        self._start_machine(name, f"mount --bind {self.folder / name} {self.folder / 'machine'};", inside=LOGIN)
        link = (
            f"ip link add {name} type veth peer name eth0 netns {self._inits[name]}; ip link set {name} master br0 up"
        )
        # the link's end is named by a process id of this namespace: made from here, inside login's network
        subprocess.run(
            ["nsenter", "-t", str(self._inits[LOGIN]), "-n", "sh", "-ec", link], check=True, capture_output=True
        )
        self.run("sh", "-ec", f"ip link set eth0 up; ip address add {NODES[name]}/24 dev eth0", on=name)
        self._serve(name, [_which("slurmd") or "", "-D", "-N", name])

    def kill_node(self, name: str) -> None:
        """Cut the power of a node: every process of it is gone at once, and nothing was written."""
        pid = self._inits.pop(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), what=f"{name} is off")

    def _start_machine(self, name: str, more: str, inside: str | None = None) -> None:
        command = [*_spaces(), "bash", "-c", _INIT.format(name=name, own_tmp=_OWN_TMP, more=more)]
        # the first machine ends with this process, however it ends; the others are inside
        outer = ["setpriv", "--pdeathsig", "KILL"] if inside is None else self._enter(inside)
        process = subprocess.Popen(
            [*outer, *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._started.append(process)
        # unshare forks init, which is a bash that runs `sleep`
        self._inits[name] = wait_until(lambda: _init_of(process.pid), what=f"{name} boots") or 0

    def _enter(self, name: str) -> list[str]:
        pid = str(self._inits[name])
        return ["nsenter", "-t", pid, "-m", "-n", "-u", "-p", "env", "-C", str(self.home)]

    def _serve(self, name: str, command: list[str]) -> None:
        with open(self.folder / f"{Path(command[0]).name}-{name}.out", "wb") as log:
            process = subprocess.Popen(
                [*self._enter(name), *command], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started.append(process)

    # --- commands --------------------------------------------------------------------------------------------------

    def run(
        self, *command: object, on: str = LOGIN, check: bool = True, timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a machine, in the person's home."""
        done = subprocess.run(
            [*self._enter(on), *map(str, command)], env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: object, on: str = LOGIN, log: str) -> subprocess.Popen[bytes]:
        """Start a command on a machine; it ends with the machine at the latest."""
        with open(self.folder / log, "ab") as file:
            process = subprocess.Popen(
                [*self._enter(on), *map(str, command)], env=self.environment, stdin=subprocess.DEVNULL, stdout=file,
                stderr=file,
            )  # fmt: skip
        self._started.append(process)
        return process

    def ready_nodes(self) -> int:
        done = self.run("sinfo", "--noheader", "--Node", "--format=%N %t", check=False)
        return sum(line.split()[1] in ("idle", "mix", "alloc") for line in done.stdout.splitlines())

    def states(self, job: str | int) -> dict[str, str]:
        """Return `{task: state}` of a job and its array, also of those that have ended, e.g. `{"7_0": "RUNNING"}`."""
        done = self.run("scontrol", "--oneliner", "show", "job", job, check=False)
        records = [
            dict(word.split("=", 1) for word in line.split() if "=" in word) for line in done.stdout.splitlines()
        ]
        return {
            f"{item['ArrayJobId']}_{item['ArrayTaskId']}" if "ArrayJobId" in item else item["JobId"]: item["JobState"]
            for item in records
            if "JobId" in item
        }

    def log(self, name: str) -> str:
        return "".join(path.read_text("utf-8", "replace")[-3000:] for path in sorted(self.folder.glob(f"{name}*.log")))

    def logs(self) -> str:
        outs = "".join(path.read_text("utf-8", "replace")[-1500:] for path in sorted(self.folder.glob("*.out")))
        return outs + self.log("slurm")

    def processes(self) -> list[psutil.Process]:
        """Return every process of all machines, as this machine sees them."""
        found: list[psutil.Process] = []
        for process in self._started:
            try:
                found += psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                continue
        return found

    def end(self) -> None:
        """Switch everything off; the namespaces take all their processes with them."""
        left = [process.pid for process in self.processes()]
        if LOGIN in self._inits:
            os.kill(self._inits[LOGIN], signal.SIGKILL)
        for process in self._started:
            process.kill()
            process.wait(30)
        # a kill takes a moment, and they must not write into the folder any more
        wait_until(lambda: all_gone(left), 30, what="the machines are off")


def node_card(name: str, index: int) -> str:
    """Return the UUID of a node's card."""
    return f"GPU-{index:08x}-{name}{name}-2222-3333-444455556666"


def _init_of(pid: int) -> int | None:
    """Return the process that is init in the namespaces that a command made; None while it is not there yet."""
    try:
        chain = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess as error:
        raise AssertionError("the machine ended at once") from error
    for item in chain:
        with suppress(psutil.NoSuchProcess):  # programs come and go while it boots
            if item.name() == "sleep":
                return int(item.ppid())
    return None


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)


@contextmanager
def slurm_here(simulate: str = "--seconds 0.05") -> Iterator[SlurmCluster]:
    """Yield a fresh cluster, and leave nothing of it."""
    folder = Path(tempfile.mkdtemp(prefix="obcd-slurm-", dir="/var/tmp"))
    folder.chmod(0o755)
    cluster = None
    try:
        cluster = SlurmCluster(folder, simulate=simulate)
        yield cluster
    finally:
        if cluster is not None:
            cluster.end()
        shutil.rmtree(folder, ignore_errors=True)
