"""Show the progress of a job: in a notebook, on a terminal, or in plain lines; nothing where nobody watches."""

from __future__ import annotations

import html
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from obcd.clock import monotonic
from obcd.coordinator.view import JobView
from obcd.text import duration, one_line, printable

#: Seconds between two plain lines.
PLAIN_SECONDS = 10.0
#: Shown while the coordinator has not accepted the job.
NOT_YET = "waiting for the coordinator"


class ProgressView(Protocol):
    """Takes the state of a job again and again, inside a `with` block."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *details: object) -> None:
        """Show nothing more."""

    def show(self, job: JobView | None) -> None:
        """Show the state; None while the job does not run."""


def find_progress_view(name: str, total: int, *, wanted: bool | None, not_yet: str = NOT_YET) -> ProgressView:
    """Return the view that suits the program.

    Args:
        name: The job, for people.
        total: Its rows; 0 if they are not known.
        wanted: None: only where somebody watches, in a notebook or on a terminal.
        not_yet: The words for a job that does not run yet.
    """
    if wanted is False:
        return Silent()
    name = printable(name)
    if display := _notebook_display():
        return NotebookBar(name, total, display, not_yet)
    if all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr)):
        return TerminalBar(name, total, not_yet)
    return PlainLines(name, not_yet) if wanted else Silent()


def _notebook_display() -> Callable[..., Any] | None:
    """Return IPython's `display` inside a notebook's kernel; None elsewhere. Imports nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display  # noqa: PLC0415 - in a kernel it is loaded already

    return display  # type: ignore[no-any-return, unused-ignore]


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None: ...

    def show(self, job: JobView | None) -> None:
        """Show nothing."""


class PlainLines(Silent):
    """A line on standard error every few seconds, for logs."""

    def __init__(self, name: str, not_yet: str) -> None:
        self._name, self._not_yet = name, not_yet
        self._shown_at = monotonic()

    def show(self, job: JobView | None) -> None:
        """Write a line if it is due."""
        if monotonic() - self._shown_at >= PLAIN_SECONDS and sys.stderr is not None:
            self._shown_at = monotonic()
            sys.stderr.write(f"{self._name}: {describe(job, self._not_yet)}\n")


class TerminalBar(Silent):
    """The bar of `obcd submit --wait`."""

    def __init__(self, name: str, total: int, not_yet: str) -> None:
        from obcd.client.watching.bars import JobBar  # noqa: PLC0415 - rich takes 0.1 s to import; only terminals need it

        self._bar, self._not_yet = JobBar(name, total), not_yet

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.stop()

    def show(self, job: JobView | None) -> None:
        """Redraw the bar."""
        if job is None:
            self._bar.note(self._not_yet)
        else:
            self._bar.show(job, printable(job.trouble))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A state as a notebook shows it: an element of HTML, and the same as text."""

    name: str
    done: int
    total: int
    text: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.text}"

    def _repr_html_(self) -> str:
        value = f' value="{self.done}" max="{self.total}"' if self.total else ""
        return (
            f"<div><code>{html.escape(self.name)}</code> <progress{value} style='width: 18em; vertical-align: middle'>"
            f"</progress> {html.escape(self.text)}</div>"
        )


class NotebookBar:
    """A bar below the cell, redrawn in place; without ipywidgets, so it shows wherever HTML does."""

    def __init__(self, name: str, total: int, display: Callable[..., Any], not_yet: str) -> None:
        self._name, self._total, self._not_yet = name, total, not_yet
        self._display = display
        self._handle: Any = None
        self._last = Drawn(name, 0, total, not_yet)

    def __enter__(self) -> Self:
        self._handle = self._display(self._last, display_id=True)
        return self

    def __exit__(self, *details: object) -> None:
        if details[:1] == (None,):
            self._draw(Drawn(self._name, self._total, self._total, "finished"))

    def show(self, job: JobView | None) -> None:
        """Redraw the bar if something changed."""
        if job is not None:
            self._total = job.total
        self._draw(Drawn(self._name, job.done if job is not None else 0, self._total, describe(job, self._not_yet)))

    def _draw(self, drawn: Drawn) -> None:
        if drawn != self._last and self._handle is not None:
            self._last = drawn
            self._handle.update(drawn)


def describe(job: JobView | None, not_yet: str = NOT_YET) -> str:
    """Return the state of a job in one line: `412/1000, 3 failed, 1204 tokens/s, ETA 2 min 10 s`."""
    if job is None:
        return not_yet
    if job.trouble:
        return one_line(job.trouble)
    speed, eta = f"{job.tokens_per_second:.0f} tokens/s", f"ETA {duration(job.eta_seconds)}"
    return f"{job.done}/{job.total}, {job.failed} failed, {speed}, {eta}"
