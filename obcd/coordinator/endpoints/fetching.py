"""Fetch models that no endpoint of a host has: through one server of each host, one model at a time per host.

fetcher ─thread─► POST /api/pull ─► endpoint ─► the host's folder of models: its other servers see the model at once

Only models that the configuration names are fetched, and only while a job needs them: a model named in a line is
untrusted input, and a registry can be any address.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from obcd.config.endpoints import Endpoint
from obcd.coordinator.view import PullView
from obcd.core.endpoint.retry import pause
from obcd.core.request.records import plain_model
from obcd.errors import NoEndpointError
from obcd.logs.setup import fault_text
from obcd.ollama.pulling import Progress, stream_pull

logger = logging.getLogger(__name__)

#: First and longest pause, in seconds, before a failed pull is retried.
PULL_BASE, PULL_LIMIT = 10.0, 600.0
#: Seconds after a pull within which the host's endpoints list the model; they are probed at once.
TELL_SECONDS = 30.0
#: What a registry replies to a name that it does not know: a retry will not change that soon.
UNKNOWN = "file does not exist"


@dataclass(frozen=True, slots=True)
class PullSite:
    """An endpoint through which its host can fetch a model."""

    endpoint: Endpoint
    models: Collection[str]


class Pull:
    """One pull under way, in its own thread; the main thread reads its fields."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        self.failure = ""
        self.is_over = False
        self.percent = 0
        #: {digest of a file: (bytes received, bytes in all)}
        self._files: dict[str, tuple[int, int]] = {}
        threading.Thread(target=self._run, name="pull", daemon=True).start()

    def _run(self) -> None:
        self._log("fetching %s through %s", "pull_started")
        try:
            for progress in stream_pull(self.endpoint.url, self.model, self.endpoint.token):
                self._note(progress)
        except NoEndpointError as error:
            self.failure = str(error)
        except Exception as error:  # noqa: BLE001 - the main thread has to learn in any case that the pull is over
            self.failure = f"an unexpected error in obcd ({fault_text(error)})"
        if not self.failure:
            self._log("fetched %s through %s", "pull_ended")
        self.is_over = True

    def _note(self, progress: Progress) -> None:
        if not progress.digest:
            return
        self._files[progress.digest] = progress.completed_bytes, progress.total_bytes
        came, total = (sum(sizes) for sizes in zip(*self._files.values(), strict=True))
        percent = 100 * came // total if total else 0
        if percent // 10 > self.percent // 10:
            self._log("fetching %s through %s: %d %%", "pull_progress", percent // 10 * 10)
        self.percent = max(self.percent, percent)

    def _log(self, text: str, action: str, *more: object) -> None:
        extra = {"action": action, "endpoint": self.endpoint.name}
        logger.info(text, plain_model(self.model), self.endpoint.name, *more, extra=extra)


@dataclass(slots=True)
class _Failure:
    """The outcome of a host's last try, and when the next one is due."""

    reason: str
    tries: int
    retry_at: float


class Fetcher:
    """Starts the pulls. Main thread only; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        #: {host: the pull under way}
        self._pulls: dict[str, Pull] = {}
        #: {(host, model): why the host does not have it}
        self._failures: dict[tuple[str, str], _Failure] = {}
        #: {(host, model): when its pull ended}
        self._came: dict[tuple[str, str], float] = {}

    def tick(self, wanted: Collection[str], sites: Iterable[PullSite], now: float) -> list[str]:
        """Collect the pulls that ended, and start those that are missing.

        Args:
            wanted: Canonical names of models.
            sites: Endpoints that can be used now.

        Returns:
            The hosts that have got a model since the last call.
        """
        news = [host for host, pull in list(self._pulls.items()) if self._has_ended(host, pull, now)]
        self._came = {key: came for key, came in self._came.items() if now - came < TELL_SECONDS}
        self._failures = {key: failure for key, failure in self._failures.items() if key[1] in wanted}
        hosts: dict[str, list[PullSite]] = {}
        for site in sites:
            hosts.setdefault(site.endpoint.host, []).append(site)
        for host, own in hosts.items():
            model = self._next_missing(host, own, wanted, now)
            if model is not None and host not in self._pulls and host not in news:
                self._pulls[host] = Pull(own[0].endpoint, model)
        return news

    def coming(self) -> frozenset[str]:
        """Return the models that work may wait for: they are being fetched, will be retried, or have just arrived."""
        tried = {model for (_, model), failure in self._failures.items() if UNKNOWN not in failure.reason}
        come = {model for _, model in self._came}
        return frozenset({pull.model for pull in self._pulls.values()} | tried | come)

    def views(self) -> tuple[PullView, ...]:
        """Return the views of the pulls under way."""
        return tuple(
            PullView(endpoint=pull.endpoint.name, model=plain_model(pull.model), percent=pull.percent)
            for pull in self._pulls.values()
        )

    def troubles(self) -> list[str]:
        """Return a sentence for each model that could not be fetched."""
        return [
            f"{plain_model(model)} cannot be fetched by {host}: {failure.reason}"
            for (host, model), failure in sorted(self._failures.items())
        ]

    def _next_missing(self, host: str, own: list[PullSite], wanted: Collection[str], now: float) -> str | None:
        had = {model for site in own for model in site.models}
        for model in sorted(set(wanted) - had):
            failure = self._failures.get((host, model))
            if (host, model) not in self._came and (failure is None or now >= failure.retry_at):
                return model
        return None

    def _has_ended(self, host: str, pull: Pull, now: float) -> bool:
        """Collect a pull that is over; return whether the host has its model now."""
        if not pull.is_over:
            return False
        del self._pulls[host]
        key = host, pull.model
        if not pull.failure:
            self._failures.pop(key, None)
            self._came[key] = now
            return True
        tries = self._failures[key].tries + 1 if key in self._failures else 1
        wait = pause(tries, PULL_BASE, PULL_LIMIT, host)
        self._failures[key] = _Failure(pull.failure, tries, now + wait)
        extra = {"action": "pull_failed", "endpoint": pull.endpoint.name}
        text = "%s could not be fetched by %s: %s; next try in %.0f s"
        logger.warning(text, plain_model(pull.model), pull.endpoint.name, pull.failure, wait, extra=extra)
        return False
