"""What a new configuration changes for a running coordinator. Pure: two `Settings` in, a plan and its line out."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from obcd.config.endpoints import Endpoint
from obcd.config.settings import Settings
from obcd.config.values import Table
from obcd.core.request.records import JobSettings
from obcd.text import plural

#: Fields of `Settings` that have their own field in a `Change`, or are not keys; all others are reported by name.
APART = frozenset(
    (
        "schema_file",
        "ollama_instances",
        "spool",
        "requests",
        "host",
        "cluster",
        "notify",
        "profiles",
        "source",
        "schemas",
        "tokens",
        "webhook_secrets",
    )
)
#: Keys without effect here: a reload that would move a folder is refused; another path to the same folder is allowed.
UNMOVED = {("spool", "root"), ("spool", "inbox")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The difference between two configurations.

    Attributes:
        came: New endpoints.
        back: Endpoints that are still draining and are in the configuration again.
        left: Names of endpoints that are no longer in the configuration.
        altered: Endpoints whose slots or GPU have changed.
        profiles_came, profiles_left, profiles_altered: Names of profiles.
        keys: The other keys that differ, e.g. `("model", "requests.num_ctx")`; `[host]` is not the coordinator's.
        is_for_jobs: Whether new jobs of an existing folder get other settings than before.
    """

    came: tuple[Endpoint, ...] = ()
    back: tuple[Endpoint, ...] = ()
    left: tuple[str, ...] = ()
    altered: tuple[Endpoint, ...] = ()
    profiles_came: tuple[str, ...] = ()
    profiles_left: tuple[str, ...] = ()
    profiles_altered: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    is_for_jobs: bool = False


def compare(old: Settings, new: Settings, draining: Collection[str] = ()) -> Change:
    """Return the steps from one configuration to the other.

    Args:
        draining: Names of endpoints that left an earlier configuration and have not finished yet.
    """
    before = {item.name: item for item in old.endpoints()}
    after = {item.name: item for item in new.endpoints()}
    fresh = [item for name, item in after.items() if name not in before]
    stayed = [name for name in new.profiles if name in old.profiles]
    return Change(
        came=tuple(item for item in fresh if item.name not in draining),
        back=tuple(item for item in fresh if item.name in draining),
        left=tuple(name for name in before if name not in after),
        altered=tuple(item for name, item in after.items() if name in before and item != before[name]),
        profiles_came=tuple(name for name in new.profiles if name not in old.profiles),
        profiles_left=tuple(name for name in old.profiles if name not in new.profiles),
        profiles_altered=tuple(
            name
            for name in stayed
            if old.profiles[name].said != new.profiles[name].said or old.schemas.get(name) != new.schemas.get(name)
        ),
        keys=tuple(_keys(old, new)),
        is_for_jobs=any(_asked_with(old, name) != _asked_with(new, name) for name in ("", *stayed)),
    )


def _keys(old: Settings, new: Settings) -> Iterator[str]:
    for field in Settings.model_fields:
        if field not in APART and getattr(old, field) != getattr(new, field):
            yield field
    if (old.schema_file, old.schemas.get("")) != (new.schema_file, new.schemas.get("")):
        yield "schema"
    if old.webhook_secrets != new.webhook_secrets and old.webhook_secret_files() == new.webhook_secret_files():
        yield "the secret of a webhook"
    tables: dict[str, tuple[Table, Table]] = {
        "requests": (old.requests, new.requests),
        "spool": (old.spool, new.spool),
        "cluster": (old.cluster, new.cluster),
        "notify": (old.notify, new.notify),
    }
    for table, (before, after) in tables.items():
        for field in type(before).model_fields:
            if (table, field) in UNMOVED:
                continue
            if getattr(before, field) != getattr(after, field):
                yield f"{table}.{field}"


def _asked_with(settings: Settings, profile: str) -> JobSettings:
    """Return the settings of a new job; the time limit for connections is the worker's, and the same for all jobs."""
    return replace(settings.job_settings(profile), connect_timeout_seconds=0.0)


def describe(change: Change, in_flight: int, jobs: int) -> str:
    """Return a change as one line, e.g. `2 endpoints added, 1 endpoint is draining (16 in flight), model changed`.

    Args:
        in_flight: Requests in flight at the endpoints that left.
        jobs: Accepted jobs that are not finished.
    """
    parts = [f"{plural(len(change.came), 'endpoint')} added"] if change.came else []
    if change.back:
        parts.append(f"{plural(len(change.back), 'endpoint')} restored")
    if change.left and in_flight:
        is_are = "is" if len(change.left) == 1 else "are"
        parts.append(f"{plural(len(change.left), 'endpoint')} {is_are} draining ({in_flight} in flight)")
    elif change.left:
        parts.append(f"{plural(len(change.left), 'endpoint')} removed")
    if change.altered:
        parts.append(f"{plural(len(change.altered), 'endpoint')} changed")
    for verb, names in (
        ("added", change.profiles_came),
        ("removed", change.profiles_left),
        ("changed", change.profiles_altered),
    ):
        parts += [f"profile '{name}' {verb}" for name in names]
    parts += [f"{key} changed" for key in change.keys]
    if change.is_for_jobs and jobs:
        keeps = "1 accepted job keeps" if jobs == 1 else f"{jobs} accepted jobs keep"
        parts.append(f"{keeps} the earlier settings")
    return ", ".join(parts) or "nothing changed"
