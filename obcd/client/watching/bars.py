"""The progress bar of one job, for a person at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from obcd.coordinator.view import JobView
from obcd.text import duration


class JobBar:
    """`notes.jsonl ━━━━━━━━━ 412/1000  3 failed  1 204 tokens/s  ETA 2 min 10 s`, redrawn in place on stderr."""

    def __init__(self, name: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(name, total=total, note="")

    def start(self) -> None:
        """Begin to draw."""
        self._progress.start()

    def stop(self) -> None:
        """Remove the bar from the screen."""
        self._progress.stop()

    def note(self, text: str) -> None:
        """Show a remark instead of figures."""
        self._progress.update(self._task, note=text)

    def show(self, job: JobView, trouble: str) -> None:
        """Show figures, or the reason why there are none."""
        if trouble:
            self.note(trouble)
            return
        speed, eta = f"{job.tokens_per_second:.0f} tokens/s", f"ETA {duration(job.eta_seconds)}"
        self._progress.update(self._task, completed=job.done, note=f"{job.failed} failed  {speed}  {eta}")
