"""Has models fetched that no endpoint of a host has: by one server of each host, one at a time there.

fetcher ─thread─► POST /api/pull ─► endpoint ─► the host's folder of models: its other servers see it at once

Only models that the configuration names are fetched, and only while a job needs them: what a line names is a stranger's
choice, and a registry can be any address.
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

#: First and longest pause, in seconds, before a pull that failed is tried again.
PULL_BASE, PULL_LIMIT = 10.0, 600.0
#: Seconds after a pull in which the host's endpoints tell of the model; they are probed at once.
TELL_SECONDS = 30.0
#: What a registry says of a name that it does not know: another try will not change that soon.
UNKNOWN = "file does not exist"


@dataclass(frozen=True, slots=True)
class PullSite:
    """An endpoint by which its host can be asked for a model."""

    endpoint: Endpoint
    models: Collection[str]


class Pull:
    """One pull under way, in a thread of its own; its fields are read by the main thread."""

    def __init__(self, endpoint: Endpoint, model: str) -> None:
        self.endpoint, self.model = endpoint, model
        self.failure = ""
        self.is_over = False
        self.percent = 0
        #: {digest of a file: (bytes that came, bytes of all)}
        self._files: dict[str, tuple[int, int]] = {}
        threading.Thread(target=self._run, name="pull", daemon=True).start()

    def _run(self) -> None:
        self._log("%s is fetched by %s", "pull_started")
        try:
            for progress in stream_pull(self.endpoint.url, self.model, self.endpoint.token):
                self._note(progress)
        except NoEndpointError as error:
            self.failure = str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the main thread has to learn that it is over
            self.failure = f"it failed as nothing should ({fault_text(error)})"
        if not self.failure:
            self._log("%s is there, fetched by %s", "pull_ended")
        self.is_over = True

    def _note(self, progress: Progress) -> None:
        if not progress.digest:
            return
        self._files[progress.digest] = progress.completed_bytes, progress.total_bytes
        came, total = (sum(sizes) for sizes in zip(*self._files.values(), strict=True))
        percent = 100 * came // total if total else 0
        if percent // 10 > self.percent // 10:
            self._log("%s is fetched by %s: %d %%", "pull_progress", percent // 10 * 10)
        self.percent = max(self.percent, percent)

    def _log(self, text: str, action: str, *more: object) -> None:
        extra = {"action": action, "endpoint": self.endpoint.name}
        logger.info(text, plain_model(self.model), self.endpoint.name, *more, extra=extra)


@dataclass(slots=True)
class _Failure:
    """What became of the last try of a host, and when the next one is."""

    reason: str
    tries: int
    retry_at: float


class Fetcher:
    """Main thread only; `now` is monotonic seconds."""

    def __init__(self) -> None:
        #: {host: what it fetches}
        self._pulls: dict[str, Pull] = {}
        #: {(host, model): why it has it not}
        self._failures: dict[tuple[str, str], _Failure] = {}
        #: {(host, model): when it came}
        self._came: dict[tuple[str, str], float] = {}

    def tick(self, wanted: Collection[str], sites: Iterable[PullSite], now: float) -> list[str]:
        """Take in what ended, and begin what is missing.

        Args:
            wanted: Canonical names of models.
            sites: Endpoints that can be asked now.

        Returns:
            The hosts that have another model since the last call.
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
        """Return the models for which work may wait: they are fetched, will be tried again, or came just now."""
        tried = {model for (_, model), failure in self._failures.items() if UNKNOWN not in failure.reason}
        come = {model for _, model in self._came}
        return frozenset({pull.model for pull in self._pulls.values()} | tried | come)

    def views(self) -> tuple[PullView, ...]:
        """Return what is shown of the pulls under way."""
        return tuple(
            PullView(endpoint=pull.endpoint.name, model=plain_model(pull.model), percent=pull.percent)
            for pull in self._pulls.values()
        )

    def troubles(self) -> list[str]:
        """Return what could not be fetched, for people."""
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
        """Take in a pull that is over; return whether it brought its model."""
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
        text = "%s could not be fetched by %s: %s; it is tried again in %.0f s"
        logger.warning(text, plain_model(pull.model), pull.endpoint.name, pull.failure, wait, extra=extra)
        return False
