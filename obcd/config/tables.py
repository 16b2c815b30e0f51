"""The tables of the configuration as frozen models, except `[notify]`: every key, its default and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from obcd.config.notify_tables import ProfileNotifications
from obcd.config.values import (
    CONTEXT,
    MAX_CONTEXT,
    MAX_REPAIRS,
    MIN_CONTEXT,
    Accept,
    Aliases,
    Context,
    Delimiter,
    Digest,
    Empty,
    FieldName,
    Ignore,
    Listen,
    Options,
    PrefixAffinity,
    Repeat,
    Seconds,
    Slots,
    Table,
    Template,
    Think,
    Thoughts,
    Window,
)
from obcd.core.request.records import MAX_COUNT
from obcd.core.user_limits import LINE_BYTES, UserLimits

DAY_SECONDS = 86400.0
#: {key of a job whose absence has a meaning: the value that states this absence explicitly}. TOML has no null, and a
#: key that a profile leaves out comes from the top level.
NONE = {
    "system_message": False, "schema": False, "format": False, "template": False, "options": False, "aliases": False,
    "think": "auto", "quotes": "auto",
}  # fmt: skip


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
    options: Options = Field({})
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
    environment: dict[str, str] = Field({})
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


def says_none(key: str, value: object) -> bool:
    """Return whether the value of a key states that there is none."""
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
        return {key: None if says_none(key, item) else item for key, item in value.items()}

    @property
    def said(self) -> dict[str, Any]:
        """`{field: value}` of the keys that the profile sets."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @model_validator(mode="after")
    def _one_format(self) -> Profile:
        if self.schema_file is not None and self.format is not None:
            raise ValueError("`schema` and `format` exclude each other: a schema already means JSON")
        return self
