"""Helpers that `bench` and `burn-in` share: which endpoints to use, which of them serve, and with which prompts."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from obcd.benchmark.bench_prompts import read_prompts
from obcd.cli.common import find_layout, is_running, read_local_settings, say
from obcd.config.endpoints import Endpoint, parse_endpoint
from obcd.config.settings import Settings
from obcd.config.tokens import with_tokens
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import JobSettings, Request, canonical_model, signature_of
from obcd.errors import ConfigurationError, InputError, NoEndpointError, UsageError
from obcd.ollama.control import Probe, probe_all
from obcd.text import plural

#: Most connections of one process, each with its own thread; and other files that it may have open.
MAX_CONNECTIONS, SPARE_FILES = 4096, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTarget:
    """An endpoint that can be measured.

    Attributes:
        token_file: As the configuration names it.
        digest: Digest of its model.
    """

    endpoint: Endpoint
    token_file: str | None
    version: str
    digest: str


def read_cluster(config: str | None, model: str | None) -> Settings:
    """Read the configuration with its tokens; `model` replaces that of the configuration."""
    settings = with_tokens(read_local_settings(config))
    return settings.with_model(model) if model else settings


def choose_endpoints(settings: Settings, names: Sequence[str]) -> list[Endpoint]:
    """Return the endpoints of the configuration, or the named ones with their settings from the configuration.

    Raises:
        UsageError: If a name is not an endpoint, or two names mean the same.
    """
    configured = {item.url: item for item in settings.endpoints()}
    if not names:
        return list(configured.values())
    chosen: dict[str, Endpoint] = {}
    for name in names:
        try:
            given = parse_endpoint(name)
        except ValueError as error:
            raise UsageError(f"{name!r} is no endpoint: {error}") from None
        if given.url in chosen:
            raise UsageError(f"{name!r} is named twice")
        chosen[given.url] = configured.get(given.url, given)
    return list(chosen.values())


def reach(settings: Settings, endpoints: Sequence[Endpoint], model: str) -> tuple[list[LoadTarget], dict[str, str]]:
    """Return the endpoints that serve and have the model, and `{endpoint: reason}` of the others; print these.

    Raises:
        NoEndpointError: If no endpoint can be measured.
    """
    targets: list[LoadTarget] = []
    reasons: dict[str, str] = {}
    probes = probe_all([item.url for item in endpoints], [item.token for item in endpoints])
    for item, found in zip(endpoints, probes, strict=True):
        if reason := _lack(item, found, model):
            reasons[item.name] = reason
            continue
        if exposure := item.exposure(found.peer):
            say(f"warning: endpoint {item.name}: {exposure}")
        instance = settings.ollama_instances.get(item.name)
        token_file = instance.token_file if instance is not None else None
        digest = found.digests[canonical_model(model)]
        targets.append(LoadTarget(endpoint=item, token_file=token_file, version=found.version, digest=digest))
    if not targets:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NoEndpointError(f"no endpoint can be measured ({listed})")
    for name, reason in reasons.items():
        say(f"left out: {name}: {reason}")
    if _coordinator_runs(settings):
        say("warning: a coordinator runs here: its requests are measured too (pause its jobs, or stop it)")
    if labels := sorted({target.version for target in targets if "-obcd-" in target.version}):
        say(f"stand-in servers answer ({', '.join(labels)}): these are not figures of a GPU")
    return targets, reasons


def _coordinator_runs(settings: Settings) -> bool:
    try:
        return is_running(find_layout(None, settings))
    except ConfigurationError:  # no home, so this user has no spool
        return False


def _lack(item: Endpoint, found: Probe, model: str) -> str:
    if found.failure is not None:
        return found.failure
    if canonical_model(model) in found.digests:
        return ""
    return f"it has no model '{model}': {how_to_get(model, item.url if item.token is None else '')}"


def load_prompts(path: Path, settings: JobSettings) -> list[Request]:
    """Read a prompt file, and print which lines are left out; the model that a line names is ignored.

    Raises:
        InputError: If it cannot be used.
    """
    found, faults = read_prompts(path)
    for fault in faults[:5]:
        say(f"left out: {fault}")
    if len(faults) > 5:
        say(f"and {plural(len(faults) - 5, 'more line')} left out")
    requests = [replace(request, model=None) for request in found]
    if len({signature_of(request, settings) for request in requests}) > 1:
        raise InputError(
            f"the lines of {path} have different options that make Ollama reload its model (for example num_ctx): "
            "put them into a file each and measure these"
        )
    return requests


def allow_connections(count: int) -> None:
    """Raise the limit of open files for so many connections at once, each with its thread.

    Raises:
        UsageError: If it is above obcd's limit or that of this process.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + SPARE_FILES
    if count > MAX_CONNECTIONS or (hard != resource.RLIM_INFINITY and needed > hard):
        most = MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, hard - SPARE_FILES)
        raise UsageError(
            f"that would be {count} requests in flight from one process, which can hold {most}: "
            "measure fewer endpoints at once, or with fewer in flight"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def with_limits(settings: JobSettings, num_ctx: int | None, num_predict: int | None) -> JobSettings:
    """Return the settings with the context and the answer length of the command line, in tokens."""
    return replace(settings, num_ctx=num_ctx or settings.num_ctx, num_predict=num_predict or settings.num_predict)
