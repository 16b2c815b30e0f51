"""The API of one spool: who may run it, where its files lie, whose tokens count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from obcd.api.token_file import TokenFile
from obcd.config.settings import Settings
from obcd.config.tables import Api
from obcd.errors import ConfigurationError, InputError
from obcd.spool.folders import disk
from obcd.spool.folders.layout import Layout, make_own
from obcd.spool.inbox.submitters import find_uid
from obcd.users import user_name

#: The folder of the API in the root.
FOLDER = "api"


@dataclass(frozen=True, slots=True)
class ApiPlace:
    """The API of one spool.

    Attributes:
        daemon: The coordinator's user, who owns the inbox.
    """

    settings: Settings
    layout: Layout
    daemon: int

    @classmethod
    def of(cls, settings: Settings, layout: Layout) -> ApiPlace:
        """Return the API of a spool.

        Raises:
            ConfigurationError: If the configuration has none.
            InputError: If the coordinator has not made its folders, or has not let this user in.
        """
        if not settings.api.enabled:
            raise ConfigurationError(
                f"the API is off: set enabled = true in [api] of {settings.source or 'a configuration'}, "
                "then obcd reload"
            )
        try:
            daemon = layout.inbox.stat().st_uid
        except OSError as error:
            raise InputError(
                f"cannot reach the inbox {layout.inbox}: {error.strerror}; start the coordinator with this "
                "configuration first, it lets the user of [api] in"
            ) from None
        return cls(settings, layout, daemon)

    @property
    def api(self) -> Api:
        """Its part of the configuration."""
        return self.settings.api

    @property
    def folder(self) -> Path:
        """Where uploads and records lie."""
        return self.layout.root / FOLDER

    @property
    def tokens_file(self) -> Path:
        """The file with the digests of the tokens."""
        if self.api.tokens_file is None:
            return self.folder / "tokens"
        beside = self.settings.source.parent if self.settings.source is not None else Path()
        return beside / self.api.tokens_file

    @property
    def owner(self) -> int | None:
        """The user to whom its files belong; None if there is no such user on this machine."""
        return self.daemon if os.geteuid() == self.daemon else find_uid(self.api.user)

    def tokens(self) -> TokenFile:
        """Return the tokens that count.

        Raises:
            ConfigurationError: If this process runs as another user than the one of `[api]` and the coordinator's.
        """
        mine = os.geteuid()
        if mine == self.daemon:  # it drops its own batches: it may not drop for others
            return TokenFile(self.tokens_file, (), only=mine)
        if mine != find_uid(self.api.user) or mine == 0:
            raise ConfigurationError(
                f"obcd api runs as {user_name(mine)}, and the coordinator takes drops for others from [api] user = "
                f'"{self.api.user}" alone: run it as that user (systemctl start obcd-api), or set user'
            )
        return TokenFile(self.tokens_file, (0, self.daemon))

    def give_folder(self, owner: int) -> None:
        """Make the API's folder for its user, by root or by that user; one that is there stays as it is.

        The parent may be another user's, who could put a link there meanwhile: nothing is changed but what was made.

        Raises:
            OSError: If it cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        with disk.opened(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor:
            if os.fstat(descriptor).st_uid == os.geteuid() != owner:
                os.fchown(descriptor, owner, -1)
        disk.sync_folder(self.layout.root)

    def open_folder(self) -> None:
        """Make the API's folder if it is missing.

        Raises:
            InputError: If it cannot be made, or is not closed to others.
        """
        try:
            make_own(self.folder)
        except PermissionError:
            user = user_name(os.geteuid())
            raise InputError(f"{self.folder} is missing: `obcd api token NAME`, as root, makes it for {user}") from None
        except OSError as error:
            raise InputError(f"cannot make {self.folder}: {error.strerror}") from None
