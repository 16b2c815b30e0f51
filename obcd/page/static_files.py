"""Style, script, icon and uPlot: read once at the start, with a name that changes with the content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("assets", "vendor")
KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
#: Where they are served.
PREFIX = "/static/"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is served, plain and packed."""

    kind: str
    plain: bytes
    packed: bytes


class StaticFiles:
    """The files of this package that browsers get; there is no way to any other file."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self._served: dict[str, StaticFile] = {}
        self._urls: dict[str, str] = {}
        for folder in FOLDERS:
            for path in sorted((here / folder).iterdir()):
                if path.suffix in KINDS:
                    self._add(path)

    def _add(self, path: Path) -> None:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:12]
        name = f"{path.name.removesuffix(path.suffix)}-{digest}{path.suffix}"
        self._urls[path.name] = PREFIX + name
        self._served[name] = StaticFile(KINDS[path.suffix], content, gzip.compress(content, 9, mtime=0))

    def url(self, name: str) -> str:
        """Return the address of a file, e.g. `/static/page-0f3c….css`."""
        return self._urls[name]

    def find(self, name: str) -> StaticFile | None:
        """Return a file by the last part of its address."""
        return self._served.get(name)
