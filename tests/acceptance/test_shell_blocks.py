"""Every shell block of README and manual does what it says, word for word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd import __version__
from tests.acceptance.shell_blocks import PAGES, Block, read_blocks, run_page, why_no_network
from tests.gpu_support import StandIns, cards
from tests.integration.systemd_sandbox import VENV, SystemdSandbox, systemd_here
from tests.integration.test_host_unit import DROP_IN, FOLDER, HOST
from tests.support import SOURCES

pytestmark = [pytest.mark.acceptance, pytest.mark.engine]  # minutes of commands

PLAIN = ("", "terminal")
#: {tag of a block: where it runs}
RUNS = {
    "": "a shell with a stand-in Ollama",
    "terminal": "the same, as a second terminal",
    "systemd": "a machine with systemd and two stand-in cards",
    "slurm": "a real Slurm of two nodes with stand-in cards (tests/slurm)",
    "root": "this machine with an empty /opt, beside a wheel of obcd",
    "checkout": "CI runs these commands themselves (.ci/run)",
    "ray": "a machine with a real Ray and stand-in cards (test_ray.py)",
    "gpu": "nowhere: it needs a GPU",
}
BLOCKS = [block for page in PAGES for block in read_blocks(page)]
#: The address that the manual gives a GPU host in its private network.
HOST_ADDRESS = "10.0.0.11/32"


def pages_with(*tags: str) -> list[Path]:
    return [page for page in PAGES if any(block.tag in tags for block in read_blocks(page))]


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a short home: the path of a unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="obcd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("page", pages_with(*PLAIN), ids=lambda page: page.stem)
def test_plain_blocks_of_a_page_run_one_after_the_other(page: Path, home: Path) -> None:
    if reason := why_no_network():
        pytest.skip(reason)
    blocks = [block for block in read_blocks(page) if block.tag in PLAIN]

    done = run_page(blocks, home)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert [line for line in done.stderr.splitlines() if line.startswith("== ")] == [
        f"== {block.place}" for block in blocks
    ]


@pytest.fixture
def machine() -> Iterator[SystemdSandbox]:
    """Yield a fresh machine with systemd, stand-in cards, a stand-in Ollama, and nothing installed."""
    with systemd_here() as sandbox:
        StandIns(sandbox.path(str(FOLDER)), cards(2), seen_as=FOLDER, interpreter=f"{VENV}/bin/python")
        sandbox.run("ip", "address", "add", HOST_ADDRESS, "dev", "lo")
        sandbox.drop_in(HOST, DROP_IN)
        sandbox.run("useradd", "--system", "--user-group", "--home-dir", "/var/lib/obcd", "obcd")
        sandbox.run("chown", "-R", "obcd:obcd", FOLDER)
        yield sandbox


@pytest.mark.parametrize("page", pages_with("systemd"), ids=lambda page: page.stem)
def test_blocks_for_a_machine_with_systemd_run_one_after_the_other(page: Path, machine: SystemdSandbox) -> None:
    programs = f"{FOLDER}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    environment = {"PATH": programs, "PYTHONPATH": f"{FOLDER}/python", "STANDIN_FOLDER": f"{FOLDER}/records"}

    for block in read_blocks(page):
        if block.tag == "systemd":
            done = machine.run("bash", "-ec", block.text, check=False, environment=environment)
            assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}\n{machine.messages(HOST)}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts an empty /opt")
def test_blocks_for_root_install_obcd_from_its_wheel(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/opt"], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no mount namespace: {mounted.stderr.decode().strip()}")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(SOURCES)]
    subprocess.run(wheel, check=True, timeout=120)
    blocks: list[Block] = [block for block in BLOCKS if block.tag == "root"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}  # pip would find obcd there
    script = "set -eu\nmount -t tmpfs none /opt\n" + "".join(block.text for block in blocks)

    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", f"{script}\n/opt/obcd/bin/obcd --version"],
        env={**environment, "PIP_FIND_LINKS": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(__version__)


def test_each_block_says_where_it_runs_and_few_run_nowhere() -> None:
    assert {block.tag for block in BLOCKS} <= set(RUNS)
    nowhere = [block for block in BLOCKS if block.tag == "gpu"]
    assert len(nowhere) <= 0.05 * len(BLOCKS), nowhere
