"""`obcd host endpoints`: print the table for the coordinator's configuration."""

from __future__ import annotations

import ipaddress
import json

import click

from obcd.cli.common import config_option, read_settings, say
from obcd.cli.host.common import parse_gpus, plan_options, running_host, runtime_option
from obcd.config.endpoints import is_loopback
from obcd.errors import NoEndpointError
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.planning import make_plan

EPILOG = """\b
Examples:
  obcd host endpoints                  of the running host, else of the one that the configuration describes
  obcd host endpoints --gpus 4         of the host that obcd host --gpus 4 would start
"""
WARNING = (
    "Ollama has no authentication: anyone who reaches these ports can use and delete models.",
    "Set a firewall that admits only the coordinator's machine.",
)


@click.command(epilog=EPILOG)
@plan_options
@runtime_option
@config_option
def endpoints(gpus: str | None, base_port: int | None, runtime: str | None, config: str | None) -> None:
    """print this host's [ollama_instances].

    Paste it into the coordinator's configuration.
    """
    plan = None if any((gpus, base_port, config)) else _running_plan(runtime)
    if plan is None:
        settings = read_settings(config)
        plan = make_plan(settings, None if gpus is None else parse_gpus(gpus), base_port)
    click.echo(render(plan), nl=False)
    for line in remarks(plan):
        say(line)


def _running_plan(runtime: str | None) -> HostPlan | None:
    try:
        return running_host(runtime)[1]
    except NoEndpointError:
        return None


def render(plan: HostPlan) -> str:
    """Return the table as TOML; its comments are TOML's."""
    cards = [f"# {server.program}: {server.card or 'no card, the CPU'}" for server in plan.servers]
    width = max(len(_key(plan, server.port)) for server in plan.servers)
    lines = [
        f"{_key(plan, server.port):{width}} = {{{_entry(plan, server)}}}  {card}"
        for server, card in zip(plan.servers, cards, strict=True)
    ]
    head = "[ollama_instances]\n"
    if is_loopback(plan.bind):
        head += "# reachable only from this machine: [host] bind opens them to others\n"
    return head + "\n".join(lines) + "\n"


def _entry(plan: HostPlan, server: Server) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in plan.entry(server).items())


def remarks(plan: HostPlan) -> list[str]:
    """Return remarks for the administrator: who can reach the servers, and who must not."""
    if is_loopback(plan.bind):
        return [
            f"The servers listen on {plan.bind}: only this machine reaches them. To open them to the cluster, set",
            '  [host]\n  bind = "10.0.0.5"    # this machine\'s address in the private network\n'
            '  name = "gpu1"        # how the coordinator reaches it',
            "in this machine's configuration and restart obcd host.",
            *WARNING,
        ]
    return [f"The servers listen on {plan.bind}.", *by_name(plan), *WARNING]


def by_name(plan: HostPlan) -> list[str]:
    """Return the remarks for a table that holds a host name instead of an address: the name must resolve."""
    try:
        ipaddress.ip_address(plan.name.strip("[]"))
    except ValueError:
        return [
            f"The coordinator's machine must be able to resolve the name {plan.name};",
            '  [host] name = "10.0.0.5" (its address, or another name) puts that into the table instead.',
        ]
    return []


def _key(plan: HostPlan, port: int) -> str:
    host = f"[{plan.name}]" if ":" in plan.name and not plan.name.startswith("[") else plan.name
    return json.dumps(f"{host}:{port}")
