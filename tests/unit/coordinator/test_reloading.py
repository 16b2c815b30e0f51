"""A configuration is believed when it was the same twice, and whole; no coordinator is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from obcd.clock import monotonic
from obcd.config.loading import load_settings
from obcd.coordinator.main_loop import Coordinator
from obcd.coordinator.reloading import PATIENCE_SECONDS, SETTLE_SECONDS, Reloader
from obcd.coordinator.view import ReloadView
from obcd.errors import ExitCode
from obcd.spool.folders.layout import Layout
from tests.golden.wording import wording

FULL = 'model = "m"\n[ollama_instances]\n"10.0.0.1:1" = 0\n"10.0.0.1:2" = 1\n'


class Bench:
    """A coordinator that was not started, its file, and its reloader."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "obcd.toml"
        self.file.write_text(text, "utf-8")
        layout = Layout.at(folder / "root")
        layout.create([])
        self.coordinator = Coordinator(load_settings(self.file), layout)
        self.reloader = Reloader(self.coordinator, lambda: (load_settings(self.file), layout))

    def write(self, text: str) -> None:
        self.file.write_text(text, "utf-8")

    def finish(self, now: float = 0.0) -> ReloadView:
        """Take the turns that the reloader asks for, and return the outcome."""
        before = len(self.reloads)
        while len(self.reloads) == before:
            now += self.reloader.tick(now)
        return self.reloads[-1]

    @property
    def reloads(self) -> tuple[ReloadView, ...]:
        return self.coordinator.view(0.0).reloads

    @property
    def endpoints(self) -> list[str]:
        return [item.name for item in self.coordinator.endpoints.members]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, FULL)
    yield made
    made.coordinator._recorder.stop(5)


def test_nothing_is_looked_at_until_it_is_asked(bench: Bench) -> None:
    bench.write("rubbish")

    assert bench.reloader.tick(1.0) == float("inf")
    assert not bench.reloads


def test_file_is_applied_when_it_was_the_same_twice(bench: Bench) -> None:
    bench.write(FULL + '"10.0.0.1:3" = 2\n')

    bench.reloader.ask(5.0)
    assert bench.reloader.tick(5.0) == SETTLE_SECONDS
    assert bench.reloader.tick(5.1) == pytest.approx(SETTLE_SECONDS - 0.1)
    assert len(bench.endpoints) == 2
    between = monotonic()
    bench.reloader.tick(5.0 + SETTLE_SECONDS)

    (outcome,) = bench.reloads
    assert (outcome.is_ok, outcome.text) == (True, "1 endpoint added")
    assert outcome.began >= between  # so it answers whoever asked in between
    assert bench.reloader.tick(6.0) == float("inf")


def test_hosts_that_register_may_take_the_place_of_the_list_and_are_not_lost_with_the_rest_of_a_file(
    bench: Bench, tmp_path: Path
) -> None:
    bench.write(f'model = "m"\n[cluster]\nhosts = "{tmp_path}"\n')
    bench.reloader.ask(0.0)
    assert bench.finish().is_ok
    assert bench.coordinator.endpoints.waits_for_host

    bench.write('model = "m"\n')
    bench.reloader.ask(10.0)
    assert not bench.finish(10.0).is_ok


def test_file_that_is_being_written_is_waited_for(bench: Bench) -> None:
    lines = (FULL + '"10.0.0.1:3" = 2\n').splitlines(keepends=True)
    now = 0.0
    bench.reloader.ask(now)
    for number in range(1, len(lines) + 1):
        bench.write("".join(lines[:number]))
        now += bench.reloader.tick(now)
        assert len(bench.endpoints) == 2

    assert bench.finish(now).text == "1 endpoint added"


def test_who_asks_again_meanwhile_does_not_put_it_off(bench: Bench) -> None:
    bench.reloader.ask(0.0)
    bench.reloader.tick(0.0)
    bench.reloader.ask(0.1)
    bench.reloader.tick(SETTLE_SECONDS)

    assert [outcome.text for outcome in bench.reloads] == ["nothing changed"]


def test_file_that_never_settles_is_given_up(bench: Bench) -> None:
    now = 0.0
    bench.reloader.ask(now)
    while not bench.reloads:
        bench.write(FULL + "#" * int(now * 10))
        now += bench.reloader.tick(now)

    assert now < PATIENCE_SECONDS + 1
    outcome = bench.reloads[-1]
    assert (outcome.is_ok, outcome.exit_code) == (False, ExitCode.CONFIGURATION)
    assert wording("goes-on-changing") in outcome.text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", wording("has-no-ollama-instances-any-more")),
        ('model = "m"\n', wording("has-no-ollama-instances-any-more")),
        ('model = "m"\n[ollama_instances]\n"10.0', wording("is-not-toml")),
    ],
)
def test_rest_of_a_file_sends_no_endpoint_away(bench: Bench, text: str, reason: str) -> None:
    bench.write(text)
    bench.reloader.ask(0.0)

    outcome = bench.finish()

    assert (outcome.is_ok, outcome.exit_code) == (False, ExitCode.CONFIGURATION)
    assert reason in outcome.text
    assert len(bench.endpoints) == 2
    trouble = bench.coordinator.view(0.0).troubles[0]
    assert trouble.startswith("reload failed: ")
    assert trouble.endswith(wording("the-old-configuration-stays"))


def test_empty_file_is_refused_by_who_had_anything_and_taken_by_who_had_nothing(tmp_path: Path) -> None:
    for number, (text, told) in enumerate((('model = "m"\n', "is empty"), ("# defaults\n", "nothing changed"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = Bench(folder, text)
        made.write("")
        made.reloader.ask(0.0)
        assert told in made.finish().text
        made.coordinator._recorder.stop(5)


def test_stop_refuses_at_once_what_is_pending(bench: Bench) -> None:
    bench.reloader.ask(0.0)
    bench.reloader.tick(0.0)
    bench.coordinator.drain()
    bench.reloader.tick(0.01)

    assert bench.reloads[-1].text.startswith(wording("the-coordinator-is-stopping"))


def test_root_that_is_named_anew_and_moves_nothing_is_no_change(bench: Bench) -> None:
    bench.write(FULL + '[spool]\nroot = "/elsewhere"\n')  # --root rules
    bench.reloader.ask(0.0)

    assert bench.finish().text == "nothing changed"
