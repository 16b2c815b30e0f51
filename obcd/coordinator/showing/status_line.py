"""The status line for systemd, made from the view."""

from __future__ import annotations

from obcd.coordinator.endpoints.state_messages import WAITING
from obcd.coordinator.jobs.window_keeper import WAITS
from obcd.coordinator.view import DaemonState, LiveView
from obcd.text import duration, join_lines

#: Longest fault in the log, in STATUS= and among the troubles, in characters: systemd accepts 4096 bytes a message.
MAX_TEXT = 400


def status_line(view: LiveView) -> str:
    """Return one line for `systemctl status`, with troubles first.

    Example: `2 jobs, 41 % of 1000 requests, 12 min to go, 3/4 endpoints up`.
    """
    parts = [join_lines("; ".join(view.troubles), MAX_TEXT)] if view.troubles else []
    return "; ".join([*parts, ", ".join(_progress(view))])


def _progress(view: LiveView) -> list[str]:
    if view.state == DaemonState.STARTING:
        return ["recovering"]
    if view.state == DaemonState.DRAINING:
        return [f"stopping: {view.in_flight} requests in flight may finish"]
    leaving = len(view.endpoints) - len(view.staying)
    endpoints = [WAITING] if view.waits_for_host else [f"{view.up}/{len(view.staying)} endpoints up"]
    endpoints += [f"{leaving} leaving"] if leaving else []
    if not view.unfinished:
        return ["no jobs", *endpoints]
    count = f"{view.unfinished} job{'s' if view.unfinished > 1 else ''}"
    to_go = [f"{_about(view.eta_seconds)} to go"] if view.eta_seconds is not None else []
    waits = [text for text in view.notes if WAITS in text][:1] if not view.in_flight else []
    done = f"{100 * view.done // max(1, view.requests)} % of {view.requests} requests"
    return [count, done, *to_go, *waits, *endpoints]


def _about(seconds: float) -> str:
    """Return a rounded duration: `42 s`, `12 min`, `2 h 05 min`."""
    return duration(seconds) if seconds < 60 or seconds >= 3600 else f"{round(seconds / 60)} min"
