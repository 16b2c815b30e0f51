"""A root with a history of some minutes and published jobs, for tests of reports."""

from __future__ import annotations

import json
from pathlib import Path

from obcd.clock import timestamp
from obcd.spool.folders.layout import Layout
from obcd.spool.history.history_files import write_history
from obcd.spool.history.history_line import CardColumns, EndpointColumns, HistoryLine, JobColumns

NOW = 1_795_370_000.0
#: Words that are in prompts, answers and messages alone, and never in a report.
SECRET = "the patient's name"


def make_job(outbox: Path, stem: str, began: float, ended: float, *, job: str = "", name: str = "") -> Path:
    """Publish a job of 100 requests, three of which failed."""
    folder = outbox / stem
    folder.mkdir(parents=True)
    manifest = {
        "format": 1, "obcd": "1", "job": job or f"id-{stem}", "name": name or f"{stem}.jsonl", "profile": "",
        "counts": {"requests": 100, "responses": 97, "failures": 3, "cut_short": 1, "empty": 0, "cached": 0},
        "tokens": {"prompt": 9700, "eval": 4850},
        "times": {
            "accepted_at": timestamp(began - 5), "started_at": timestamp(began), "finished_at": timestamp(ended),
            "published_at": timestamp(ended), "work_seconds": 900.0, "span_seconds": ended - began, "speedup": 9.0,
        },
        "endpoints": {"a": {"gpu": 0, "version": "0.33.0", "responses": 97, "eval_tokens": 4850, "seconds": 900.0}},
        "digests": {"llama3.2": ["0" * 64]},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    lines = [{"line": n, "class": kind, "message": SECRET} for n, kind in enumerate(["timeout", "timeout", "no_json"])]
    (folder / "errors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    (folder / "responses.jsonl").write_text(json.dumps({"prompt": SECRET, "response": SECRET}) + "\n", "utf-8")
    return folder


def minute(time: float, job: str = "", number: int = 0, *, endpoint: str = "a", cards: int = 2) -> HistoryLine:
    """Return a line of two endpoints and two cards of 100 W and 300 W; half of the work is that of `job`."""
    energies = tuple(1e6 + 60.0 * number * watts for watts in (100.0, 300.0))[:cards]
    return HistoryLine(
        time=time, seconds=60.0, jobs=1, waiting=5, responses=60, failures={"timeout": 1}, retries={"busy": 2},
        prompt_tokens=6000, output_tokens=1200, slot_seconds=32 * 60.0, busy_seconds=16 * 60.0,
        idle_seconds={"endpoint_down": 16 * 60.0}, utilization=0.5, power_watts=400.0,
        endpoints=EndpointColumns(
            name=(endpoint, "b"), host=("h", "h"), gpu=(0, 1), state=("UP", "DOWN"), slots=(16, 16), in_flight=(16, 0),
            up_seconds=(60.0, 0.0), slot_seconds=(960.0, 960.0), busy_seconds=(960.0, 0.0),
            answered=(60, 0), faults=(1, 0), prompt_tokens=(6000, 0), output_tokens=(1200, 0),
        ),
        cards=CardColumns(
            uuid=("GPU-0", "GPU-1")[:cards], host=("h",) * cards, index=(0, 1)[:cards], product=("H100",) * cards,
            utilization=(1.0, 0.0)[:cards], memory_used_bytes=(2**34, 2**33)[:cards],
            power_watts=(100.0, 300.0)[:cards], energy_joules=energies,
            temperature_celsius=(64, 40)[:cards], xid_errors=(0,) * cards, last_xid=(None,) * cards,
        ),
        active=JobColumns(
            job=(job, "other") if job else ("other",), done=(30, 31) if job else (61,),
            failed=(0, 1) if job else (1,), prompt_tokens=(3000, 3000) if job else (6000,),
            output_tokens=(600, 600) if job else (1200,), work_seconds=(50.0, 50.0) if job else (100.0,),
        ),
    )  # fmt: skip


def make_root(root: Path, minutes: int = 30, job: str = "id-notes") -> Layout:
    """Return a root whose history ends `NOW`, with a job that ran in the ten minutes before its last ten."""
    root.mkdir(exist_ok=True)
    layout = Layout.at(root)
    for number in range(minutes + 1):
        time = NOW - 60.0 * (minutes - number)
        is_at_work = NOW - 1200 < time <= NOW - 600
        write_history(root, minute(time, job if is_at_work else "", number))
    make_job(layout.outbox, "notes", NOW - 1200, NOW - 600, job=job)
    return layout
