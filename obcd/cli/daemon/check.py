"""`obcd check`: check configuration, installation, GPU host, and the endpoints with their models."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import click

from obcd.api.checking import examine_api
from obcd.cli.common import config_option, describe_slots, find_layout, read_local_settings, root_option
from obcd.config.endpoints import Endpoint, misplaced_path
from obcd.config.json_schema import configuration_schema
from obcd.config.notify_tables import Notifications, ProfileNotifications
from obcd.config.settings import Settings
from obcd.config.tables import Api, Cluster, Host, Page, Profile, Requests, Spool
from obcd.config.tokens import with_tokens, with_webhook_secrets
from obcd.config.values import Table
from obcd.core.endpoint.concurrency import FIRST
from obcd.core.request.model_names import how_to_get
from obcd.core.request.records import canonical_model
from obcd.core.scheduling.weights import describe_odd, shorten
from obcd.core.tables.file_format import PARQUET, ZST, Form, why_no_reader
from obcd.diagnostics.answer_schemas import examine_schemas
from obcd.diagnostics.findings import Finding, Severity
from obcd.diagnostics.gpu_host import examine_host, is_enabled, is_gpu_host
from obcd.diagnostics.hosts_folder import examine_hosts
from obcd.diagnostics.installation import ask, examine
from obcd.diagnostics.lock_holders import lock_holders
from obcd.diagnostics.notifications import examine_notifications
from obcd.diagnostics.templates import examine_templates
from obcd.errors import ExitCode
from obcd.ollama.control import Probe, probe_all
from obcd.spool.folders.layout import Layout
from obcd.text import plural

#: The first version that refuses an over-long prompt instead of cutting it silently (`truncate: false`).
FIRST_HONEST_VERSION = (0, 12, 6)

EPILOG = """\b
Examples:
  obcd check
  obcd check --config config.toml --json
  obcd check --keys
  obcd check --schema > obcd.schema.json   then write `#:schema ./obcd.schema.json` as obcd.toml's first line

\b
Exit codes: 0 every endpoint serves and every model is on one of them, 3 some endpoints or
models are missing, 4 the configuration is wrong, or its [host] on a GPU host, 5 the endpoints
are right and the installation has a fault (warnings and notes do not count), 6 no endpoint
can be used.
A machine is a GPU host if obcd-host is enabled or runs, [host] differs from the defaults, or an
installed obcd has Ollama and cards. The check changes nothing.
"""
#: Printed instead of the endpoints on a GPU host that has none in its configuration.
UNSET = (
    "endpoints: none configured here yet, which is right unless a coordinator runs on this machine\n"
    "    obcd host endpoints  # the lines of this host for [ollama_instances] of the coordinator's machine"
)

#: Printed instead of the endpoints where all of them come from hosts that register.
REGISTERED = "endpoints: none in the configuration: hosts register theirs (obcd hosts lists them)"


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="print one JSON object, for machines")
@click.option("--keys", is_flag=True, help="list every key of the configuration with its default, and exit")
@click.option("--schema", is_flag=True, help="print the JSON Schema of the configuration, for editors, and exit")
@config_option
@root_option
def check(as_json: bool, keys: bool, schema: bool, config: str | None, root: str | None) -> int:
    """check configuration, installation, [host] and endpoints."""
    if keys:
        _list_keys()
        return ExitCode.DONE
    if schema:
        click.echo(json.dumps(configuration_schema(), ensure_ascii=False, indent=1))
        return ExitCode.DONE
    settings = with_webhook_secrets(with_tokens(read_local_settings(config)))
    layout = find_layout(root, settings)
    found_here = [
        *examine_templates(settings),
        *examine(ask(layout, settings)),
        *examine_schemas(settings),
        *examine_hosts(settings, layout),
        *examine_notifications(settings),
        *examine_api(settings, layout),
    ]
    is_host = is_gpu_host(settings)
    host = examine_host(settings) if is_host else []
    endpoints = settings.endpoints()
    probes = probe_all([item.url for item in endpoints], [item.token for item in endpoints])
    if is_host and _is_unset(settings, probes, layout):
        endpoints, probes = (), []
        found_here = [finding for finding in found_here if not _is_missed(finding)]
    if not as_json:
        click.echo(f"configuration {settings.source or '(none: the defaults)'}: right")
        if stray := _unread_configuration(settings):
            click.echo(f"the {stray} in this folder is not read: give --config {stray}, or put it there")
        for sentence in _missing_extras(settings):
            click.echo(sentence)
        click.echo(f"inbox (of a daemon) {layout.inbox}")
        _say_installation(found_here)
        _say_all(host)
    odd = _odd_ones(endpoints, probes, settings)
    findings = [
        _examine(endpoint, found, settings, odd[endpoint.name])
        for endpoint, found in zip(endpoints, probes, strict=True)
    ]
    homeless = _homeless_models(settings, probes) if endpoints else []
    if as_json:
        installation = [dataclasses.asdict(finding) for finding in (*found_here, *host)]
        document = {"endpoints": findings, "missing_models": homeless, "installation": installation}
        click.echo(json.dumps({"root": str(layout.root), **document}))
    elif endpoints:
        _say_endpoints(findings, probes, settings)
    else:
        click.echo(UNSET if settings.cluster.hosts is None else REGISTERED)
    if _has_fault(host):
        return ExitCode.CONFIGURATION
    verdict = _verdict(findings, homeless) if endpoints else ExitCode.DONE
    return ExitCode.INPUT if verdict == ExitCode.DONE and _has_fault(found_here) else verdict


def _missing_extras(settings: Settings) -> list[str]:
    """Return which extras of obcd are missing for the kinds of files that the profiles accept."""
    words = frozenset[str]().union(*settings.accepted().values())
    forms = [Form(PARQUET)] * (PARQUET in words) + [Form(packing=ZST)] * (ZST in words)
    return [f"accept: {why}" for form in forms if (why := why_no_reader(form))]


def _unread_configuration(settings: Settings) -> str:
    """Return the name of a configuration in the working folder that is not read, "" if there is none."""
    names = [name for name in ("obcd.toml", "config.toml") if Path(name).is_file()]
    read = settings.source
    return "" if not names or (read is not None and read.resolve().parent == Path.cwd()) else names[0]


def _is_unset(settings: Settings, probes: list[Probe], layout: Layout) -> bool:
    """Return whether a GPU host has only the default endpoint, which does not answer and which no coordinator needs."""
    is_default = settings.ollama_instances == Settings().ollama_instances
    has_coordinator = is_enabled("obcd-coordinator.service") or bool(lock_holders(layout.root / "lock"))
    return is_default and not has_coordinator and all(found.failure for found in probes)


def _is_missed(finding: Finding) -> bool:
    """Return whether a finding is that no coordinator runs, which is right on a machine without one."""
    return finding.subject == "lock" and finding.severity is Severity.NOTE


def _has_fault(findings: list[Finding]) -> bool:
    return any(finding.severity is Severity.FAULT for finding in findings)


def _say_installation(findings: list[Finding]) -> None:
    """Print the findings that need attention, each with its remedy."""
    troubles = [finding for finding in findings if finding.severity is not Severity.OK]
    _say_all(troubles)
    if not troubles:
        click.echo("installation: right")


def _say_all(findings: list[Finding]) -> None:
    for finding in findings:
        head = "" if finding.severity is Severity.OK else f"{finding.severity}: "
        click.echo(head + finding.sentence)
        if finding.remedy:
            click.echo(f"    {finding.remedy}")


def _say_endpoints(findings: list[_EndpointFinding], probes: list[Probe], settings: Settings) -> None:
    for finding in findings:
        click.echo(_sentence(finding))
    pairs = sorted(zip(settings.endpoints(), probes, strict=True), key=lambda pair: pair[1].failure is not None)
    url = next((item.url for item, _ in pairs if item.token is None), "")
    is_hidden = all(found.failure and misplaced_path(item.url) for item, found in pairs)  # a model may well be there
    for key, model in _models(settings).items():
        having = sum(key in found.digests for found in probes)
        missing = "" if having or is_hidden else f"; {how_to_get(model, url)}"
        click.echo(f"model {model}: on {having} of {plural(len(probes), 'endpoint')}{missing}")


def _models(settings: Settings) -> dict[str, str]:
    """Return `{canonical name: name as written}` of every model that the configuration names."""
    names = [settings.job_settings(profile).model for profile in ("", *settings.profiles)]
    return {canonical_model(name): name for name in names}


def _homeless_models(settings: Settings, probes: list[Probe]) -> list[str]:
    return [name for key, name in _models(settings).items() if not any(key in found.digests for found in probes)]


def _odd_ones(endpoints: Sequence[Endpoint], probes: list[Probe], settings: Settings) -> dict[str, list[str]]:
    """Return `{endpoint: how its models differ}`: a job uses the weights that most slots have."""
    odd: dict[str, list[str]] = {endpoint.name: [] for endpoint in endpoints}
    for model in _models(settings):
        digests = [shorten(found.digests).get(model) for found in probes]
        slots: Counter[str] = Counter()
        for endpoint, digest in zip(endpoints, digests, strict=True):
            if digest is not None:
                slots[digest] += endpoint.slots or FIRST
        for endpoint, digest in zip(endpoints, digests, strict=True):
            usual = slots.most_common(1)[0][0] if slots else None
            if digest is not None and usual is not None and digest != usual:
                odd[endpoint.name].append(describe_odd(model, digest, usual))
    return odd


class _EndpointFinding(TypedDict):
    """The finding about an endpoint, as `--json` shows it; `missing` are models that it should have."""

    endpoint: str
    url: str
    slots: int | None
    failure: str | None
    version: str
    missing: list[str]
    warnings: list[str]


def _examine(endpoint: Endpoint, found: Probe, settings: Settings, odd: list[str]) -> _EndpointFinding:
    wanted = _models(settings)
    exposure = endpoint.exposure(found.peer)
    warnings = [*odd, exposure] if exposure else [*odd]
    version = re.match(r"(\d+)\.(\d+)\.(\d+)", found.version)
    if version and tuple(map(int, version.groups())) < FIRST_HONEST_VERSION:
        warnings.append("this Ollama cuts over-long prompts silently: update it to 0.12.6 or newer")
    return {
        "endpoint": endpoint.name,
        "url": endpoint.url,
        "slots": endpoint.slots,
        "failure": found.failure,
        "version": found.version,
        "missing": [name for key, name in wanted.items() if key not in found.digests] if not found.failure else [],
        "warnings": warnings,
    }


def _sentence(finding: _EndpointFinding) -> str:
    head = f"endpoint {finding['endpoint']} ({describe_slots(finding['slots'])})"
    if finding["failure"]:
        return f"{head}: " + "; ".join([finding["failure"], *finding["warnings"]])
    parts = [f"serves, version {finding['version']}"]
    if "-obcd-" in finding["version"]:
        parts.append("a stand-in, not Ollama")
    parts += [f"does not have {name}" for name in finding["missing"]]
    return f"{head}: " + "; ".join([*parts, *finding["warnings"]])


def _verdict(findings: list[_EndpointFinding], homeless: list[str]) -> int:
    usable = [finding for finding in findings if not finding["failure"]]
    if not usable or all(finding["missing"] for finding in usable):
        return ExitCode.NO_ENDPOINT
    complete = len(usable) == len(findings) and not homeless
    return ExitCode.DONE if complete else ExitCode.PARTIAL


def _list_keys() -> None:
    tables: dict[str, type[Table]] = {
        "": Settings,
        "[requests]": Requests,
        "[host]": Host,
        "[cluster]": Cluster,
        "[api]": Api,
        "[page]": Page,
        "[spool]": Spool,
        "[notify]": Notifications,
        "[profiles.NAME]": Profile,
        "[profiles.NAME.notify]": ProfileNotifications,
    }
    for heading, model in tables.items():
        if heading:
            click.echo(f"\n{heading}")
        for name, field in model.model_fields.items():
            is_table = name in ("requests", "host", "cluster", "api", "page", "spool", "notify", "profiles")
            if field.exclude or is_table:
                continue
            if name == "ollama_instances":
                click.echo('[ollama_instances]  "host:port" = GPU index, or {gpu = 0, slots = 16, token_file = "FILE"}')
                continue
            default = "" if field.default is None else json.dumps(field.default)
            click.echo(f"{field.alias or name} = {default}" if default else f"{field.alias or name}")
