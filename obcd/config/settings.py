"""The configuration as frozen models: every key, its default and its limits. Unknown keys are errors.

The file of the seed (`model`, `system_message`, `[ollama_instances]`) is a valid configuration without changes.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from obcd.config.descriptions import add_descriptions
from obcd.config.endpoints import DEFAULT_PORT, Endpoint, parse_endpoint
from obcd.config.notify_values import NotifyPlan, NotifyWays, checked_recipient, checked_webhook
from obcd.core.forecasting.windows import Windows
from obcd.core.request.lines import OPTION_RANGES, check_options, check_think
from obcd.core.request.records import MAX_COUNT, JobSettings, canonical_model
from obcd.core.request.rows import ID_FIELD, PLAIN, Reading
from obcd.core.request.templates import MAX_FIELD_LENGTH, parse_template
from obcd.core.schema.schemas import check_schema
from obcd.core.schema.wrapping import unwrapped, why_no_schema
from obcd.core.tables.file_format import is_delimiter
from obcd.core.user_limits import LINE_BYTES, UserLimits
from obcd.errors import LineError
from obcd.secret import Secret


def _checked_options(value: object) -> object:
    try:
        options = {} if value is None else check_options(value)
    except LineError as error:
        raise ValueError(str(error)) from None
    for key in ("num_ctx", "num_predict"):
        if key in options:  # here it would take precedence over the key beside `options`, a profile's included
            raise ValueError(f"`{key}` has its own key beside `options`: set it there")
    return value


def _checked_think(value: object) -> object:
    try:
        return check_think(value)
    except LineError as error:
        raise ValueError(str(error)) from None


def _checked_slots(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024
    if value != "auto" and not is_count:
        raise ValueError(f'must be "auto" or a number from 1 to 1024, not {value!r:.60}')
    return value


def _checked_context(value: object) -> object:
    is_length = isinstance(value, int) and not isinstance(value, bool) and MIN_CONTEXT <= value <= MAX_CONTEXT
    if value not in (None, "auto") and not is_length:
        raise ValueError(f'must be "auto" or a number from {MIN_CONTEXT} to {MAX_CONTEXT}, not {value!r:.60}')
    return value


def _checked_endpoint(name: str) -> str:
    parse_endpoint(name)
    return name


def _checked_profile(name: str) -> str:
    if not name or not name.isprintable() or "/" in name or name.startswith(".") or len(name.encode()) > 100:
        raise ValueError("it cannot be a profile: its name must be valid as the name of a folder")
    return name


def _checked_template(value: str) -> str:
    parse_template(value)
    return value


def _listed_window(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _checked_window(value: tuple[str, ...]) -> tuple[str, ...]:
    Windows.parse(value)
    return value


def _checked_delimiter(value: str) -> str:
    if not is_delimiter(value):
        raise ValueError(f'must be one character, such as ";", and no quote or line break, not {value!r:.60}')
    return value


def _checked_listen(value: str) -> str:
    """Check a place to listen at that nobody on the network reaches.

    Raises:
        ValueError: With the reason.
    """
    if value.startswith("unix:"):
        if not value.startswith("unix:/") or len(os.fsencode(value)) > MAX_SOCKET_BYTES:
            raise ValueError(
                f"a unix socket has an absolute path of at most 107 bytes: unix:/run/obcd-api/socket, not {value!r:.60}"
            )
        return value
    try:
        endpoint = parse_endpoint(value)
    except ValueError:
        raise ValueError(f'must be "127.0.0.1:PORT" or "unix:/PATH", not {value!r:.60}') from None
    if endpoint.prefix or endpoint.url != f"http://{value}":
        raise ValueError(f'must be "127.0.0.1:PORT" or "unix:/PATH", not {value!r:.60}')
    if not endpoint.is_loopback:
        raise ValueError(
            f"{value!r:.60} is reached from other machines, and without TLS anybody on the way can read tokens and "
            "prompts: listen on 127.0.0.1 or a unix socket, behind a proxy that has TLS"
        )
    return value


#: Longest `unix:PATH`: a path in `sockaddr_un` has 107 bytes, unix(7).
MAX_SOCKET_BYTES = 107 + len("unix:")
#: Most repairs of one answer: a model that ignores ten corrections ignores the next one too.
MAX_REPAIRS = 10
#: Longest configuration or schema, in bytes: reading it again takes a moment of the coordinator's loop.
MAX_FILE_BYTES = 2**20

DAY_SECONDS = 86400.0

#: {key of a job whose absence has a meaning: the value that states this absence explicitly}. TOML has no null, and a
#: key that a profile leaves out comes from the top level.
NONE = {
    "system_message": False, "schema": False, "format": False, "template": False, "options": False, "aliases": False,
    "think": "auto", "quotes": "auto",
}  # fmt: skip

#: The limits of a context, in tokens (Ollama makes 4 of 0), and the context where nothing else is set.
MIN_CONTEXT, MAX_CONTEXT = OPTION_RANGES["num_ctx"]
CONTEXT = 8192

Options = Annotated[dict[str, object], BeforeValidator(_checked_options)]
Think = Annotated[bool | str | None, BeforeValidator(_checked_think)]
Template = Annotated[str, AfterValidator(_checked_template)]
#: Aliases of models: {the name in the lines: the model that gets the request}.
Aliases = dict[Annotated[str, Field(min_length=1)], Annotated[str, Field(min_length=1)]]
FieldName = Annotated[str, Field(min_length=1, max_length=MAX_FIELD_LENGTH)]
#: The file formats that are accepted beside JSONL, and those packed by gzip, xz or zstd (`file_format.WORDS`).
Accept = tuple[Literal["jsonl", "json", "csv", "tsv", "parquet", "gz", "xz", "zst"], ...]
#: Names of parameters and keys that are dropped from a line if they cannot be honoured.
Ignore = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(max_length=100)]
Delimiter = Annotated[str, AfterValidator(_checked_delimiter)]
Repeat = Literal["run", "skip"]
Digest = Literal["same", "any"]
Thoughts = Literal["move", "keep"]
Empty = Literal["keep", "retry", "fail"]
PrefixAffinity = Literal["auto", "off"]
#: Windows of the week (`obcd.core.forecasting.windows`): one text, or several.
Window = Annotated[tuple[str, ...], BeforeValidator(_listed_window), AfterValidator(_checked_window)]
Slots = Annotated[int | Literal["auto"], BeforeValidator(_checked_slots)]
Context = Annotated[int | Literal["auto"], BeforeValidator(_checked_context)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
Listen = Annotated[str, AfterValidator(_checked_listen)]
EndpointName = Annotated[str, AfterValidator(_checked_endpoint)]
ProfileName = Annotated[str, AfterValidator(_checked_profile)]


class Table(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, json_schema_extra=add_descriptions)


class Instance(Table):
    """One value of `[ollama_instances]`: `0`, or `{gpu = 0, slots = 16}`.

    Attributes:
        token_file: A file that holds a bearer token; `obcd.config.tokens` reads it.
    """

    gpu: int = Field(0, ge=0, description="Index of the GPU behind the endpoint; it is only shown.")
    slots: Slots | None = Field(None, description="Requests in flight here; left out: `slots` of `[requests]`.")
    token_file: str | None = Field(
        None, min_length=1, description="A file of one line: the bearer token that is sent with every request."
    )
    window: Window = Field(
        (), description="When it may be used, as the key `window` at the top; left out: at any time."
    )
    yields: bool = Field(
        False,
        alias="yield",
        description="Whether people use the server too: while they do, it gets one request at a time, or less.",
    )


class Spool(Table):
    """`[spool]`: the folders, when a file counts as complete, who sees the results, and for how long.

    Attributes:
        per_user: Whether only the submitter can read the results of a job.
        user_jobs, user_bytes: The unfinished jobs that one submitter may have, and their bytes; 0: no limit.
        max_file_bytes: The largest file that is accepted; 0: no limit.
        max_expanded_bytes: The largest size of a packed file or CSV as JSON lines.
        keep_days: How long results stay in the outbox; 0: for ever.
        min_free_bytes: Nothing new is started below this; None: as `spool.folders.disk_space` decides, which knows the
            size of the disk.
    """

    root: str | None = None
    inbox: str | None = None
    settle_seconds: float = Field(5.0, ge=0, le=3600)
    incomplete_hold_seconds: float = Field(600.0, ge=0, le=86400)
    require_marker: bool = False
    max_line_bytes: int = Field(LINE_BYTES, ge=1024, le=2**28)
    active_jobs: int = Field(32, ge=1, le=1024)
    per_user: bool = False
    keep_days: float = Field(0.0, ge=0, le=36500)
    min_free_bytes: int | None = Field(None, ge=0)
    user_jobs: int = Field(0, ge=0)
    user_bytes: int = Field(0, ge=0)
    max_file_bytes: int = Field(0, ge=0)
    max_expanded_bytes: int = Field(2**34, ge=1024)

    @property
    def limits(self) -> UserLimits:
        """The limits of one submitter."""
        return UserLimits(self.user_jobs, self.user_bytes, self.max_file_bytes)

    def kept_since(self, now: float) -> float:
        """Return the time from which on results are kept, in Unix seconds; 0: all are kept."""
        return max(0.0, now - self.keep_days * DAY_SECONDS) if self.keep_days else 0.0


class Requests(Table):
    """`[requests]`: how the requests of every job are sent, unless its profile says otherwise.

    Attributes:
        num_ctx: The context of each request, in tokens; `auto`: chosen for each job when it is accepted.
        num_ctx_max: The longest context that may be chosen.
        digest: Whether all answers of a job come from the same weights of a model.
        require_gpu: Whether an endpoint is left out if the model is not completely on its GPU.
        n: How many answers each prompt gets.
        repairs: How often a request is sent again because its answer does not fit its schema.
        prefix_affinity: Whether requests with the same beginning are sent one after another to the same endpoint.
        pull: Whether hosts that lack a model of the configuration fetch it when a job needs it.
    """

    num_ctx: Context = CONTEXT
    num_ctx_max: int = Field(32768, ge=MIN_CONTEXT, le=MAX_CONTEXT)
    num_predict: int = Field(2048, ge=1, le=2**24)
    options: Options = {}
    attempts: int = Field(4, ge=1, le=100)
    slots: Slots = "auto"
    digest: Digest = "same"
    prefix_affinity: PrefixAffinity = "auto"
    n: int = Field(1, ge=1, le=MAX_COUNT)
    repairs: int = Field(2, ge=0, le=MAX_REPAIRS)
    require_gpu: bool = False
    pull: bool = False
    connect_timeout_seconds: Seconds = 5.0
    load_timeout_seconds: Seconds = 900.0
    request_timeout_seconds: Seconds = 600.0
    drain_seconds: float = Field(60.0, ge=0, le=86400)

    @property
    def usual_context(self) -> int:
        """The context for requests that do not name one, which are not obcd's."""
        return CONTEXT if self.num_ctx == "auto" else self.num_ctx


class Host(Table):
    """`[host]`: the servers of this machine, one per GPU; read by `obcd host`.

    Attributes:
        gpus: `"all"`, `"given"` (those that Slurm, Ray or CUDA_VISIBLE_DEVICES gives), a list of indices (nvidia-smi's)
            and UUIDs (`GPU-…`, `MIG-…`), or 0 for one server on the CPU.
        name: How the coordinator's host reaches this one, in `obcd host endpoints`; None: `bind`, or the host name.
        context_length: Tokens for requests that do not name a context (obcd's own always do); None:
            `[requests] num_ctx`, or 8192 if that is `auto`.
        cache_ram_mib: Host memory that each runner may fill with old prompts.
        environment: Set last; variables that obcd itself decides (ports, cards, slots, models) are refused.
        yields: Whether people use the servers too: their endpoints yield, as with `yield` of `[ollama_instances]`.
    """

    gpus: Literal["all", "given", 0] | list[Annotated[int, Field(ge=0)] | str] = "all"
    vendor: Literal["nvidia", "amd"] = "nvidia"
    bind: str = Field("127.0.0.1", min_length=1)
    base_port: int = Field(11432, ge=1, le=65535)
    num_parallel: int = Field(16, ge=1, le=1024)
    keep_alive: str = Field("-1", min_length=1)
    context_length: int | None = Field(None, ge=16, le=2**24)
    cache_ram_mib: int = Field(2048, ge=0)
    models: str | None = Field(None, min_length=1)
    ollama: str = Field("ollama", min_length=1)
    name: str | None = Field(None, min_length=1)
    environment: dict[str, str] = {}
    yields: bool = Field(False, alias="yield")


class Cluster(Table):
    """`[cluster]`: hosts that register their endpoints; read by the coordinator.

    Attributes:
        hosts: The hosts folder; None: only the endpoints of the configuration are used.
        users: Whose records count, by name or number; None: those of the daemon's user and root.
        max_endpoints: Most endpoints, those of the configuration included, which always count.
    """

    hosts: str | None = Field(None, min_length=1)
    users: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, strict=False, min_length=1)
    max_endpoints: int = Field(128, ge=1, le=4096)

    @property
    def folder(self) -> Path | None:
        """The hosts folder as an absolute path."""
        return Path(self.hosts).expanduser().absolute() if self.hosts is not None else None


class Api(Table):
    """`[api]`: OpenAI's Files and Batches over HTTP; read by `obcd api` and the coordinator.

    Attributes:
        listen: Where it listens: `127.0.0.1:11480`, or `unix:/run/obcd-api/socket`.
        user: The user that `obcd api` runs as, who may drop files for the users of tokens.
        tokens_file: The file with the tokens' digests; None: `api/tokens` in the root.
        profile: The profile of its batches; "" for none.
        max_upload_bytes: The largest file that is taken.
        user_bytes: What the files of one user may take in total.
        keep_days: How long uploads and finished batches are kept.
    """

    enabled: bool = False
    listen: Listen = "127.0.0.1:11480"
    user: str = Field("obcd-api", min_length=1)
    tokens_file: str | None = Field(None, min_length=1)
    profile: str = ""
    max_upload_bytes: int = Field(2**30, ge=1024)
    user_bytes: int = Field(10 * 2**30, ge=1024)
    keep_days: float = Field(30.0, gt=0, le=36500)


class Page(Table):
    """`[page]`: the status page; read by `obcd page`.

    Attributes:
        socket: Path of its unix socket; None: in the runtime folder of the page.
        socket_group: The group whose members may connect there.
        tcp_port: The port of TCP; None: no TCP.
        tcp_bind: The address of TCP.
        allowed_hosts: Names by which browsers may ask for the page, beside those of this machine.
        show_names: Whether names of jobs and submitters are shown.
    """

    socket: str | None = Field(None, min_length=1)
    socket_group: str = Field("obcd", min_length=1)
    tcp_port: int | None = Field(None, ge=1, le=65535)
    tcp_bind: str = Field("127.0.0.1", min_length=1)
    allowed_hosts: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), strict=False)
    show_names: bool = True


def _checked_argument(value: str) -> str:
    if "\0" in value:
        raise ValueError("an argument of a command holds no NUL")
    return value


#: A program and its arguments; no shell reads them.
Command = Annotated[tuple[Annotated[str, AfterValidator(_checked_argument)], ...], Field(max_length=100)]
Events = tuple[
    Literal["job.published", "job.failures", "job.quarantined", "job.deadline", "endpoint.lost", "disk.full"], ...
]
Webhook = Annotated[str, AfterValidator(checked_webhook)]
Recipients = Annotated[tuple[Annotated[str, AfterValidator(checked_recipient)], ...], Field(max_length=20)]


class ProfileNotifications(Table):
    """`[profiles.NAME.notify]`: where notifications of a profile's jobs go. A key that is left out is `[notify]`'s.

    Attributes:
        webhook: False: none.
    """

    events: Events | None = Field(None, strict=False)
    command: Command | None = Field(None, strict=False)
    webhook: Literal[False] | Webhook | None = None
    webhook_secret_file: str | None = Field(None, min_length=1)
    mail_to: Recipients | None = Field(None, strict=False)

    @model_validator(mode="after")
    def _has_program(self) -> ProfileNotifications:
        _check_program(self.command)
        return self


class Notifications(Table):
    """`[notify]`: what is sent when something happens, and where; nothing while no way is configured."""

    events: Events = Field(get_args(get_args(Events)[0]), strict=False)
    endpoint_minutes: float = Field(10.0, gt=0, le=7 * 1440)
    command: Command = Field((), strict=False)
    command_seconds: float = Field(60.0, gt=0, le=3600)
    webhook: Webhook | None = None
    webhook_secret_file: str | None = Field(None, min_length=1)
    mail_to: Recipients = Field((), strict=False)
    mail_from: str | None = None
    sendmail: str = "/usr/sbin/sendmail"

    @field_validator("mail_from")
    @classmethod
    def _one_sender(cls, value: str | None) -> str | None:
        return None if value is None else checked_recipient(value)

    @field_validator("sendmail")
    @classmethod
    def _whole_path(cls, value: str) -> str:
        if not value.startswith("/") or "\0" in value:
            raise ValueError(f"must be the whole path of the program, e.g. /usr/sbin/sendmail, not {value!r:.60}")
        return value

    @model_validator(mode="after")
    def _has_program(self) -> Notifications:
        _check_program(self.command)
        return self


def _check_program(command: tuple[str, ...] | None) -> None:
    if command and not command[0]:
        raise ValueError("command: its first word, the program, is empty")


def _says_none(key: str, value: object) -> bool:
    return key in NONE and type(value) is type(NONE[key]) and value == NONE[key]


class Profile(Table):
    """`[profiles.NAME]`: the settings for the folder `inbox/NAME/`. A key that is left out comes from the top level.

    A key that is set takes precedence, whatever its value: None stands for the value in `NONE`.
    """

    model: str | None = Field(None, min_length=1)
    system_message: str | None = None
    schema_file: str | None = Field(None, alias="schema")
    send_schema: bool | None = None
    format: Literal["json"] | None = None
    options: Options | None = None
    think: Think = None
    num_ctx: Context | None = None
    num_ctx_max: int | None = Field(None, ge=MIN_CONTEXT, le=MAX_CONTEXT)
    num_predict: int | None = Field(None, ge=1, le=2**24)
    attempts: int | None = Field(None, ge=1, le=100)
    n: int | None = Field(None, ge=1, le=MAX_COUNT)
    template: Template | None = None
    id_field: FieldName | None = None
    accept: Accept | None = Field(None, strict=False)
    delimiter: Delimiter | None = None
    quotes: bool | None = None
    repairs: int | None = Field(None, ge=0, le=MAX_REPAIRS)
    repeat: Repeat | None = None
    cache: bool | None = None
    dedupe: bool | None = None
    thoughts: Thoughts | None = None
    empty: Empty | None = None
    drop_last_assistant: bool | None = None
    files: bool | None = None
    aliases: Aliases | None = None
    ignore: Ignore | None = Field(None, strict=False)
    digest: Digest | None = None
    prefix_affinity: PrefixAffinity | None = None
    window: Window | None = None
    notify: ProfileNotifications | None = Field(None, description="Notifications of its jobs: keys as in `[notify]`.")

    @model_validator(mode="before")
    @classmethod
    def _take_none(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: None if _says_none(key, item) else item for key, item in value.items()}

    @property
    def said(self) -> dict[str, Any]:
        """`{field: value}` of the keys that the profile sets."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @model_validator(mode="after")
    def _one_format(self) -> Profile:
        if self.schema_file is not None and self.format is not None:
            raise ValueError("`schema` and `format` exclude each other: a schema already means JSON")
        return self


class Settings(Table):
    """The whole configuration.

    Attributes:
        template: Makes the prompts of rows, e.g. `Summarise: {note}`; None: each line holds its prompt itself.
        id_field: The field of a row that is its id.
        accept: The file formats that are accepted beside JSONL, which always is.
        delimiter: The character between the fields of CSV.
        quotes: Whether quotes enclose cells of a table, or are part of the texts; None: found by its rows.
        repeat: Whether a file that was answered before is answered again (`run`), or by a pointer (`skip`).
        cache: Whether answers are kept and reused across jobs.
        dedupe: Whether equal requests of a job are sent only once.
        thoughts: Whether thoughts at the beginning of a text answer are moved out of it.
        empty: What becomes of answers that say nothing.
        drop_last_assistant: Whether a last message of the assistant is dropped before a conversation is sent.
        files: Whether each answer is also written to a file, as ollama-batch-cluster wrote them.
        aliases: {name of a model in prompt lines: the model that gets the request in its place}.
        ignore: Names of parameters and keys that are dropped from a line if they cannot be honoured.
        window: When requests are sent, in local time; empty: at any time.
        source: The file that it was read from; None if only defaults are used.
        schemas: {profile name, "" for the top level: its JSON schema}, read from the files beside the configuration.
        tokens: {endpoint: its bearer token}, from `obcd.config.tokens.with_tokens`; empty before that.
        webhook_secrets: {file as the configuration names it: the secret in it}, from `with_webhook_secrets`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str = Field("llama3.2", min_length=1)
    system_message: str | None = None
    schema_file: str | None = Field(None, alias="schema")
    send_schema: bool = True
    format: Literal["json"] | None = None
    think: Think = None
    template: Template | None = None
    id_field: FieldName = ID_FIELD
    accept: Accept = Field(("jsonl",), strict=False)
    delimiter: Delimiter = ","
    quotes: bool | None = None
    repeat: Repeat = "run"
    cache: bool = False
    dedupe: bool = False
    thoughts: Thoughts = "move"
    empty: Empty = "keep"
    drop_last_assistant: bool = False
    files: bool = False
    aliases: Aliases = {}
    ignore: Ignore = Field((), strict=False)
    window: Window = ()
    ollama_instances: dict[EndpointName, Instance] = {f"127.0.0.1:{DEFAULT_PORT}": Instance()}
    spool: Spool = Spool()
    requests: Requests = Requests()
    host: Host = Host()
    cluster: Cluster = Cluster()
    api: Api = Api()
    page: Page = Page()
    notify: Notifications = Notifications()
    profiles: dict[ProfileName, Profile] = {}
    # Set by `load_settings` alone: no key of a file has these names.
    source: Path | None = Field(None, exclude=True, validation_alias="\0source")
    schemas: dict[str, dict[str, object]] = Field(default_factory=dict, exclude=True, validation_alias="\0schemas")
    tokens: dict[str, Secret] = Field(default_factory=dict, exclude=True, validation_alias="\0tokens")
    webhook_secrets: dict[str, Secret] = Field(default_factory=dict, exclude=True, validation_alias="\0secrets")

    @model_validator(mode="before")
    @classmethod
    def _take_none(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if not _says_none(key, item)}  # as if it were left out

    @field_validator("ollama_instances", mode="before")
    @classmethod
    def _gpu_index_is_enough(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            name: {"gpu": entry} if isinstance(entry, int) and not isinstance(entry, bool) else entry
            for name, entry in value.items()
        }

    @field_validator("ollama_instances")
    @classmethod
    def _each_endpoint_once(cls, value: dict[str, Instance]) -> dict[str, Instance]:
        urls: dict[str, str] = {}
        for name in value:
            first = urls.setdefault(parse_endpoint(name).url, name)
            if first != name:
                raise ValueError(f'"{name}" and "{first}" are the same endpoint')
        return value

    @field_validator("ollama_instances")
    @classmethod
    def _no_token_in_the_open(cls, value: dict[str, Instance]) -> dict[str, Instance]:
        for name, instance in value.items():
            endpoint = parse_endpoint(name)
            if instance.token_file is not None and endpoint.scheme == "http" and not endpoint.is_loopback:
                raise ValueError(
                    f'"{name}" has a token_file and is reached over plain HTTP, where anybody on the way can read the '
                    "token: write https://"
                )
        return value

    @model_validator(mode="after")
    def _one_format(self) -> Settings:
        if self.schema_file is not None and self.format is not None:
            raise ValueError("schema: `schema` and `format` exclude each other: a schema already means JSON")
        return self

    @model_validator(mode="after")
    def _has_endpoints(self) -> Settings:
        if not self.ollama_instances and self.cluster.hosts is None:
            raise ValueError(
                'ollama_instances: no endpoint in it: write "host:port" = GPU index, e.g. "127.0.0.1:11434" = 0'
            )
        return self

    @model_validator(mode="after")
    def _cache_knows_the_weights(self) -> Settings:
        for name in ("", *self.profiles):
            wanted = self.job_settings(name)
            if wanted.cache and wanted.digest == "any":
                place = f"profiles.{name}.cache" if name else "cache"
                raise ValueError(
                    f'{place}: it needs digest = "same": with "any" it is unknown which weights answered, and an '
                    "answer of one model must not be used as that of another"
                )
        return self

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> Settings:
        for name in ("", *self.profiles):
            wanted = self._notify_keys(name)
            if wanted["webhook"] and wanted["webhook_secret_file"] is None:
                place = f"profiles.{name}.notify" if name else "notify"
                raise ValueError(
                    f"{place}.webhook: it needs webhook_secret_file, by which the receiver knows who sent a "
                    "notification: obcd help notifications says how to make one"
                )
        return self

    def _notify_keys(self, profile: str) -> dict[str, Any]:
        """Return `{key of [notify]: value}` of a profile; "" is the top level."""
        own = self.profiles[profile].notify if profile else None
        said = {name: getattr(own, name) for name in own.model_fields_set} if own is not None else {}
        return {**dict(self.notify), **said}

    def webhook_secret_files(self) -> dict[str, str]:
        """Return `{place of the key: the file of a secret}` of all webhooks, the files as they are written."""
        found: dict[str, str] = {}
        for name in ("", *self.profiles):
            if (keys := self._notify_keys(name))["webhook"]:
                place = f"profiles.{name}.notify" if name else "notify"
                found[f"{place}.webhook_secret_file"] = keys["webhook_secret_file"]
        return found

    def notify_plan(self) -> NotifyPlan:
        """Return the ways of every profile, and of the top level under ""."""
        return {name: self._notify_ways(name) for name in ("", *self.profiles)}

    def _notify_ways(self, profile: str) -> NotifyWays:
        keys = self._notify_keys(profile)
        return NotifyWays(
            events=frozenset(keys["events"]),
            command=keys["command"],
            command_seconds=keys["command_seconds"],
            webhook=keys["webhook"] or "",
            secret=self.webhook_secrets.get(keys["webhook_secret_file"] or "") if keys["webhook"] else None,
            mail_to=keys["mail_to"],
            mail_from=keys["mail_from"] or "",
            sendmail=keys["sendmail"],
        )

    @model_validator(mode="after")
    def _api_takes_lines_with_prompts(self) -> Settings:
        profile = self.api.profile
        if self.api.enabled and profile not in ("", *self.profiles):
            raise ValueError(f"api.profile: there is no [profiles.{profile}]")
        if self.api.enabled and self.job_settings(profile).template is not None:
            place = f"[profiles.{profile}]" if profile else "the top level"
            raise ValueError(
                f"api.profile: {place} has a template, and the lines of a batch hold their prompts: name a profile "
                "with template = false"
            )
        return self

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return the endpoints of the configuration in its order; with a hosts folder there may be none."""
        if self.cluster.hosts is not None and "ollama_instances" not in self.model_fields_set:
            return ()  # the default is for a machine with its own Ollama
        return tuple(
            replace(
                parse_endpoint(name, instance.gpu, self._slots(instance)),
                token=self.tokens.get(name),
                window=instance.window,
                yields=instance.yields,
            )
            for name, instance in self.ollama_instances.items()
        )

    def _slots(self, instance: Instance) -> int | None:
        wanted = self.requests.slots if instance.slots is None else instance.slots
        return None if wanted == "auto" else wanted

    def with_model(self, model: str) -> Settings:
        """Return settings that use another model, whatever the profile."""
        return self._with({"model": model})

    def with_delimiter(self, delimiter: str) -> Settings:
        """Return settings that read CSV with another character between the fields, whatever the profile."""
        return self._with({"delimiter": delimiter})

    def _with(self, values: dict[str, Any]) -> Settings:
        profiles = {name: item.model_copy(update=values) for name, item in self.profiles.items()}
        return self.model_copy(update={**values, "profiles": profiles})

    def answered_since(self, profile: str, now: float) -> float | None:
        """Return the time since which an answered drop is not run again, in Unix seconds; None: it always is."""
        return self.spool.kept_since(now) if self._wanted(profile)["repeat"] == "skip" else None

    def reading_of(self, profile: str) -> Reading:
        """Return how the lines of a profile are read; the defaults if this configuration does not have the profile."""
        return self.job_settings(profile).reading if self.has_profile(profile) else PLAIN

    def has_profile(self, profile: str) -> bool:
        """Return whether it has a profile; "" is the top level."""
        return not profile or profile in self.profiles

    def accepts(self, profile: str = "") -> frozenset[str]:
        """Return which file formats a profile accepts beside JSONL, e.g. `{"csv", "gz"}`; none without a profile."""
        if not self.has_profile(profile):
            return frozenset()
        return frozenset(self._wanted(profile)["accept"])

    def accepted(self) -> dict[str, frozenset[str]]:
        """Return `{profile, "" for the top level: the file formats that it accepts beside JSONL}`."""
        return {profile: self.accepts(profile) for profile in ("", *self.profiles)}

    def windows(self) -> dict[str, str]:
        """Return `{profile, "" for the top level: its windows}`, separated by semicolons, of those that have any."""
        found = {profile: "; ".join(self._wanted(profile)["window"] or ()) for profile in ("", *self.profiles)}
        return {profile: text for profile, text in found.items() if text}

    def models(self) -> frozenset[str]:
        """Return the canonical names of the models that the configuration names."""
        jobs = [self.job_settings(profile) for profile in ("", *self.profiles)]
        return frozenset(canonical_model(name) for job in jobs for name in (job.model, *job.aliases.values()))

    def job_settings(self, profile: str = "") -> JobSettings:
        """Return the settings of a job of a profile; "" is the top level.

        Raises:
            KeyError: If there is no such profile.
        """
        wanted = self._wanted(profile)
        is_planned = wanted["num_ctx"] == "auto"
        same = {item.name: wanted[item.name] for item in fields(JobSettings) if item.name in wanted}
        return JobSettings(**{
            **same,
            "system": wanted["system_message"],
            "num_ctx": wanted["num_ctx_max"] if is_planned else wanted["num_ctx"],
            "num_ctx_max": wanted["num_ctx_max"] if is_planned else None,
            "ignore": list(wanted["ignore"]),
            "window": list(wanted["window"] or ()),
        })  # fmt: skip

    def _wanted(self, profile: str) -> dict[str, Any]:
        """Return `{field: value}` of all keys of a job: the profile's if it sets the key, else the top level's."""
        said = self.profiles[profile].said if profile else {}
        top = {**dict(self), **dict(self.requests), "format": self.schemas.get("") or self.format}
        for table in said.keys() & {"options", "aliases"}:  # these are merged key by key
            said[table] = {} if said[table] is None else {**top[table], **said[table]}
        if said.keys() & {"schema_file", "format"}:  # each of them states the form of answers, and only one may
            said["format"] = self.schemas.get(profile) or said.get("format")
        return {**top, **said}


def read_file(path: Path) -> bytes:
    """Read a small regular file: a daemon that reads it again must not wait for a FIFO or read a whole disk.

    Raises:
        OSError: If it cannot be read, is not a regular file, or is longer than `MAX_FILE_BYTES`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {MAX_FILE_BYTES} bytes", str(path))
    return raw


def read_schema(path: Path) -> tuple[dict[str, object], str]:
    """Read a JSON schema.

    Returns:
        The schema, and its path in the file if that is an envelope around it, e.g. `json_schema.schema`; else "".

    Raises:
        ValueError: If it cannot be used; the message is the reason.
    """
    try:
        schema = json.loads(read_file(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(schema, dict) or not schema:
        raise ValueError(f"{path} is not a JSON schema: it must hold an object")
    inner, place = unwrapped(schema)
    why = why_no_schema(inner) or check_schema(inner)
    if why:
        raise ValueError(f"{path} is not a JSON schema that can be held to: {why}")
    return dict(inner), place
