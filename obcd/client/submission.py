"""Submit rows as a job of a daemon, once for each key: `obcd.submit` and `obcd.attach`."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Unpack, cast

from obcd.client.jobs import Job
from obcd.client.place import DropPlace, SpoolPlace
from obcd.client.records import warn
from obcd.client.tables.answer_shape import AnswerShape
from obcd.client.tables.frames import each_row, library_of
from obcd.client.tables.rows import LineWriter, Wish
from obcd.clock import wall
from obcd.config.settings import Settings
from obcd.core.request.rows import ID_FIELD, PLAIN, Reading
from obcd.core.tables.file_format import JSONL, form_of, stem_of
from obcd.errors import InputError, UsageError
from obcd.spool.folders.disk import BLOCK
from obcd.spool.submit.by_content import KeyedContent, find_recorded, submit_content
from obcd.spool.submit.dropping import Submitted, open_source
from obcd.spool.submit.exactly_once import find_state_folder
from obcd.spool.submit.target import drop_name, find_target
from obcd.text import plural, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypedDict

    class RequestOptions(TypedDict, total=False):
        """What may be requested for every row beside its prompt; each is a key of a line (see the manual's Formats)."""

        model: str
        system: str
        options: Mapping[str, object]
        think: bool | str
        n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRows:
    """Rows as the file that is submitted.

    Attributes:
        file: The lines, from the beginning.
        sha256: Their digest.
        ending: The end of the file's name: `.jsonl`, or that of a given file.
        label: What they are, for messages.
        key: The key if the user gives none: made of the content.
        remark: What is wrong with some rows, for people; "" if nothing is.
    """

    file: IO[bytes]
    sha256: str
    ending: str
    label: str
    key: str
    remark: str = ""


def submit(  # noqa: PLR0913 - the options of a request, by name
    rows: Any,
    template: str | None = None,
    *,
    key: str | None = None,
    profile: str = "",
    schema: object = None,
    id_field: str = ID_FIELD,
    keep: Sequence[str] = (),
    again: bool = False,
    config: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    **options: Unpack[RequestOptions],
) -> Job:
    """Submit rows as a job, and return it at once; the daemon answers it, whatever becomes of this program.

    The same key with the same content again is the same job, running or published: a notebook that is run again sends
    nothing twice, even if it was killed at any moment.

        job = obcd.submit(visits, "Summarise: {note}", key="visits-2026-11", profile="clinical")
        job.wait(progress=True).to_pandas()

    Args:
        rows: A table of pandas, polars or Arrow; an iterable of texts, mappings, lists of messages, dataclasses or
            pydantic models, which is read once and in step; or the Path of a prompt file.
        template: Makes the prompt of each row of its fields, as `template` of a profile does: `{age} years: {note}`;
            the field of a row that is a text is `{text}`. None: each row is a text, or a line of obcd with `prompt` or
            `messages`. NaN, NaT, NA and None are missing; a row whose fields do not fill the template fails alone.
        key: The name of the job, e.g. `visits-2026-11`; None: a name made of the content.
        profile: A profile of the daemon; "" is the top level of its configuration.
        schema: The form of the answers: a JSON schema, a file with one, a pydantic model or another type that pydantic
            understands, or `"json"`.
        id_field: The field of a row that is its id; without it the id is the number of the row, from 1.
        keep: Fields that the results repeat.
        again: Submit again what was submitted under this key and whose result was removed, or that was rejected.
        config, root: The configuration and the root of the spool, as `--config` and `--root` of the commands; None: as
            these find them.
        **options: `model`, `system`, `options` (Ollama's, e.g. `{"temperature": 0}`), `think`, `n`: for every row.

    Raises:
        KeyConflict: If a job of this key has other content.
        ResultRemoved: If its result was removed from the outbox, and not `again`.
        InputError: If there is no spool, or the rows cannot become a job; nothing was submitted then.
        UsageError: If arguments do not fit together.
        ConfigurationError: If the configuration is wrong.
        AlreadyRunningError: If another program submits under the same key at this moment.
    """
    spool, shape = SpoolPlace.find(config, root), AnswerShape.of(schema)
    wish = make_wish(template, shape, id_field=id_field, keep=keep, options=options)
    check_wish(spool.settings, profile, wish)
    with prepare(rows, wish, spool.settings.reading_of(profile)) as prepared:
        job, submitted = _submit(spool, prepared, key or prepared.key, profile, again=again)
    if isinstance(submitted, Submitted):
        warn_of_rows(prepared, submitted)
    return replace(job, shape=shape, index=index_of(rows))


def attach(
    key: str,
    *,
    profile: str = "",
    schema: object = None,
    config: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Job:
    """Return the job that was submitted under a key, by this user or visibly by another one.

    Args:
        key, profile, config, root: As for `submit`.
        schema: The form of the answers, if their values should be typed by it.

    Raises:
        InputError: If there is no such job.
    """
    spool = SpoolPlace.find(config, root)
    for ending in ("", f".{JSONL}"):
        target = find_target(spool.layout.inbox, profile, key + ending)
        known = find_recorded(spool.layout, target, find_state_folder())
        if known is not None:
            place = DropPlace(
                layout=spool.layout,
                name=target.path.name,
                profile=profile,
                drop_id=known.drop_id,
                sha256=known.sha256,
            )
            return Job(key=key, profile=profile, place=place, shape=AnswerShape.of(schema), spool=spool)
    raise InputError(
        f"there is no job of the key '{printable(key)}' in {printable(str(spool.layout.root))}: submit it first"
    )


def make_wish(
    template: str | None, shape: AnswerShape, *, id_field: str, keep: Sequence[str], options: Mapping[str, object]
) -> Wish:
    """Return what is requested for every row.

    Raises:
        UsageError: If there is no such option, or the template cannot be read.
    """
    known = ("model", "system", "options", "think", "n")
    if strange := sorted(options.keys() - set(known)):
        raise UsageError(f"there is no argument {strange[0]}=: the keys of every line are {', '.join(known)}")
    line = {name: value for name, value in options.items() if value is not None}
    if shape.format is not None:
        line["format"] = shape.format
    return Wish(
        template=template, id_field=id_field, keep=tuple(keep) if not isinstance(keep, str) else keep, line=line
    )


def check_wish(settings: Settings, profile: str, wish: Wish) -> None:
    """Refuse keys and templates where the profile makes the prompts.

    Raises:
        UsageError: If the profile has a template, whose rows are data alone.
    """
    if not wish.is_plain and settings.reading_of(profile).template is not None:
        raise UsageError(
            f"the profile '{printable(profile)}' has its own template, which makes the prompts of rows: submit the "
            "rows without template=, schema= and other options, or choose another profile"
        )


@contextmanager
def prepare(rows: Any, wish: Wish, reading: Reading) -> Iterator[PreparedRows]:
    """Yield the file that rows become; a prompt file that needs no change is that file itself.

    Rows go through a temporary file: their digest must be known before any of it is submitted.

    Args:
        reading: How the lines of the profile are read.

    Raises:
        InputError: If the rows cannot become a file.
    """
    if isinstance(rows, Path) and wish.is_plain:
        with open_source(rows) as file:
            digest = _digest(file)
            stem = stem_of(rows.name) if form_of(rows.name) is not None else rows.name
            ending = rows.name.removeprefix(stem) or f".{JSONL}"
            yield PreparedRows(
                file=file, sha256=digest, ending=ending, label=str(rows), key=f"{stem}-{digest[:12]}"
            )  # fmt: skip
        return
    writer, hashed = LineWriter(wish), hashlib.sha256()
    given = each_row(rows, wish.wanted, Reading(wish.template) if wish.template is not None else PLAIN)
    try:
        with cast("IO[bytes]", tempfile.TemporaryFile(dir=_temporary_folder())) as file:
            for line in writer.lines(given):
                file.write(line)
                hashed.update(line)
            if not writer.rows:
                raise InputError("there is no row, so nothing was submitted")
            if writer.unfilled == writer.rows:
                raise InputError(
                    f"no row can fill the template, so nothing was submitted; row 1: {writer.reasons[0][1]}"
                )
            file.seek(0)
            sha256 = hashed.hexdigest()
            label = "the rows" if not isinstance(rows, Path) else str(rows)
            yield PreparedRows(
                file=file, sha256=sha256, ending=f".{JSONL}", label=label, key=f"rows-{sha256[:12]}",
                remark=_remark(writer),
            )  # fmt: skip
    except OSError as error:
        raise InputError(f"the rows cannot be written to a temporary file: {error.strerror}") from None


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    for block in iter(partial(file.read, BLOCK), b""):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


def _temporary_folder() -> str | None:
    """Return a folder on a disk: /tmp often lies in memory, and a million rows may be a gigabyte."""
    is_chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return None if is_chosen or not os.access("/var/tmp", os.W_OK) else "/var/tmp"  # noqa: S108 - an unnamed file


def _remark(writer: LineWriter) -> str:
    if not writer.unfilled:
        name = writer.wish.id_field
        return (
            ""
            if writer.has_ids or name == ID_FIELD
            else f"no row has the field `{printable(name)}`, which id_field= names: the number of each row is its id"
        )
    row, why = writer.reasons[0]
    return f"{plural(writer.unfilled, 'row')} of {writer.rows} cannot fill the template and will fail; row {row}: {why}"


def name_of(key: str, prepared: PreparedRows) -> str:
    """Return the name in the inbox of rows with a key.

    Raises:
        UsageError: If the key cannot be part of one.
    """
    if not isinstance(key, str):
        raise UsageError(f"key: a value of the type {printable(type(key).__qualname__)} is no key: give a text")
    name = key if form_of(key) is not None else key + prepared.ending
    try:
        return drop_name(name)
    except InputError:
        raise UsageError(f"key: '{printable(key)}' cannot be the name of a job: use letters, digits, - and _") from None


def _submit(
    spool: SpoolPlace, prepared: PreparedRows, key: str, profile: str, *, again: bool
) -> tuple[Job, Submitted | None]:
    settings, layout = spool.settings, spool.layout
    name = name_of(key, prepared)
    reading = settings.reading_of(profile)
    target = find_target(layout.inbox, profile, name, reading, settings.accepts(profile))
    content = KeyedContent(key=key, file=prepared.file, sha256=prepared.sha256, label=prepared.label)
    outcome = submit_content(
        layout, content, target, settings.spool.max_line_bytes, find_state_folder(),
        again=again, kept_since=settings.spool.kept_since(wall()) or 0.0,
    )  # fmt: skip
    place = DropPlace(
        layout=layout, name=target.path.name, profile=profile, drop_id=outcome.drop_id, sha256=prepared.sha256
    )
    job = Job(key=key, profile=profile, place=place, spool=spool)
    return job, outcome if isinstance(outcome, Submitted) else None


def warn_of_rows(prepared: PreparedRows, submitted: Submitted) -> None:
    """Warn of rows that will fail, with the reason of the first."""
    remark = prepared.remark
    if not remark and submitted.bad:
        line, why = submitted.bad_lines[0]
        remark = f"{plural(submitted.bad, 'row')} will fail; row {line}: {why}"
    if remark:
        warn(remark)


def index_of(rows: object) -> Any:
    """Return the index of a table of pandas; None for other rows."""
    return rows.index if library_of(rows) == "pandas" and hasattr(rows, "index") else None
