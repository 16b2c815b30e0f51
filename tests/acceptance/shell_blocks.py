"""The shell blocks of README and manual, and a shell in a network of its own that runs those of one page in order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import SOURCES

PAGES = [SOURCES / "README.md", *sorted((SOURCES / "etc" / "manual").glob("*.md"))]
#: What a page's plain blocks find at Ollama's own address.
MODELS = "llama3.2,qwen3,llava,codellama:code,nomic-embed-text"
_FENCE = re.compile(r"^( *)```sh([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
#: Brings up the loopback device of its new network (ioctl SIOCSIFFLAGS, netdevice(7)), then becomes the command.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as device:
    fcntl.ioctl(device, 0x8914, struct.pack("16sh", b"lo", 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""
_PRELUDE = """set -eu
trap 'jobs -p | xargs -r kill; wait' EXIT
obcd simulate --port 11434 --load-seconds 0.01 --seconds 0.02 --models {models} > ollama.log 2>&1 &
until curl -s http://127.0.0.1:11434/ > /dev/null; do sleep 0.05; done
"""
_TERMINAL = """({text}) > terminal.log 2>&1 &
{{ until obcd status > /dev/null 2>&1; do sleep 0.1; done; }}
"""


@dataclass(frozen=True)
class Block:
    """A fenced block ```` ```sh TAG ````; the tag says what it needs, none is a plain shell."""

    page: str
    line: int
    tag: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    name = str(page.relative_to(SOURCES))
    return [
        Block(name, text[: match.start()].count("\n") + 1, match[2].strip(), match[3])
        for match in _FENCE.finditer(text)
    ]


def why_no_network() -> str:
    """Return why this machine gives us no network of our own, or nothing."""
    if shutil.which("unshare") is None:
        return "unshare (util-linux) is not installed"
    done = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    return f"no network namespace: {done.stderr.strip()}" if done.returncode else ""


_UNSHARE = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def run_page(blocks: list[Block], home: Path) -> subprocess.CompletedProcess[str]:
    """Run plain blocks and those of a second terminal in one shell, in their order; stop at the first failure."""
    work, programs = home / "work", home / "bin"
    work.mkdir(parents=True)
    programs.mkdir()
    for name, words in (("obcd", " -m obcd"), ("python", "")):  # a link to python would not find its packages
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{words} "$@"\n')
        program.chmod(0o755)
    script = _PRELUDE.format(models=MODELS)
    for block in blocks:
        script += f"echo '== {block.place}' >&2\n"
        script += _TERMINAL.format(text=block.text) if block.tag == "terminal" else block.text
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OBCD_", "OLLAMA_", "XDG_"))}
    environment = {
        **kept, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCES),
        "XDG_RUNTIME_DIR": str(home), "COLUMNS": "120",
    }  # fmt: skip
    command = [*_UNSHARE, sys.executable, "-c", LOOPBACK_UP, "bash", "-c", script]
    return subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=240, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
