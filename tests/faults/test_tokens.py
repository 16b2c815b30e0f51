"""Bearer tokens under the real coordinator: sent with everything, changed by a reload, shown nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults.strange import StrangeServer, strange
from tests.golden.wording import wording
from tests.support import Cluster, CoordinatorProcess, family, prompts, run_obcd, wait_until, write_config

pytestmark = pytest.mark.integration
FIRST, SECOND = "first-t0k3n-of-the-proxy", "second-t0k3n-of-the-proxy"


def put(folder: Path, token: str, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.unlink(missing_ok=True)
    path.write_text(token + "\n", "utf-8")
    path.chmod(mode)
    return path


def configure(folder: Path, server: StrangeServer) -> Path:
    instances = {server.name: {"gpu": 0, "slots": 2, "token_file": "token"}}
    return write_config(folder / "obcd.toml", [], ollama_instances=instances)


def shown(coordinator: CoordinatorProcess) -> dict[str, str]:
    """Return everything that others than the daemon may see of it, by name."""
    found = {"log": coordinator.text(), "status": str(coordinator.status())}
    for pid in [coordinator.pid, *family(coordinator.pid)]:
        for name in ("cmdline", "environ"):
            found[f"{name} of {pid}"] = Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace")
    for path in coordinator.outbox.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_text("utf-8", "replace")
    for path in coordinator.jobs.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes().decode("utf-8", "replace")
    return found


@pytest.mark.case("F21")
def test_token_is_sent_with_everything_and_shown_nowhere(tmp_path: Path, cluster: Cluster) -> None:
    put(tmp_path, FIRST)
    with strange({}, token=FIRST) as server:
        coordinator = cluster.coordinate(configure(tmp_path, server))
        coordinator.drop(prompts(10))

        coordinator.published().assert_complete(10)

        assert server.refused == 0
        assert {"/api/version", "/api/tags", "/api/chat"} <= set(server.let_in)
        check = coordinator.obcd("check")
        status = coordinator.obcd("status")
        assert "serves, version 0.33.0" in check.stdout
        assert server.refused == 0
        words = {**shown(coordinator), "check": check.stdout + check.stderr, "status": status.stdout}
        assert [name for name, text in words.items() if FIRST in text] == []
        coordinator.end()


def test_changed_token_takes_effect_by_a_reload_and_the_worker_stays(tmp_path: Path, cluster: Cluster) -> None:
    put(tmp_path, FIRST)
    with strange({}, token=FIRST) as server:
        coordinator = cluster.coordinate(configure(tmp_path, server))
        coordinator.drop(prompts(3))
        coordinator.published()
        worker = coordinator.worker_pids()[server.name]

        # when the proxy wants another one, nothing is lost, and the reason is told
        server.token = SECOND
        coordinator.drop(prompts(3, "later"), "later.jsonl")
        wait_until(lambda: any("token_file" in text for text in coordinator.status()["troubles"]))

        # when the file that holds it is open to others, the reload is refused and the old one stays
        put(tmp_path, SECOND, 0o644)
        refused = coordinator.obcd("reload")
        assert refused.returncode == 4
        assert f"chmod 0600 {tmp_path}/token" in refused.stderr

        put(tmp_path, SECOND)
        reloaded = coordinator.obcd("reload")
        assert (reloaded.returncode, "1 endpoint changed" in reloaded.stdout + reloaded.stderr) == (0, True)
        done = coordinator.published("later")
        done.assert_complete(3)
        assert done.errors == []
        assert coordinator.worker_pids()[server.name] == worker
        words = {**shown(coordinator), "reload": refused.stderr + reloaded.stderr}
        assert [name for name, text in words.items() if FIRST in text or SECOND in text] == []
        coordinator.end()


@pytest.mark.parametrize("command", ["coordinator", "check", "batch"])
def test_file_that_others_can_read_is_refused_with_the_command_that_mends_it(
    command: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    put(tmp_path, FIRST, 0o644)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n', "utf-8")
    with strange({}, token=FIRST) as server:
        config = configure(tmp_path, server)
        options: dict[str, tuple[Any, ...]] = {
            "batch": ("--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out"),
            "coordinator": ("--root", tmp_path / "root"),
            "check": ("--root", tmp_path / "root"),
        }

        done = run_obcd(environment, command, "--config", config, *options[command])

        assert done.returncode == 4
        assert f"chmod 0600 {tmp_path}/token" in done.stderr
        assert FIRST not in done.stdout + done.stderr
        assert server.refused == 0


def test_batch_sends_the_token_and_a_wrong_one_is_told(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n', "utf-8")
    with strange({}, token=FIRST) as server:
        config = configure(tmp_path, server)
        line = ("batch", "--config", config, "--prompts", tmp_path / "p.jsonl", "--output-dir", tmp_path / "out")

        put(tmp_path, SECOND)
        wrong = run_obcd(environment, *line)
        put(tmp_path, FIRST)
        right = run_obcd(environment, *line)

        assert wrong.returncode == 6
        assert wording("it-does-not-let-us-in") in wrong.stderr
        assert right.returncode == 0
