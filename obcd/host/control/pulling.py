"""Pull a model through one server of the host while no other server starts: all share one folder of models.

Two servers that pull at the same time write the same partial files, and a server that starts during a pull walks a
folder that changes (ollama v0.33.0, server/download.go and server/fixblobs.go). The other servers see the model at
once, because Ollama reads the manifests from disk at every call.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from obcd.clock import monotonic
from obcd.core.request.model_names import is_name
from obcd.core.request.records import canonical_model
from obcd.errors import InputError, NoEndpointError, TimedOutError
from obcd.host.servers.plan import HostPlan, Server
from obcd.host.servers.ports import is_foreign
from obcd.host.supervisord.remote import Remote
from obcd.host.watch.probing import Prober
from obcd.host.watch.watch_rules import ProbeAnswer
from obcd.ollama.control import probe
from obcd.text import printable

#: Seconds to wait for servers that are starting.
START_PATIENCE = 60.0


def check_name(model: str) -> None:
    """Refuse a text that cannot be a model's name.

    Raises:
        InputError: With the form that it must have.
    """
    if not is_name(model):
        raise InputError(
            f"{printable(model[:80])!r} cannot be a model's name: "
            "write e.g. llama3.2, llama3.2:1b, hf.co/user/model:Q4_K_M"
        )


def choose_server(plan: HostPlan, remote: Remote, say: Callable[[str], None]) -> Server:
    """Wait until no server is starting, and return the first that runs and answers.

    Raises:
        TimedOutError: If a server is still starting after the wait.
        NoEndpointError: If no server answers.
    """
    deadline, is_said = monotonic() + START_PATIENCE, False
    prober = Prober({server.label: plan.url(server) for server in plan.servers})
    while True:
        states = remote.states()
        answers = prober.ask_all()
        # supervisor counts a server as STARTING for its first seconds, even if it answers: then its walk is over
        starting = [
            server.program
            for server in plan.servers
            if states[server.program].state in ("STARTING", "BACKOFF")
            and answers[server.label].answer is not ProbeAnswer.ANSWERED
        ]
        if not starting:
            break
        if monotonic() > deadline:
            raise TimedOutError(f"{', '.join(starting)} is still starting: see obcd host status, then pull again")
        if not is_said:
            say(f"waiting for {', '.join(starting)} to start: a pull and a start disturb each other")
            is_said = True
        time.sleep(0.2)
    for server in plan.servers:
        pid, answer = states[server.program].pid, answers[server.label].answer
        if pid and answer is ProbeAnswer.ANSWERED and not is_foreign(pid, server.port):
            return server
    raise NoEndpointError("no server of this host answers: see obcd host status")


def sees_model(plan: HostPlan, server: Server, model: str) -> bool:
    """Return whether a server lists a model."""
    found = probe(plan.url(server))
    return canonical_model(model.removeprefix("https://").removeprefix("http://")) in found.digests
