"""`flood`: ten thousand files dropped at once."""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench import procfs
from tests.bench.accept import tick_figures
from tests.bench.figures import Figure
from tests.bench.servers import Servers
from tests.bench.spool import fresh_spool, wait_until

FILES = 10_000
ENDPOINTS, SLOTS = 4, 16


def measure() -> list[Figure]:
    """Answer 10,000 files of a line each."""
    with fresh_spool() as spool, Servers(ENDPOINTS, SLOTS, 0.05, spool.folder / "servers.log") as servers:
        spool.start(servers.configuration(), is_timed=True)
        spool.wait_ready()
        inbox, outbox, since = spool.root / "inbox", spool.root / "outbox", time.monotonic()
        for number in range(FILES):
            (inbox / f"{number}.jsonl").write_bytes(b'{"prompt": "Question %d"}\n' % number)
        began = wait_until(lambda: servers.answered() > 0, 120, "nothing is answered")
        ended = wait_until(lambda: _published(outbox) >= FILES, 600, "not all are published", look=1.0)
        memory = procfs.peak_mib(spool.pid)
        spool.stop()
        turns = spool.turns(since, ended)
    return [
        *tick_figures(turns),
        Figure("coordinator's peak resident memory", memory, "MiB", most=150, is_worst=True),
        Figure("first answer to last published folder", ended - began, "s"),
    ]


def _published(outbox: Path) -> int:
    return sum(not path.name.endswith((".partial", ".waiting")) for path in outbox.iterdir())
