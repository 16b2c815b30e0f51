"""The file in which the watch says what it sees, for readers that need nothing else of it."""

from __future__ import annotations

FILE_NAME = "watch.json"
#: Age of the file in seconds above which the watch is dead or stuck.
STALE_SECONDS = 15.0
