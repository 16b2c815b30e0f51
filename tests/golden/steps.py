"""What a coordinator does with a spool that it finds: the only place here that knows obcd from inside.

Everything else in this folder goes through the command line.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from obcd.cli.main import run
from obcd.core.request.records import JobSettings
from obcd.results.reading.seed_files import write_response_files
from obcd.spool.folders.layout import Layout
from obcd.spool.inbox.control import put_control
from obcd.spool.inbox.drops import Key
from obcd.spool.intake import recovery
from obcd.spool.intake.acceptance import Accepted, accept_claimed
from obcd.spool.intake.reading import AcceptOrder
from obcd.spool.job import ledger
from obcd.spool.outbox import publication

#: When everything happens that writes the present time, in Unix seconds.
NOW = 1796050000.0
#: Of the server that the data were made with.
ENDPOINT = "127.0.0.1:21434"
MODEL = "llama3.2:latest"
FACTS = {ENDPOINT: publication.EndpointFacts(version="0.33.0", gpu=1, digests={MODEL: "0123456789ab"})}


@dataclass(frozen=True)
class Found:
    """What a coordinator finds at its start, by the ids of jobs."""

    jobs: list[str]
    unpublished: list[str]
    claims: list[str]
    damaged: list[str]


def stop_the_clock(patch: pytest.MonkeyPatch) -> None:
    """Let it be `NOW` for all that asks for the time of day."""
    patch.setattr(time, "time", lambda: NOW)


def open_spool(root: Path) -> Layout:
    """Make the folders that are missing (git keeps no empty ones)."""
    layout = Layout.at(root)
    layout.create(["visits"])
    return layout


def recover(root: Path) -> Found:
    """Look through a spool as at the start of a coordinator."""
    found = recovery.recover(open_spool(root))
    return Found(
        [header.id for header in found.jobs],
        list(found.unpublished),
        [claim.job for claim in found.claims],
        list(found.damaged),
    )


def accept_claims(root: Path, settings: JobSettings) -> list[str]:
    """Take up what was claimed and is no job yet; returns the ids of the jobs that came of it."""
    layout = Layout.at(root)
    accepted = []
    for claim in recovery.recover(layout).claims:
        order = AcceptOrder(drop=claim.drop, job=claim.job, settings=settings, max_line_bytes=2**20, reject_torn=True)
        verdict = accept_claimed(layout, order)
        assert isinstance(verdict, Accepted), verdict
        accepted.append(verdict.header.id)
    return accepted


def settings_of(root: Path, job: str) -> JobSettings:
    """Return what a job asks with."""
    return recovery.load_job(Layout.at(root), job).header.settings


def begin_in_vain(root: Path, job: str) -> None:
    """Begin a job again and again, as coordinators do that end before it has a new result, until it is kept apart."""
    while recovery.begin_job(Layout.at(root), job) is not None:
        pass


def lay_control(root: Path, job: str) -> Path:
    """Lay down the file by which a job is cancelled that is named by its id; returns its path."""
    layout, key = Layout.at(root), Key("", "mixed.jsonl.cancel")
    put_control(layout, key, job)
    return layout.inbox / key.name


def missing(root: Path, job: str) -> list[int]:
    """Read a job to go on with it, and return the ordinals that have no result."""
    done = recovery.load_job(Layout.at(root), job).replay.done
    return [ordinal for ordinal, flag in enumerate(done) if not flag]


def record(root: Path, job: str, records: list[bytes]) -> None:
    """Append results to a job's ledger."""
    folder = root / "jobs" / job
    with contextlib.closing(ledger.LedgerWriter(folder, (folder / ledger.NAME).stat().st_size)) as writer:
        writer.append(records)


def publish(root: Path, job: str) -> Path:
    """Publish a job whose ledger is complete; returns its folder in the outbox."""
    return publication.publish(Layout.at(root), job, FACTS)


def write_files(published: Path, output: Path) -> None:
    """Write a file an answer, as `obcd batch --files` does."""
    write_response_files(published, output)


def obcd(*arguments: object) -> int:
    """Run one command line in this process; returns the exit code."""
    return run([str(argument) for argument in arguments])
