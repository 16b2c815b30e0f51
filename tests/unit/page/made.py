"""A cluster to look at: hosts of several cards, jobs of several users, and two weeks of history."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

from obcd.coordinator.view import (
    EndpointView,
    FurtherJobView,
    HostView,
    JobView,
    PublishedView,
    PullView,
    RejectedView,
    View,
    WaitingView,
)
from obcd.hosts.record import CardReading
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import write_history
from obcd.spool.history.history_line import HistoryLine

STATES = ["RUNNING", "RUNNING", "RUNNING", "PAUSED", "ACCEPTED", "COMPLETE", "CANCELLED"]
NAMES = [
    "clinical-visits.jsonl", "questions.jsonl", "summaries-2026-11.jsonl", "reviews.csv", "translations-de.jsonl",
    "embed-corpus.parquet", "classification-pass-2.jsonl", "nightly-extract.jsonl.gz",
]  # fmt: skip
CLASSES = ["timeout", "invalid_answer", "too_long", "bad_line", "cut_short", "crashed"]


def make_view(endpoints: int = 28, jobs: int = 100, updated: float | None = None, *, per_user: bool = False) -> View:
    """Return the view of a busy cluster with some troubles."""
    updated = time.time() if updated is None else updated
    return View(
        version="1.4.0",
        pid=4711,
        root="/var/spool/obcd",
        inbox="/var/spool/obcd/inbox",
        outbox="/var/spool/obcd/outbox",
        per_user=per_user,
        state="READY",
        updated=updated,
        updated_at="2026-12-01T03:00:00.000Z",
        troubles=("gpu3 is silent: its record has not changed for 45 s",) if endpoints > 8 else (),
        notes=("the inbox is on NFS: files are accepted when they have not changed for 60 s",),
        eta_seconds=4521.0 if jobs else None,
        jobs=tuple(_job(number) for number in range(jobs)),
        further_jobs=tuple(
            FurtherJobView(job=f"f{number}", profile="", name=f"later-{number}.jsonl", state="ACCEPTED")
            for number in range(5 if jobs else 0)
        ),
        endpoints=tuple(_endpoint(number) for number in range(endpoints)),
        hosts=tuple(_host(number, endpoints) for number in range(math.ceil(endpoints / 4))),
        pulls=(PullView(endpoint="gpu1:11432", model="qwen3:8b", percent=41),) if jobs else (),
        settling=("big.jsonl",) if jobs else (),
        waiting=(WaitingView(file="bob/huge.jsonl", why="bob has 4 unfinished jobs, and may have 4"),) if jobs else (),
        rejected=(RejectedView(file="notes.docx", folder="/x/notes.rejected", why="SECRET"),) if jobs else (),
        published=tuple(
            PublishedView(
                job=f"p{number}", name=f"done-{number}.jsonl", folder="/x", responses=990, failures=number % 3
            )
            for number in range(4)
        ),
        requests_waiting=81_234 if jobs else 0,
        free_bytes=10**11,
        min_free_bytes=2**28,
    )


def _job(number: int) -> JobView:
    state, total = STATES[number % len(STATES)], 1000 + 977 * number
    done = total if state == "COMPLETE" else 0 if state == "ACCEPTED" else total * (number % 10) // 10
    failed = done // 50 if number % 3 == 0 else 0
    is_running = state == "RUNNING"
    return JobView(
        job=f"20261201T0300{number:02d}-ab{number:02d}",
        name=NAMES[number % len(NAMES)],
        profile="clinical" if number % 4 == 0 else "",
        uid=number % 3,
        state=state,
        priority=number % 5 - 2 if number % 7 == 0 else 0,
        total=total,
        done=done,
        failed=failed,
        failed_by_class={CLASSES[number % 6]: failed - failed // 3, CLASSES[number % 5]: failed // 3} if failed else {},
        tokens_per_second=123.4 * (1 + number % 9) if is_running else 0.0,
        requests_per_second=0.73 * (1 + number % 7) if is_running else 0.0,
        eta_seconds=60.0 * (number + 2) if is_running else None,
        trouble="its .pause file is in the inbox" if state == "PAUSED" else "",
    )  # fmt: skip


def _endpoint(number: int) -> EndpointView:
    host = number // 4 + 1
    state, reason = ("DOWN", "no connection (refused)") if number == 9 else ("UP", "")
    state, reason = ("SUSPECT", "3 requests failed in a row: timeout") if number == 14 else (state, reason)
    return EndpointView(
        name=f"gpu{host}:{11432 + number % 4}",
        url=f"http://gpu{host}:{11432 + number % 4}",
        gpu=number % 4,
        slots=18,
        finds_slots=True,
        in_flight=0 if state == "DOWN" else 18 - number % 5,
        state=state,
        reason=reason,
        version="0.33.1",
        models=("llama3.2:latest", "qwen2.5:7b", "nomic-embed-text:latest", "llava:latest"),
        answered=10_000 + 321 * number,
        faults=number % 7,
        tokens_per_second=0.0 if state == "DOWN" else 812.0 + 7 * number,
        left_out=("its qwen2.5:7b is another one (digest 6a0746a1ec1a) than the others'",) if number == 6 else (),
        host=f"gpu{host}",
    )  # fmt: skip


def _host(number: int, endpoints: int) -> HostView:
    own = range(4 * number, min(endpoints, 4 * number + 4))
    return HostView(
        name=f"gpu{number + 1}",
        owner="obcd",
        by=f"slurm 4711_{number}" if number % 2 else "",
        state="silent" if number == 2 else "serving",
        age_seconds=45.0 if number == 2 else 2.0,
        endpoints=tuple(f"gpu{number + 1}:{11432 + each % 4}" for each in own),
        seconds_left=7200.0 if number % 2 else None,
        cards=tuple(_card(each) for each in own),
    )


def _card(number: int) -> CardReading:
    return CardReading(
        uuid=f"GPU-{number:08x}",
        index=number % 4,
        name="NVIDIA A100-SXM4-80GB",
        utilization=None if number == 11 else 0.99 - number % 6 / 20,
        memory_used_bytes=61_000_000_000 + 10**8 * number,
        memory_total_bytes=85_899_345_920,
        temperature_celsius=58 + number % 9,
        power_watts=311.0 + number,
        xid_errors=2 if number == 5 else 0,
        last_xid=79 if number == 5 else None,
    )


def make_history(end: float, lines: int = 120, seconds: float = 60.0) -> list[HistoryLine]:
    """Return lines that end now, with a gap in the middle."""
    return [
        _line(end - seconds * (lines - number - 1), number, seconds) for number in range(lines) if not 40 <= number < 46
    ]


def _line(end: float, number: int, seconds: float) -> HistoryLine:
    wave = 1 + 0.4 * math.sin(number / 7) + 0.1 * math.sin(number / 1.7)
    return HistoryLine(
        time=end,
        seconds=seconds,
        jobs=8,
        waiting=max(0, 120_000 - 330 * number),
        responses=int(21 * wave * seconds),
        failures={"timeout": int(0.8 * (2 - wave) * seconds)},
        prompt_tokens=int(9000 * wave * seconds),
        output_tokens=int(21_000 * wave * seconds),
        slot_seconds=504 * seconds,
        busy_seconds=(430 + 60 * math.sin(number / 9)) * seconds,
        idle_seconds={"endpoint_down": 18 * seconds},
        utilization=0.86 + 0.1 * math.sin(number / 5),
        power_watts=8700 + 500 * math.sin(number / 5),
    )


def place(root: Path, view: View, lines: int = 120) -> Layout:
    """Write what a coordinator of this view would have written; return its folders."""
    layout = Layout.at(root, per_user=view.per_user)
    root.mkdir(parents=True, exist_ok=True)
    layout.runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    show(layout, view)
    for line in make_history(view.updated, lines):
        write_history(root, line)
    return layout


def show(layout: Layout, view: View) -> None:
    """Write the status again."""
    disk.show_json(layout.status, replace(view, root=str(layout.root)).to_json())
