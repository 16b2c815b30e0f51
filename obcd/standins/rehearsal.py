"""Builds simulated servers: engine, account, API and the /simulated endpoints, sharing one count of attempts."""

from __future__ import annotations

from dataclasses import replace

from obcd.standins.account import Account, Attempts
from obcd.standins.api import OllamaApi, Routes
from obcd.standins.http import Exchange
from obcd.standins.serve import Site
from obcd.standins.settings import ServerSettings
from obcd.standins.shapes import encode
from obcd.standins.simulated import Behaviour, SimulatedEngine


def simulated_sites(
    count: int, settings: ServerSettings, behaviour: Behaviour, *, preload: bool = False, start_seconds: float = 0.0
) -> list[Site]:
    """Return `count` simulated servers on consecutive ports, or on free ones where the first port is 0."""
    attempts = Attempts()
    sites: list[Site] = []
    for index in range(count):
        own = replace(settings, port=settings.port + index if settings.port else 0)
        account = Account(own.limits.parallel, attempts)
        api = OllamaApi(SimulatedEngine(behaviour), own, account, account_routes(account))
        model = behaviour.models[0] if preload and behaviour.models else None
        sites.append(Site(api=api, settings=own, label="simulated", preload=model, start_seconds=start_seconds))
    return sites


def account_routes(account: Account) -> Routes:
    """Return the endpoints that show an account: GET tells, DELETE starts a new experiment."""

    async def show_requests(exchange: Exchange) -> None:
        exchange.send(200, encode(account.requests()))

    async def show_slots(exchange: Exchange) -> None:
        exchange.send(200, encode(account.slots()))

    async def reset(exchange: Exchange) -> None:
        account.reset()
        exchange.send(200, b"{}")

    return {
        "/simulated/requests": {"GET": show_requests, "DELETE": reset},
        "/simulated/slots": {"GET": show_slots, "DELETE": reset},
    }
