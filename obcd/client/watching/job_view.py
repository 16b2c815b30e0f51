"""Read what a coordinator shows of its work: all of it, or the progress of one drop."""

from __future__ import annotations

from obcd.coordinator.view import JobView, View
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.status_file import read_status
from obcd.spool.outbox import status_folders


def find_view(layout: Layout) -> View | None:
    """Return the last status of a spool's coordinator, or None where this user cannot read it; it may have ended."""
    try:
        return View.from_json(read_status(layout))
    except (OSError, ValueError):
        return None


def find_job(layout: Layout, drop_id: str, name: str, profile: str) -> JobView | None:
    """Return the progress of this user's drop, or None if it does not run or the version of its file is unknown."""
    try:
        return JobView.from_json(status_folders.find_progress(layout.outbox, drop_id, name, profile))
    except ValueError:
        return None
