"""The whole configuration as a frozen model, and what it means for a job and an endpoint. Unknown keys are errors.

The file of the seed (`model`, `system_message`, `[ollama_instances]`) is a valid configuration without changes.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from obcd.config.endpoints import DEFAULT_PORT, Endpoint, parse_endpoint
from obcd.config.notify_tables import Notifications
from obcd.config.notify_values import NotifyPlan, NotifyWays
from obcd.config.tables import Api, Cluster, Host, Instance, Page, Profile, Requests, Spool, says_none
from obcd.config.values import (
    Accept,
    Aliases,
    Delimiter,
    Empty,
    EndpointName,
    FieldName,
    Ignore,
    ProfileName,
    Repeat,
    Table,
    Template,
    Think,
    Thoughts,
    Window,
)
from obcd.core.request.records import JobSettings, canonical_model
from obcd.core.request.rows import ID_FIELD, PLAIN, Reading
from obcd.secret import Secret


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
    aliases: Aliases = Field({})
    ignore: Ignore = Field((), strict=False)
    window: Window = ()
    ollama_instances: dict[EndpointName, Instance] = Field({f"127.0.0.1:{DEFAULT_PORT}": Instance()})
    spool: Spool = Spool()
    requests: Requests = Requests()
    host: Host = Host()
    cluster: Cluster = Cluster()
    api: Api = Api()
    page: Page = Page()
    notify: Notifications = Notifications()
    profiles: dict[ProfileName, Profile] = Field({})
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
        return {key: item for key, item in value.items() if not says_none(key, item)}  # as if it were left out

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
