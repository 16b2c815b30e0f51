"""`obcd.batch`: answer rows without a daemon, by an `obcd batch` below this process that ends with it.

output/.obcd/rows/<key>.jsonl     the rows, while their job runs
output/<key>/                     its results
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Unpack

from obcd import parent_death
from obcd.client.jobs import LOOK_SECONDS, Job
from obcd.client.place import DropPlace
from obcd.client.submission import PreparedRows, check_wish, index_of, make_wish, name_of, prepare
from obcd.client.tables.answer_shape import AnswerShape
from obcd.client.watching import progress_pipe
from obcd.client.watching.progress import find_progress_view
from obcd.client.watching.progress_pipe import ProgressPipe
from obcd.clock import monotonic
from obcd.config.loading import find_configuration, load_settings
from obcd.coordinator.batch import batch_layout
from obcd.core.request.rows import ID_FIELD
from obcd.errors import (
    AlreadyRunningError,
    ConfigurationError,
    ExitCode,
    InputError,
    KeyConflict,
    NoEndpointError,
    ObcdError,
)
from obcd.spool.folders import disk
from obcd.text import printable

if TYPE_CHECKING:
    from obcd.client.submission import RequestOptions

#: Seconds to wait for an earlier run in the same folder, which ends by itself when the program that started it is gone.
EARLIER_SECONDS = 60.0
#: Bytes of the child's messages that are read for the sentence of an error.
MOST_SAID = 2**14
#: {exit code of `obcd batch`: the error that it is}
ERRORS: Mapping[int, type[ObcdError]] = {
    ExitCode.CONFIGURATION: ConfigurationError,
    ExitCode.INPUT: InputError,
    ExitCode.NO_ENDPOINT: NoEndpointError,
    ExitCode.ALREADY_RUNNING: AlreadyRunningError,
}


def batch(  # noqa: PLR0913 - the options of a request, by name
    rows: Any,
    template: str | None = None,
    *,
    key: str | None = None,
    output: str | os.PathLike[str] = "responses",
    profile: str = "",
    schema: object = None,
    id_field: str = ID_FIELD,
    keep: Sequence[str] = (),
    progress: bool | None = None,
    config: str | os.PathLike[str] | None = None,
    **options: Unpack[RequestOptions],
) -> Job:
    """Answer rows without a daemon, by the endpoints of the configuration; return the finished job.

    The work is done by processes below this one, and ends with it. The same rows with the same key again continue what
    was interrupted, and return what was answered.

        job = obcd.batch(visits, "Summarise: {note}", key="visits-2026-11", output="answers")

    Args:
        rows, template, key, profile, schema, id_field, keep, options: As for `submit`.
        output: The folder of the answers.
        progress: As for `Job.wait`.
        config: The configuration; None: `config.toml` of the working folder, else as the commands find it.

    Raises:
        KeyConflict: If a job of this key in this folder has other content.
        NoEndpointError: If no endpoint is reachable, or none has the model.
        AlreadyRunningError: If another program works in the folder.
        InputError, UsageError, ConfigurationError: As `submit`.
    """
    settings = load_settings(find_configuration(_local_configuration(config)))
    shape, folder = AnswerShape.of(schema), Path(output).absolute()
    wish = make_wish(template, shape, id_field=id_field, keep=keep, options=options)
    check_wish(settings, profile, wish)
    with prepare(rows, wish, settings.reading_of(profile)) as prepared:
        name = name_of(key or prepared.key, prepared)
        place = DropPlace(layout=batch_layout(folder), name=name, profile="", sha256=prepared.sha256)
        job = Job(key=key or prepared.key, profile="", place=place, shape=shape, index=index_of(rows))
        source = folder / ".obcd" / "rows" / name
        _check_key(job, prepared, source)
        was_there = source.exists()
        if place.find_published() is None:
            _keep(prepared, source)
    if source.exists():
        try:
            _run(job, source, folder, profile, config, progress)
        except InputError:
            if not was_there:  # it never became a job: the key is free for rows that are in order
                source.unlink(missing_ok=True)
            raise
        if place.find_published() is not None:
            source.unlink(missing_ok=True)
    return job


def _local_configuration(config: str | os.PathLike[str] | None) -> str | None:
    if config is not None:
        return os.fspath(config)
    return "config.toml" if os.path.isfile("config.toml") else None


def _check_key(job: Job, prepared: PreparedRows, source: Path) -> None:
    """Refuse a key that other content has, running or published.

    Raises:
        KeyConflict: If there is such a job.
    """
    recorded = ""
    other = replace(job.place, sha256="").find_published()
    if source.exists():
        recorded = disk.file_sha256(source)
    elif other is not None and job.place.find_published() is None:
        recorded = str(other[1].get("input", {}).get("sha256", ""))
    if recorded and recorded != prepared.sha256:
        raise KeyConflict(
            f"the key '{printable(job.key)}' was used for other content: it has the SHA-256 {recorded[:12]}…, and the "
            f"content that is submitted now has {prepared.sha256[:12]}…: give another key",
            key=job.key,
            given=prepared.sha256,
            recorded=recorded,
        )


def _keep(prepared: PreparedRows, source: Path) -> None:
    """Write the rows whole; the job is theirs by this path."""
    try:
        source.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with disk.whole_file(source) as file:
            shutil.copyfileobj(prepared.file, file, disk.BLOCK)
    except OSError as error:
        raise InputError(f"the rows cannot be written into {printable(str(source.parent))}: {error.strerror}") from None


def _run(
    job: Job, source: Path, output: Path, profile: str, config: str | os.PathLike[str] | None, progress: bool | None
) -> None:
    command = [sys.executable, "-m", "obcd", "batch", str(source), "--output-dir", str(output)]
    command += ["--profile", profile] if profile else []
    command += ["--config", os.fspath(config)] if config is not None else []
    deadline = monotonic() + EARLIER_SECONDS
    while True:
        with tempfile.TemporaryFile() as said:
            code = _watch(job, command, said, progress)
            said.seek(0)
            words = said.read(MOST_SAID).decode("utf-8", "replace")
        if code != ExitCode.ALREADY_RUNNING or monotonic() >= deadline:
            break
        time.sleep(LOOK_SECONDS)
    if code in (ExitCode.DONE, ExitCode.PARTIAL):
        return
    if code in (ExitCode.INTERRUPTED, -signal.SIGTERM):
        raise KeyboardInterrupt
    lines = [line.removeprefix("obcd: ") for line in words.splitlines() if line.strip()]
    raise ERRORS.get(code, ObcdError)(lines[-1] if lines else f"obcd batch ended with {code}")


def _watch(job: Job, command: Sequence[str], said: IO[bytes], progress: bool | None) -> int:
    """Run the command to its end, and show its progress; an interrupt ends it too."""
    with ProgressPipe() as pipe:
        variables = {parent_death.VARIABLE: str(os.getpid()), progress_pipe.VARIABLE: str(pipe.writing)}
        environment = {**os.environ, **variables, "PYTHONSAFEPATH": "1"}
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, pass_fds=[pipe.writing]
        )
        try:
            with find_progress_view(job.key, 0, wanted=progress, not_yet="starting") as shown:
                while True:
                    try:
                        return child.wait(LOOK_SECONDS)
                    except subprocess.TimeoutExpired:
                        shown.show(pipe.newest())
        except BaseException:
            child.send_signal(signal.SIGINT)  # a notebook interrupts only the kernel
            child.wait()
            raise
