"""The actor: it owns one GPU by Ray's count, and runs the guard of one server.

    keeper ── look, drain ──► GpuServer (a process of Ray) ── lines ──► guard ──► ollama serve

It starts the guard in its own process group, which Ray ends with it. An actor that ends in any other way than by
`ray.kill` is started again by Ray, on a GPU that Ray chooses. Ray's workers import this module; only the methods import
Ray.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from obcd.clock import monotonic
from obcd.ray.messages import REPORT_SECONDS, GuardState, ServerReport

logger = logging.getLogger(__name__)

GUARD = (sys.executable, "-m", "obcd.ray.guard")
#: The calls that may be under way at once: a look of the keeper waits inside the actor, and one of another command.
CALLS_AT_ONCE = 8
#: Seconds after which another keeper may take an actor over.
TAKEOVER_SECONDS = 30.0
#: Seconds between two starts of a guard that ended by itself: from, to.
PAUSES = (1.0, 60.0)


class GpuServer:
    """One server on one GPU of a Ray cluster.

    Args:
        wish: A `ServerWish`, as JSON.
    """

    def __init__(self, wish: dict[str, object]) -> None:
        import ray  # noqa: PLC0415 - see the top

        self._me = ray.get_runtime_context().current_actor
        self._begin: dict[str, object] = {"wish": wish, "bind": ray.util.get_node_ip_address()}
        self._changed = threading.Condition()
        self._number = 0
        self._report: dict[str, Any] = json.loads(json.dumps(ServerReport(node=socket.gethostname()).to_json()))
        self._keeper, self._seen_at = "", 0.0
        self._guard: subprocess.Popen[bytes] | None = None
        threading.Thread(target=self._keep_guard, name="guard", daemon=True).start()

    def look(self, keeper: str, known: int) -> dict[str, Any]:
        """Renew the lease, and return the report as soon as it is not the known one, or after some seconds.

        Args:
            keeper: Who asks, `machine/process`; "" only looks, and does not renew the lease.
            known: The number of the last report that the caller has.

        Returns:
            `{"number": 7, "held_by": "", "report": {…}}`; `held_by` names another keeper if that one renews the lease.
        """
        with self._changed:
            if held_by := self._other_keeper(keeper):
                return {"number": self._number, "held_by": held_by, "report": self._report}
            if keeper:
                self._keeper, self._seen_at = keeper, monotonic()
                self._order({"lease": True})
                self._changed.wait_for(lambda: self._number != known, REPORT_SECONDS)
            return {"number": self._number, "held_by": "", "report": self._report}

    def drain(self, seconds: float, cause: str) -> None:
        """Let the server finish what is in flight, some seconds at most, and end it; the report says when."""
        with self._changed:
            self._order({"drain": seconds, "cause": cause})

    def _other_keeper(self, keeper: str) -> str:
        """Return the keeper of another machine that has renewed the lease lately."""
        machine = self._keeper.partition("/")[0]
        is_other = bool(keeper and machine) and keeper.partition("/")[0] != machine
        return self._keeper if is_other and monotonic() - self._seen_at < TAKEOVER_SECONDS else ""

    def _order(self, order: dict[str, object]) -> None:
        guard = self._guard
        if guard is not None and guard.stdin is not None:
            with contextlib.suppress(OSError, ValueError):  # it has just ended; its thread starts another one
                guard.stdin.write(json.dumps(order).encode() + b"\n")
                guard.stdin.flush()

    def _keep_guard(self) -> None:
        """Start the guard, and again when it ends by itself; end the actor when the server is to stay ended."""
        pause = PAUSES[0]
        while True:
            began = monotonic()
            try:
                with self._start_guard() as guard:
                    self._read(guard)
            except OSError as error:  # no process can be started now
                logger.warning("no guard: %s", error.strerror, extra={"action": "guard_failed"})
            if self._report["state"] == GuardState.ENDED:
                self._end()
                return
            pause = PAUSES[0] if monotonic() - began > PAUSES[1] else min(2 * pause, PAUSES[1])
            time.sleep(pause)

    def _start_guard(self) -> subprocess.Popen[bytes]:
        guard = subprocess.Popen(
            GUARD, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip
        with self._changed:
            self._guard = guard
            self._order(self._begin)
        return guard

    def _read(self, guard: subprocess.Popen[bytes]) -> None:
        assert guard.stdout is not None
        for line in guard.stdout:
            with self._changed:
                self._report = json.loads(line)
                self._number += 1
                self._changed.notify_all()

    def _end(self) -> None:
        """End this actor for good, unless the keeper does it first: a plain exit would be started again."""
        import ray  # noqa: PLC0415

        time.sleep(REPORT_SECONDS)
        ray.kill(self._me, no_restart=True)
