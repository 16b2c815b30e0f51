"""`python -m tests.faults.submitter ROOT ROUND SEED [nosync]`: job after job until the power is gone.

Says on its output, after the fact, what a user may rely on: `accepted NAME LINES`, `recorded NAME ORDINAL`,
`published NAME`. Another thread syncs a file of its own at random moments: it forces the journal to be written, without
which all that was done since the last sync would be undone together, and nothing could be found.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import threading
from pathlib import Path

from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.inbox.markers import Marker, read_small
from obcd.spool.intake.acceptance import Accepted, accept
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import ledger
from obcd.spool.outbox import publication
from obcd.spool.submit.dropping import submit
from tests.faults.story import SETTINGS, prompt_file
from tests.unit.spool.spools import answer


def say(*words: object) -> None:
    os.write(1, " ".join(map(str, words)).encode() + b"\n")


def sync_something_else(folder: Path, dice: random.Random, sync: object) -> None:
    assert callable(sync)
    with (
        contextlib.suppress(OSError),
        (folder / "unrelated").open("wb", buffering=0) as file,
    ):  # until the power is gone
        while not threading.Event().wait(dice.uniform(0, 0.01)):
            file.write(b"x" * 512)
            sync(file.fileno())


def one_job(layout: Layout, source: Path, name: str, dice: random.Random) -> None:
    count = dice.randrange(1, 20)
    source.write_bytes(prompt_file(name, *map(str, range(count))))
    submit(layout.inbox, source, name=name)
    path = layout.inbox / f"{name}.jsonl"
    marker = Marker.parse(read_small(path.with_name(f"{path.name}.done")))
    drop = Drop(Key("", path.name), Identity.of(path.stat()), marker)
    order = AcceptOrder(drop=drop, job=f"job-{name}", settings=SETTINGS, max_line_bytes=2**20, reject_torn=False)
    verdict = accept(layout, order)
    assert isinstance(verdict, Accepted)
    say("accepted", name, count)
    writer = ledger.LedgerWriter(layout.jobs / verdict.header.id, 0)
    ordinals = list(range(count))
    dice.shuffle(ordinals)
    while ordinals:
        group, ordinals = ordinals[:3], ordinals[3:]
        writer.append([answer(ordinal, "first") for ordinal in group])
        for ordinal in group:
            say("recorded", name, ordinal)
    writer.close()
    publication.publish(layout, verdict.header.id, {})
    say("published", name)


def main() -> None:
    root, number, seed, *rest = sys.argv[1:]
    dice, sync = random.Random(int(seed)), os.fsync
    if rest == ["nosync"]:
        os.fsync = os.fdatasync = lambda descriptor: None  # type: ignore[assignment]
        disk.sync_folder = lambda path: None
    layout = Layout.at(Path(root))
    layout.create([])
    source = Path(root) / "source.jsonl"
    threading.Thread(target=sync_something_else, args=(layout.root, dice, sync), daemon=True).start()
    for job in range(10_000):
        one_job(layout, source, f"r{number}j{job}", dice)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InputError):  # the power is gone
        os._exit(0)
