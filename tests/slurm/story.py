"""One job through a day of a shared cluster: a task is requeued, one reaches its time limit, a node loses its power.

What happened is counted where it happened: by the accounts of the servers, and by the coordinator's responses.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from obcd.standins.wire.account import prompt_key
from tests.slurm.cluster import SlurmCluster
from tests.support import wait_until

#: Seconds of a request, and slots of a server.
REQUEST_SECONDS, SLOTS = 0.5, 4
#: The options of `obcd simulate`; each server has an account of its own.
SIMULATE = f'--seconds {REQUEST_SECONDS} --load-seconds 0.05 --account "$HOME/accounts/$(hostname)-$OLLAMA_HOST"'


@dataclass
class Site:
    """A person's folder on the cluster.

    Attributes:
        cluster: Where it is.
        folder: `~/obcd`: configuration, spool, hosts folder and logs.
    """

    cluster: SlurmCluster
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.cluster.home / "obcd"
        for made in (self.folder, self.folder / "hosts", self.folder / "logs", self.cluster.home / "accounts"):
            made.mkdir(mode=0o700)
        self.configuration.write_text(
            f'[spool]\nroot = "{self.folder}/spool"\nsettle_seconds = 0.5\n[cluster]\nhosts = "{self.folder}/hosts"\n'
            f"[host]\nnum_parallel = {SLOTS}\n",
            "utf-8",
        )

    @property
    def configuration(self) -> Path:
        return self.folder / "obcd.toml"

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    def submit(self, *options: object) -> str:
        """Submit hosts, and return the number of their job."""
        words = ("slurm", "--config", self.configuration, "--logs", self.folder / "logs", *options, "--submit")
        return self.cluster.run("obcd", *words).stdout.strip()

    def records(self) -> dict[str, dict[str, object]]:
        """Return the records of the hosts folder."""
        found = {}
        for path in (self.folder / "hosts").glob("*.json"):
            try:
                found[path.stem] = json.loads(path.read_bytes())
            except (OSError, ValueError):
                continue
        return found

    def serving(self) -> dict[str, list[str]]:
        """Return `{task: the URLs of its endpoints}` of the hosts that serve."""
        return {
            str(record["by"]).removeprefix("slurm "): [item["url"] for item in record["endpoints"]]  # type: ignore[attr-defined]
            for record in self.records().values()
            if record["state"] == "serving"
        }

    def status(self) -> dict[str, object]:
        """Return the coordinator's status; empty while there is none."""
        done = self.cluster.run("obcd", "status", "--json", "--config", self.configuration, check=False)
        found: dict[str, object] = json.loads(done.stdout or "{}")
        return found

    def log(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log")) + sorted(self.cluster.folder.glob("coordinator*.log"))
        return "".join(f"== {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}" for path in logs)


class Presence:
    """When which servers were there, looked at ten times a second, in monotonic seconds."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._is_over = threading.Event()
        self.looks: list[tuple[float, int]] = []
        self.killed: set[str] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.1):
            there = sum(len(urls) for task, urls in self._site.serving().items() if task not in self.killed)
            self.looks.append((time.monotonic(), there))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def shortest(self, began: float, count: int) -> float:
        """Return the seconds that the servers that were there take for some requests."""
        left, last = float(count), began
        for at, there in self.looks:
            if at <= began:
                continue
            left -= there * SLOTS / REQUEST_SECONDS * (at - last)
            if left <= 0:
                return at - began
            last = at
        return float("inf")


@dataclass(frozen=True)
class Figures:
    """What came of a job.

    Attributes:
        answered: Lines of responses.jsonl by prompt: how often each.
        arrivals: How often a request arrived at any server.
        seconds: From the drop to the outbox; `shortest`: what the cards that were there allow.
    """

    requests: int
    answered: Counter[str]
    arrivals: int
    seconds: float
    shortest: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.shortest


def run_story(cluster: SlurmCluster, requests: int) -> Figures:
    """Run the story on a fresh cluster: four tasks with two cards each, two on each node."""
    site = Site(cluster)
    cluster.start("obcd", "coordinator", "--config", site.configuration, log="coordinator.log")
    job = site.submit("--tasks", 4, "--gres", "gpu:2", "--sbatch", "time=30")
    wait_until(lambda: up(site) == 8, what=site.log)
    presence = Presence(site)
    lines = "".join(json.dumps({"prompt": f"What is {number}?"}) + "\n" for number in range(requests))
    (site.folder / "story.jsonl").write_text(lines, "utf-8")
    nodes = {task: node_of(cluster, task) for task in (f"{job}_{number}" for number in range(4))}
    first, second = (sorted(task for task, at in nodes.items() if at == name) for name in ("n1", "n2"))
    began = time.monotonic()
    (site.folder / "story.jsonl").rename(site.spool / "inbox" / "story.jsonl")

    wait_until(lambda: done(site) > 0.1 * requests, what=site.log)
    presence.killed.add(first[1])
    cluster.run("scontrol", "requeue", first[1])
    # its end comes nearer, and so does TERM, as at the time limit of any script; Slurm looks twice a minute
    end = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 100))
    cluster.run("scontrol", "update", f"JobId={second[1]}", f"EndTime={end}")
    wait_until(lambda: site.records()[f"slurm-{second[1]}"]["state"] == "gone", what=site.log)
    wait_until(lambda: done(site) > 0.8 * requests, what=site.log)
    presence.killed.add(second[0])
    cluster.kill_node("n2")

    folder, boot = site.spool / "outbox" / "story", site.records()[f"slurm-{first[1]}"]["boot"]
    wait_until((folder / "manifest.json").exists, 300, what=site.log)
    seconds = time.monotonic() - began
    presence.end()
    cluster.run("scontrol", "update", f"JobId={first[1]}", "StartTime=now")  # Slurm would wait for two minutes
    wait_until(lambda: site.serving().get(first[1]), what=site.log)
    assert site.records()[f"slurm-{first[1]}"]["boot"] != boot
    answered = Counter(json.loads(line)["id"] for line in (folder / "responses.jsonl").read_bytes().splitlines())
    arrivals = count_arrivals(cluster.home / "accounts", {prompt_key(f"What is {n}?") for n in range(requests)})
    return Figures(requests, answered, arrivals, seconds, presence.shortest(began, requests))


def up(site: Site) -> int:
    """Return the number of endpoints that are UP."""
    found = site.status().get("endpoints", [])
    return sum(item["state"] == "UP" for item in found)  # type: ignore[attr-defined]


def done(site: Site) -> int:
    """Return the number of results of all jobs."""
    found = site.status().get("jobs", [])
    return sum(item["done"] for item in found)  # type: ignore[attr-defined]


def node_of(cluster: SlurmCluster, task: str) -> str:
    """Return the node that a task runs on."""
    match = re.search(r"\bNodeList=(\S+)", cluster.run("scontrol", "--oneliner", "show", "job", task).stdout)
    assert match is not None
    return match[1]


def count_arrivals(folder: Path, prompts: set[str]) -> int:
    """Return how often these prompts arrived at servers."""
    entries = (json.loads(line) for path in folder.iterdir() for line in path.read_bytes().splitlines())
    return sum(entry["event"] == "arrived" and entry["prompt"] in prompts for entry in entries)
