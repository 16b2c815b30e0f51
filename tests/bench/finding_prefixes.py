"""`finding_prefixes`: what it costs to find prompts that begin alike while a file is accepted."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from obcd.core.request.records import JobSettings
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.drops import Drop, Identity, Key
from obcd.spool.intake.acceptance import accept_copy
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job.lane_index import NAME
from tests.bench.figures import Figure
from tests.bench.spool import prompts

LINES, LINE_BYTES, QUESTIONS = 200_000, 1000, 6


def measure() -> list[Figure]:
    """Accept files of 200,000 lines of 1,000 bytes with `prefix_affinity` "auto" and "off", one after the other."""
    with tempfile.TemporaryDirectory(prefix="obcd-") as name:
        folder = Path(name)
        usual = _write(folder / "usual.jsonl", prompts(LINES, LINE_BYTES))
        order = [(document, question) for document in range(LINES // QUESTIONS) for question in range(QUESTIONS)]
        natural = _write(folder / "natural.jsonl", _questions(order))
        random.Random(1).shuffle(order)
        shuffled = _write(folder / "shuffled.jsonl", _questions(order))
        nothing, most = _cost(folder, usual)
        in_order, _ = _cost(folder, natural)
        mixed, index = _cost(folder, shuffled)
    return [
        Figure('CPU to accept lines that share nothing, by "off"', nothing, "x"),
        Figure("the same for documents x 6 questions in order", in_order, "x"),
        Figure("the same, shuffled", mixed, "x"),
        Figure("bytes of lanes a request where nothing is shared", most, "B", most=0),
        Figure("bytes of lanes a request where prompts begin alike", index, "B", most=16),
    ]


def _questions(order: list[tuple[int, int]]) -> Iterator[bytes]:
    for document, question in order:
        text = "".join(random.Random(document).choices("abcdefgh ", k=870))
        yield (
            json.dumps({"prompt": f"{text}\n\nQuestion {question}: {document * 7919 % 10**6} of what?"}).encode()
            + b"\n"
        )


def _write(path: Path, lines: Iterator[bytes]) -> Path:
    with open(path, "wb") as file:
        file.writelines(lines)
    return path


def _cost(folder: Path, path: Path) -> tuple[float, float]:
    """Return the CPU time to accept a file by that without lanes, and the bytes of lanes a request."""
    off, _ = _accept(folder, path, "off")
    auto, size = _accept(folder, path, "auto")
    return auto / off, size


def _accept(folder: Path, path: Path, affinity: str) -> tuple[float, float]:
    root = folder / f"{path.stem}-{affinity}"
    root.mkdir()
    layout = Layout.at(root)
    layout.create([])
    drop = Drop(Key("", path.name), Identity.of(path.stat()), None)
    settings = JobSettings(model="llama3.2", prefix_affinity=affinity)
    order = AcceptOrder(drop=drop, job="job", settings=settings, max_line_bytes=2**25, reject_torn=False)
    began = time.process_time()
    header = accept_copy(layout, order, path).header
    seconds = time.process_time() - began
    lanes = layout.jobs / "job" / NAME
    return seconds, lanes.stat().st_size / header.requests if lanes.exists() else 0.0
