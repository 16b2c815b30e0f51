"""Keep all endpoints at full load for a time, and report on it; this module measures and prints nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypedDict

from obcd.benchmark.burn_in_verdict import BurnInTally, Oddity, find_usual
from obcd.benchmark.load_generator import LoadGenerator, LoadWork
from obcd.benchmark.samples import Sample
from obcd.clock import monotonic, timestamp
from obcd.config.endpoints import Endpoint
from obcd.core.request.records import JobSettings

#: Seconds between calls of `tell`.
TELL_SECONDS = 10.0
#: Requests in flight at an endpoint without configured slots: a server of `obcd host` has as many slots.
FULL = 16


class BurnIn:
    """One burn-in over all endpoints.

    Args:
        prompts: The number of different requests in `work`.
        seconds: The duration, counted from when every model is loaded.
    """

    def __init__(self, endpoints: Sequence[Endpoint], work: LoadWork, prompts: int, seconds: float) -> None:
        self._endpoints, self._work, self._prompts, self._wanted = endpoints, work, prompts, seconds
        self._stop = threading.Event()
        self._began = self._ended = monotonic()
        self.tallies = self._make_tallies()

    @property
    def seconds(self) -> float:
        """The duration of the run."""
        return self._ended - self._began

    def run(self, tell: Callable[[float], None]) -> None:
        """Load the model everywhere, then send requests; after KeyboardInterrupt `tallies` hold the measurements.

        Args:
            tell: Called at intervals with the seconds that are left.
        """
        crews = [LoadGenerator(endpoint, self._work, self._stop) for endpoint in self._endpoints]
        with ThreadPoolExecutor(max_workers=len(crews)) as pool:
            try:
                loads = dict(zip(crews, pool.map(LoadGenerator.load, crews), strict=True))
                self._began = monotonic()
                self.tallies = self._make_tallies()
                until = self._began + self._wanted
                futures = [pool.submit(self._ask, crew, until) for crew, fault in loads.items() if fault is None]
                for crew, fault in loads.items():
                    if fault is not None:
                        failed = Sample(prompt=0, began=0.0, ended=0.0, fault=fault.kind, message=fault.message)
                        self.tallies[crew.endpoint.name].take(failed)
                while wait(futures, TELL_SECONDS).not_done:
                    tell(max(0.0, until - monotonic()))
                self._ended = min(monotonic(), until)
            except KeyboardInterrupt:
                self._ended = monotonic()
                for tally in self.tallies.values():
                    tally.end(self._ended)
                raise
            finally:
                self._stop.set()
        for future in futures:
            future.result()

    def _ask(self, crew: LoadGenerator, until: float) -> None:
        crew.run(slots_of(crew.endpoint), self.tallies[crew.endpoint.name].take, until)

    def _make_tallies(self) -> dict[str, BurnInTally]:
        return {
            item.name: BurnInTally(slots_of(item), self._prompts, self._began, self._wanted) for item in self._endpoints
        }


def slots_of(endpoint: Endpoint) -> int:
    """Return how many requests an endpoint has in flight; without configured slots, those of an `obcd host` server."""
    return endpoint.slots or FULL


def report(
    run: BurnIn,
    oddities: Sequence[Oddity],
    left_out: Mapping[str, str],
    settings: JobSettings,
    versions: Mapping[str, str],
    began: float,
) -> dict[str, object]:
    """Return the result as it is written to the file.

    Args:
        left_out: `{endpoint: why it got no requests}`.
        versions: `{endpoint: version of its server}`.
        began: Unix seconds.
    """
    usual = find_usual(run.tallies)
    return {
        "began": timestamp(began),
        "seconds": run.seconds,
        "model": settings.model,
        "num_ctx": settings.num_ctx,
        "num_predict": settings.num_predict,
        "stand_ins": any("-obcd-" in version for version in versions.values()),
        "endpoints": [
            {"endpoint": name, "version": versions[name], **figures(tally, usual)}
            for name, tally in run.tallies.items()
        ],
        "left_out": dict(left_out),
        "odd": [{"endpoint": item.endpoint, "evidence": item.evidence, "sentence": item.sentence} for item in oddities],
    }


class BurnInFigures(TypedDict):
    """Counts, rates from 0 to 1, and tokens a second of one endpoint; None for a figure that does not exist."""

    answered: int
    failed: int
    tokens_per_second: float
    late_share: float | None
    compared: int
    differing_rate: float | None
    unsteady_rate: float | None


def figures(tally: BurnInTally, usual: Mapping[int, int]) -> BurnInFigures:
    """Return the figures of one endpoint.

    Args:
        usual: `{prompt: digest of the majority's answer}`.
    """
    other, compared = tally.count_other(usual)
    unsteady, answered = tally.count_other(tally.usual())
    return {
        "answered": tally.answered,
        "failed": tally.failed,
        "tokens_per_second": tally.tokens_per_second,
        "late_share": tally.late_share,
        "compared": compared,
        "differing_rate": other / compared if compared else None,
        "unsteady_rate": unsteady / answered if answered else None,
    }
