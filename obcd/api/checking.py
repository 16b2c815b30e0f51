"""Check `[api]`: its user, the folders that it must reach, and the tokens. Nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator

from obcd.api.place import ApiPlace
from obcd.api.token_file import read_entries
from obcd.config.settings import Settings
from obcd.coordinator.spool_setup import letters_of, wanted_by_api
from obcd.diagnostics.findings import Finding, fault, note, right, warning
from obcd.errors import InputError
from obcd.spool.folders import acl
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.permissions import quoted, shown
from obcd.spool.inbox.submitters import find_uid
from obcd.text import plural, printable
from obcd.users import user_name

SUBJECT = "api"


def examine_api(settings: Settings, layout: Layout) -> Iterator[Finding]:
    """Yield the findings about the API; none while it is off."""
    if not settings.api.enabled:
        return
    try:
        place = ApiPlace.of(settings, layout)
    except InputError as error:
        yield warning(SUBJECT, str(error))
        return
    owner = place.owner
    if owner is None:
        user = printable(settings.api.user)
        yield fault(SUBJECT, f"at [api] user: this machine has no user '{user}'", "sudo obcd install --user obcd")
        return
    if owner != place.daemon:
        yield from _closed_folders(place, owner)
    yield from _tokens(place, owner)


def _closed_folders(place: ApiPlace, owner: int) -> Iterator[Finding]:
    for folder, permissions in wanted_by_api(place.layout, place.api.profile).items():
        try:
            mode = folder.stat().st_mode
        except OSError:
            continue  # it is made by the coordinator, or the check of the folders says what is wrong
        if mode & permissions != permissions and owner not in acl.readers(folder):
            why = f"{shown(folder)} is closed to [api] user, so that no batch is taken or found"
            name, letters = user_name(owner), letters_of(permissions)
            yield fault(SUBJECT, why, f"sudo setfacl -m u:{name}:{letters} {quoted(folder)}")


def _tokens(place: ApiPlace, owner: int) -> Iterator[Finding]:
    path, own = place.tokens_file, os.geteuid()
    if own not in (0, owner):
        yield note(SUBJECT, f"the tokens are for root and {user_name(owner)} to check", "sudo obcd check")
        return
    try:
        entries = read_entries(path, (owner,))
    except ValueError as error:
        yield fault(SUBJECT, f"no token is valid: {error}", f"sudo ls -l {quoted(path)}")
        return
    if not entries:
        yield warning(SUBJECT, "there is no token yet, so that nobody can use it", "sudo obcd api token NAME")
        return
    users = dict.fromkeys(item.user for item in entries)
    refused = {user: why for user in users if (why := _refusal(user, place, owner))}
    for user, why in refused.items():
        name = printable(user)
        yield warning(SUBJECT, f"the tokens of {name} are refused: {why}", f"sudo obcd api revoke {name}")
    if not refused:
        yield right(SUBJECT, f"{plural(len(entries), 'token')} of {plural(len(users), 'user')}")


def _refusal(user: str, place: ApiPlace, owner: int) -> str:
    uid = find_uid(user)
    if uid is None:
        return "this machine has no such user"
    if owner == place.daemon:
        return "" if uid == owner else "obcd api runs as the coordinator's user, and makes batches of that user alone"
    return "batches never have the rights of root or of the coordinator's user" if uid in (0, place.daemon) else ""
