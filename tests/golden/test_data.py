"""Spools and outboxes that an earlier version wrote (see `data/README.md`): today's code makes the same bytes of them.

Expected bytes lie beside them. Two things in them are not what was written: the time of publication, which the clock
is stopped for, and the version that published, for which a placeholder stands.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from obcd import __version__
from obcd.errors import ExitCode
from tests.golden import steps
from tests.golden.drops import configure
from tests.golden.golden import FOLDER, IS_WRITING, assert_bytes, assert_golden, copy
from tests.golden.steps import obcd

DATA = FOLDER / "data"
#: {name: id} of the jobs in the spools.
JOBS = {
    json.loads(path.read_bytes())["name"].partition(".")[0]: path.parent.name
    for path in sorted(DATA.glob("spools/complete/jobs/*/job.json"))
}
VISITS = JOBS["visits"]


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    steps.stop_the_clock(monkeypatch)


@pytest.fixture
def spool(tmp_path: Path) -> Callable[[str], Path]:
    """Return what lays a copy of one of the spools."""

    def lay(name: str) -> Path:
        root = tmp_path / "root"
        steps.open_spool(root)
        return copy(DATA / "spools" / name, root)

    return lay


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """Return a root whose outbox holds everything that was published."""
    root = tmp_path / "root"
    steps.open_spool(root)
    copy(DATA / "outbox", root / "outbox")
    for name in ("mixed", "asked"):
        copy(DATA / "expected" / name, root / "outbox" / name)
    copy(DATA / "expected" / "visits", root / "outbox" / "visits" / "visits")
    return root


def neutral(content: bytes) -> bytes:
    """Return what a file says whichever version wrote it."""
    return content.replace(f'"obcd": "{__version__}"'.encode(), b'"obcd": "VERSION"')


def assert_published(folder: Path, name: str, *, is_made: bool = True) -> None:
    """Assert that a folder holds the expected files, byte for byte.

    Args:
        is_made: Whether the manifest was written just now; else an earlier version wrote it.
    """
    expected = DATA / "expected" / name
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    if is_made:
        found["manifest.json"] = neutral(found["manifest.json"])
    if IS_WRITING and is_made:
        expected.mkdir(parents=True, exist_ok=True)
        for path, content in found.items():
            (expected / path).write_bytes(content)
    wanted = {path.name: path.read_bytes() for path in expected.iterdir()}
    if not is_made:  # it stays as the earlier version wrote it, without keys that are younger
        wanted["manifest.json"] = (DATA / "spools" / "swept" / "jobs" / JOBS[name] / "manifest.json").read_bytes()
    assert found == wanted


def place(name: str) -> str:
    """Return where a job of this name is published, below the outbox."""
    return "visits/visits" if name == "visits" else name


# --- recovery and publication -----------------------------------------------------------------------------------------


def test_complete_ledgers_are_found_and_published_as_ever(spool: Callable[[str], Path]) -> None:
    root = spool("complete")

    found = steps.recover(root)

    assert found == steps.Found(sorted(JOBS.values()), [], [], [])
    for name, job in JOBS.items():
        assert steps.missing(root, job) == []
        folder = steps.publish(root, job)
        assert folder == root / "outbox" / place(name)
        assert_published(folder, name)
    assert list((root / "jobs").iterdir()) == list((root / "inbox" / ".obcd" / "claim").iterdir()) == []


def test_torn_ledger_is_cut_and_completed_by_the_missing_records(spool: Callable[[str], Path]) -> None:
    root, job = spool("torn"), JOBS["mixed"]
    ledger = (DATA / "spools" / "complete" / "jobs" / job / "ledger.log").read_bytes()
    records = {json.loads(line[9:])["ordinal"]: line[9:] for line in ledger.splitlines()}

    found = steps.recover(root)
    left = steps.missing(root, job)

    assert found == steps.Found([job], [], [], [])
    assert left == [5, 6, 15, 18, 20, 21, 22]
    cut = (root / "jobs" / job / "ledger.log").read_bytes()
    assert cut == b"".join(ledger.splitlines(keepends=True)[:15])
    steps.record(root, job, [records[ordinal] for ordinal in left])
    assert_published(steps.publish(root, job), "mixed")


@pytest.mark.parametrize(
    ("name", "found", "is_made"),
    [
        pytest.param("half", steps.Found([VISITS], [], [], []), True, id="some outputs are written"),
        pytest.param("outputs", steps.Found([VISITS], [], [], []), True, id="outputs are written, no manifest"),
        pytest.param("manifest", steps.Found([], [VISITS], [], []), False, id="a manifest, working files left"),
        pytest.param("swept", steps.Found([], [VISITS], [], []), False, id="only the rename is missing"),
    ],
)
def test_publication_that_was_broken_off_ends_in_the_same_bytes(
    spool: Callable[[str], Path], name: str, found: steps.Found, is_made: bool
) -> None:
    root = spool(name)

    assert steps.recover(root) == found

    assert_published(steps.publish(root, VISITS), "visits", is_made=is_made)
    assert list((root / "jobs").iterdir()) == []


def test_published_job_is_published_again_as_the_same_folder(spool: Callable[[str], Path]) -> None:
    root = spool("swept")
    folder = steps.publish(root, VISITS)

    assert steps.publish(root, VISITS) == folder

    assert_published(folder, "visits", is_made=False)


def test_claim_becomes_the_job_that_it_became(spool: Callable[[str], Path]) -> None:
    root, whole = spool("claimed"), copy(DATA / "spools" / "complete", Path("whole"))

    assert steps.recover(root) == steps.Found([], [], [VISITS], [])
    assert steps.accept_claims(root, steps.settings_of(whole, VISITS)) == [VISITS]

    accepted, before = root / "jobs" / VISITS, DATA / "spools" / "complete" / "jobs" / VISITS
    for name in ("input.jsonl", "index", "firsts"):
        assert (accepted / name).read_bytes() == (before / name).read_bytes()
    header, expected = (json.loads((folder / "job.json").read_bytes()) for folder in (accepted, before))
    assert header.pop("accepted_at") == steps.NOW
    assert header.pop("uid") == (accepted / "input.jsonl").stat().st_uid
    header["settings"] = {key: header["settings"][key] for key in expected["settings"]}  # newer ones may be added
    assert list(header) == [key for key in expected if key not in ("accepted_at", "uid")]
    assert header.items() <= expected.items()


def test_records_are_read_whatever_the_order_of_their_keys(spool: Callable[[str], Path]) -> None:
    root, job = spool("complete"), JOBS["mixed"]
    ledger = root / "jobs" / job / "ledger.log"
    records = [json.loads(line[9:]) for line in ledger.read_bytes().splitlines()]
    turned = [json.dumps(dict(reversed(item.items()))).encode() for item in records]
    ledger.write_bytes(b"".join(b"%08x %b\n" % (zlib.crc32(record), record) for record in turned))

    folder = steps.publish(root, job)

    for name in ("responses.jsonl", "errors.jsonl"):
        found, expected = (
            [json.loads(line) for line in (path / name).read_bytes().splitlines()]
            for path in (folder, DATA / "expected" / "mixed")
        )
        assert found == expected


# --- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", JOBS)
def test_retry_drops_the_failed_lines_byte_for_byte(outbox: Path, name: str) -> None:
    config, folder = configure(Path.cwd(), steps.ENDPOINT), outbox / "outbox" / place(name)

    assert obcd("retry", folder, "--root", outbox, "--config", config) == ExitCode.DONE

    dropped = outbox / "inbox" / Path(place(name)).with_name(f"{name}.retry.jsonl")
    assert dropped.read_bytes() == (folder / "retry.jsonl").read_bytes()
    (marker,) = dropped.parent.glob(f"{dropped.name}?*")
    document = json.loads(marker.read_bytes())
    assert document.pop("drop_id")
    assert_golden(f"data/documents/{name}.marker.json", {"name": marker.name, "document": document})


def test_job_that_was_tried_again_is_not_tried_again(outbox: Path) -> None:
    config = configure(Path.cwd(), steps.ENDPOINT)

    assert obcd("retry", outbox / "outbox" / "notes", "--root", outbox, "--config", config) == ExitCode.DONE

    assert list((outbox / "inbox").glob("*.jsonl")) == []


# --- verify -----------------------------------------------------------------------------------------------------------


def test_verify_says_the_same_of_all_that_was_published(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(outbox)

    assert obcd("verify", "--json", "outbox") == ExitCode.DONE

    assert_bytes("verify.jsonl", capsysbinary.readouterr().out)


@pytest.mark.parametrize("name", ["mixed", "asked"])
@pytest.mark.parametrize("file", ["responses.jsonl", "errors.jsonl", "retry.jsonl", "input.jsonl"])
def test_verify_finds_a_line_that_is_missing(outbox: Path, name: str, file: str) -> None:
    path = outbox / "outbox" / name / file
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    assert obcd("verify", outbox / "outbox" / name) == ExitCode.PARTIAL


# --- merge, print, vectors --------------------------------------------------------------------------------------------

FIELDS = "id,line,prompt,index,model,endpoint,finished_at,extra"
MERGES = {
    "notes": ("notes",),
    "notes.with": ("notes", "--with", FIELDS),
    "visits": ("visits/visits", "--with", "id"),
    "mixed.text": ("mixed", "--text", "--with", FIELDS),
    "asked.text": ("asked", "--text", "--with", FIELDS),
    "several": ("notes", "remembered/r2", "nightly/again", "--text"),
}


@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "sqlite", "parquet"])
def test_merge_writes_the_same_document(
    outbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.chdir(outbox / "outbox")
    document = tmp_path / f"{name}.{kind}"

    code = obcd("merge", *MERGES[name], "-o", document, "--format", kind)

    assert code == (ExitCode.DONE if name == "several.text" else CODES[name])
    readers = {"sqlite": read_sqlite, "parquet": read_parquet}
    if kind in readers:
        assert_golden(f"data/documents/{document.name}.json", readers[kind](document))
    else:
        assert_bytes(document.name, document.read_bytes())


#: {name of a merge: what it ends as}; what failed is left out, and said.
CODES = dict.fromkeys(MERGES, ExitCode.PARTIAL)


def read_sqlite(path: Path) -> dict[str, Any]:
    """Return the tables of a database: how they are made, and their rows."""
    with closing(sqlite3.connect(path)) as database:
        made = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return {
            name: {"sql": sql, "rows": database.execute(f'SELECT * FROM "{name}"').fetchall()} for name, sql in made
        }


def read_parquet(path: Path) -> dict[str, Any]:
    """Return the types of the columns, and the rows."""
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    table = parquet.read_table(path)
    return {"columns": {field.name: str(field.type) for field in table.schema}, "rows": table.to_pylist()}


@pytest.mark.parametrize("name", ["notes", "visits/visits", "mixed", "asked", "remembered/r2"])
def test_print_shows_the_same_objects(
    outbox: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], name: str
) -> None:
    monkeypatch.chdir(outbox / "outbox")

    obcd("print", "--json", name)

    assert_bytes(f"{Path(name).name}.print.jsonl", capsysbinary.readouterr().out)


@pytest.mark.parametrize("name", ["mixed", "asked", "remembered/r2"])
def test_vectors_are_written_as_the_same_rows(outbox: Path, tmp_path: Path, name: str) -> None:
    document = tmp_path / f"{Path(name).name}.vectors.jsonl"

    obcd("vectors", outbox / "outbox" / name, "-o", document)

    assert_bytes(document.name, document.read_bytes())
