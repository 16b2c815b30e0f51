"""Assemble servers from engine, account and API; simulated ones share a count of attempts and show their account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from obcd.errors import UsageError
from obcd.standins.serve import Site
from obcd.standins.simulated.faults import parse_rate
from obcd.standins.simulated.gpu_server import VRAM_SHARES, Behaviour, SimulatedEngine
from obcd.standins.simulated.library import Library
from obcd.standins.wire.account import Account, AccountFile, Attempts
from obcd.standins.wire.api import Handler, OllamaApi, Routes
from obcd.standins.wire.engine import Engine, EngineError, JsonObject
from obcd.standins.wire.http import Exchange
from obcd.standins.wire.reply_shapes import encode
from obcd.standins.wire.request_values import parse_body, typed
from obcd.standins.wire.settings import ServerSettings


def simulated_sites(
    count: int,
    settings: ServerSettings,
    behaviour: Behaviour,
    *,
    preload: bool = False,
    start_seconds: float = 0.0,
    file: AccountFile | None = None,
) -> list[Site]:
    """Return `count` simulated servers on consecutive ports, or on free ones if the first port is 0.

    Args:
        count: number of servers, from 1.
        settings: of the first server; the others differ only in their port.
        behaviour: of all servers, until PUT /simulated/behaviour changes that of one.
        preload: load the first model at the start.
        start_seconds: how long they accept requests without answering.
        file: a file to which their accounts are also written.
    """
    attempts, library = Attempts(), Library()
    sites: list[Site] = []
    for index in range(count):
        own = replace(settings, port=settings.port + index if settings.port else 0)
        account = Account(own.limits.parallel, attempts, file=file, server=index)
        engine = SimulatedEngine(behaviour, library, own.limits.parallel)
        api = OllamaApi(engine, own, account)
        own_routes = {"/simulated/behaviour": behaviour_routes(engine, api), "/api/pull": {"POST": engine.pull}}
        api.add_routes({**account_routes(account), **own_routes})
        model = behaviour.models[0] if preload and behaviour.models else None
        sites.append(Site(api=api, settings=own, label="simulated", preload=model, start_seconds=start_seconds))
    return sites


def embedded_site(engine: Engine, settings: ServerSettings, preload: str | None) -> Site:
    """Return the server of an embedded engine; `preload` names the model to load at the start."""
    account = Account(settings.limits.parallel, Attempts(), limit=0)  # it is never read
    return Site(api=OllamaApi(engine, settings, account), settings=settings, label="embedded", preload=preload)


def account_routes(account: Account) -> Routes:
    """Return the endpoints that show an account: GET returns it, DELETE starts a new experiment."""

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


def behaviour_routes(engine: SimulatedEngine, api: OllamaApi) -> Mapping[str, Handler]:
    """Return the endpoint that changes one server while it runs.

    PUT takes any of `{"size_vram": "cpu", "hang": ["/api/ps"], "seconds": 2.0, "load_seconds": 3.0,
    "pull_seconds": 1.0, "most_context": 4096, "weights": "b", "models": ["llama3.2"], "faults": ["crash=0.5"]}`;
    keys that are left out do not change.
    """

    async def change(exchange: Exchange) -> None:
        try:
            body = parse_body(exchange.body)
            api.hung = set(typed(body, "hang", list, "Behaviour.hang of type []string", list(api.hung)))
            engine.behaviour = changed_behaviour(engine.behaviour, body)
            if "weights" in body:
                api.unload_all()
        except (EngineError, UsageError) as error:
            exchange.send(400, encode({"error": str(error)}))
        else:
            exchange.send(200, b"{}")

    return {"PUT": change}


_TIMES = ("seconds", "load_seconds", "pull_seconds")
#: {key: its type, Go's name for it, the meaning of null}
_PLAIN: Mapping[str, tuple[type, str, object]] = {
    "most_context": (int, "Behaviour.most_context of type int", 0),
    "weights": (str, "Behaviour.weights of type string", ""),
}


def _seconds(body: JsonObject, key: str) -> float:
    text = f"Behaviour.{key} of type float64"
    value = body[key]
    return value if isinstance(value, float) else float(typed(body, key, int, text, 0))


def changed_behaviour(behaviour: Behaviour, body: JsonObject) -> Behaviour:
    """Return a behaviour with the changes of a body of PUT /simulated/behaviour; raises EngineError 400."""
    unknown = set(body) - {"hang", "size_vram", *_TIMES, *_PLAIN, "models", "faults"}
    if unknown:
        raise EngineError(400, f"unknown keys: {', '.join(sorted(unknown))}")
    changes: dict[str, Any] = {key: _seconds(body, key) for key in _TIMES if key in body}
    changes.update({key: typed(body, key, *_PLAIN[key]) for key in _PLAIN if key in body})
    if "size_vram" in body:
        if body["size_vram"] not in VRAM_SHARES:
            raise EngineError(400, f"size_vram is one of {', '.join(VRAM_SHARES)}")
        changes["size_vram"] = body["size_vram"]
    if "models" in body:
        names = typed(body, "models", list, "Behaviour.models of type []string", [])
        changes["models"] = tuple(map(str, names))
    if "faults" in body:
        texts = typed(body, "faults", list, "Behaviour.faults of type []string", [])
        changes["faults"] = tuple(parse_rate(str(text)) for text in texts)
    return replace(behaviour, **changes)
