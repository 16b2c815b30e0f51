"""Who fetches what, when it is tried again, and what work may wait for. No server is asked."""

from __future__ import annotations

import itertools
import logging

import pytest

from obcd.config.endpoints import Endpoint, parse_endpoint
from obcd.coordinator.endpoints import fetching
from obcd.coordinator.endpoints.fetching import PULL_LIMIT, TELL_SECONDS, UNKNOWN, Fetcher, Pull, PullSite
from obcd.ollama.pulling import Progress
from tests.golden.wording import wording

MODEL = "qwen3:8b"


class Pulls:
    """Stands for the pulls under way: a test ends them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[Pull] = []
        monkeypatch.setattr(fetching.Pull, "_run", lambda pull: None)
        begin = fetching.Pull.__init__

        def note(pull: Pull, endpoint: Endpoint, model: str) -> None:
            begin(pull, endpoint, model)
            self.begun.append(pull)

        monkeypatch.setattr(fetching.Pull, "__init__", note)

    def take(self) -> list[tuple[str, str]]:
        """Return what was begun since the last call: `[(endpoint, model)]`."""
        begun, self.begun = self.begun, []
        self.last = begun[-1] if begun else None
        return [(pull.endpoint.name, pull.model) for pull in begun]

    def end(self, failure: str = "") -> None:
        assert self.last is not None
        self.last.failure, self.last.is_over = failure, True


@pytest.fixture
def pulls(monkeypatch: pytest.MonkeyPatch) -> Pulls:
    return Pulls(monkeypatch)


def sites(**models: str) -> list[PullSite]:
    """Return endpoints; `one_11432="a b"` is `one:11432`, which has the models a and b."""
    return [PullSite(parse_endpoint(name.replace("_", ":")), found.split()) for name, found in models.items()]


def test_one_server_of_each_host_fetches_what_its_host_has_not(pulls: Pulls) -> None:
    made = Fetcher()
    there = sites(one_11432="", one_11433="", two_11432=MODEL, two_11433="", three_11432="")

    made.tick({MODEL}, there, 0.0)

    assert pulls.take() == [("one:11432", MODEL), ("three:11432", MODEL)]
    made.tick({MODEL}, there, 5.0)
    assert pulls.take() == []
    assert made.coming() == {MODEL}


def test_nothing_is_fetched_that_nobody_wants(pulls: Pulls) -> None:
    Fetcher().tick(set(), sites(one_11432=""), 0.0)

    assert pulls.take() == []


def test_one_host_fetches_one_model_after_the_other(pulls: Pulls) -> None:
    made = Fetcher()
    made.tick({"a:1", "b:1"}, sites(one_11432=""), 0.0)
    assert pulls.take() == [("one:11432", "a:1")]

    pulls.end()
    assert made.tick({"a:1", "b:1"}, sites(one_11432=""), 5.0) == ["one"]  # its endpoints are probed first
    made.tick({"a:1", "b:1"}, sites(one_11432="a:1"), 10.0)

    assert pulls.take() == [("one:11432", "b:1")]


def test_work_waits_until_the_endpoints_tell_of_what_came(pulls: Pulls) -> None:
    made = Fetcher()
    made.tick({MODEL}, sites(one_11432=""), 0.0)
    pulls.take()
    pulls.end()

    made.tick({MODEL}, sites(one_11432=""), 5.0)

    assert made.coming() == {MODEL}
    made.tick({MODEL}, sites(one_11432=MODEL), 5.0 + TELL_SECONDS)
    assert made.coming() == set()
    assert pulls.take() == []


def test_failure_is_told_and_tried_again_with_growing_pauses_while_work_waits(
    pulls: Pulls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made, begun, now = Fetcher(), list[float](), 0.0
    while now < 7200:
        made.tick({MODEL}, sites(one_11432=""), now)
        if pulls.take():
            begun.append(now)
            pulls.end("the server stopped sending")
        now += 5.0

    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert gaps[0] < 30
    assert 0.7 * PULL_LIMIT <= gaps[-1] <= PULL_LIMIT + 20
    assert made.coming() == {MODEL}
    assert made.troubles() == [wording("cannot-be-fetched-by-one-the", MODEL)]
    assert wording("could-not-be-fetched-by-one", MODEL) in caplog.text
    made.tick(set(), [], now)
    assert made.troubles() == []
    assert made.coming() == set()


def test_work_does_not_wait_for_a_model_that_no_registry_knows(pulls: Pulls) -> None:
    made = Fetcher()
    made.tick({MODEL}, sites(one_11432=""), 0.0)
    pulls.take()
    pulls.end(f"{MODEL}: pull model manifest: {UNKNOWN}")

    made.tick({MODEL}, sites(one_11432=""), 5.0)

    assert made.coming() == set()
    assert made.troubles()


def test_progress_is_told_by_tenths_over_all_files(pulls: Pulls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pull = Pull(parse_endpoint("one:11432"), MODEL)

    pull._note(Progress("pulling manifest"))
    for came in range(0, 101, 2):
        pull._note(Progress("pulling a", "sha256:a", 1000, came * 10))
    pull._note(Progress("pulling b", "sha256:b", 10, 10))

    assert pull.percent == 100
    told = [record.getMessage() for record in caplog.records]
    assert told == [wording("is-fetched-by-one-11432", MODEL, tenth) for tenth in range(10, 101, 10)]
