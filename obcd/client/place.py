"""Where jobs are: the spool of a daemon, or the output folder of `obcd batch`; and what is there of one drop."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obcd.config.loading import find_configuration, find_root, load_settings
from obcd.config.settings import Settings
from obcd.core.tables.file_format import stem_of
from obcd.errors import InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.user_folders import find_places
from obcd.spool.outbox.publication import find_published
from obcd.spool.outbox.publish_rename import MANIFEST
from obcd.text import printable


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """A spool, and the configuration with which its jobs are submitted."""

    settings: Settings
    layout: Layout

    @classmethod
    def find(cls, config: str | os.PathLike[str] | None, root: str | os.PathLike[str] | None) -> SpoolPlace:
        """Return the spool as the commands find it: by `--config` and `--root`, `$OBCD_CONFIG` and `$OBCD_ROOT` …

        Raises:
            ConfigurationError: If the configuration is wrong.
            InputError: If there is no inbox.
        """
        settings = load_settings(find_configuration(None if config is None else os.fspath(config)))
        top = find_root(None if root is None else os.fspath(root), settings)
        layout = Layout.at(top, settings.spool.inbox, per_user=settings.spool.per_user)
        if not layout.inbox.is_dir():
            raise InputError(
                f"there is no inbox at {printable(str(layout.inbox))}: start a coordinator (obcd up), give its root=, "
                "or use obcd.batch(...), which needs none"
            )
        return cls(settings, layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPlace:
    """One drop of a place.

    Attributes:
        name: Its name in the inbox, e.g. `notes.jsonl`.
        profile: Its folder there; "" for the inbox itself.
        drop_id: Its id; "" if it has none: then name and content identify it.
        sha256: The digest of its content; "" if that is not known.
    """

    layout: Layout
    name: str
    profile: str = ""
    drop_id: str = ""
    sha256: str = ""

    def find_published(self) -> tuple[Path, dict[str, Any]] | None:
        """Return its folder in the outbox and the manifest; None while there is none. A rejected drop has one too."""
        if self.drop_id:
            return find_published(self.layout.outbox, self.drop_id, self.name, self.profile)
        newest: tuple[str, Path, dict[str, Any]] | None = None
        for place in find_places(self.layout.outbox, os.geteuid(), self.profile):
            for path in place.glob(f"*/{MANIFEST}"):
                if not path.parent.name.startswith(stem_of(self.name)):
                    continue
                manifest = _read(path)
                if manifest.get("name") == self.name and self._is_content_of(manifest):
                    at = str(manifest.get("times", {}).get("published_at"))
                    if newest is None or at > newest[0]:
                        newest = at, path.parent, manifest
        return newest and newest[1:]

    def _is_content_of(self, manifest: dict[str, Any]) -> bool:
        return not self.sha256 or manifest.get("input", {}).get("sha256") == self.sha256


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = disk.read_json(path)
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
