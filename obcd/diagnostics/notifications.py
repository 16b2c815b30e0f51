"""Check `[notify]`: whether what it names is there, and whether the unit lets it work. Nothing is sent."""

from __future__ import annotations

import ipaddress
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from obcd.config.endpoints import is_loopback
from obcd.config.settings import Settings
from obcd.diagnostics.findings import Finding, fault, note, right, warning
from obcd.diagnostics.gpu_host import UNITS, is_enabled
from obcd.text import printable

UNIT = "obcd-coordinator.service"
SUBJECT = "notify"
#: The program by which Postfix's sendmail puts a mail into its queue; it is set-group-ID.
POSTDROP = Path("/usr/sbin/postdrop")


def examine_notifications(settings: Settings, units: Path = UNITS, postdrop: Path = POSTDROP) -> Iterator[Finding]:
    """Yield the findings about programs and receivers; none if nothing is sent. Secrets were read before."""
    ways = [item for item in settings.notify_plan().values() if item.is_used]
    if not ways:
        return
    found = [_command(word) for word in dict.fromkeys(item.command[0] for item in ways if item.command)]
    is_unit = is_enabled(UNIT, units)
    if any(item.mail_to for item in ways):
        found.append(_sendmail(Path(settings.notify.sendmail), postdrop, is_unit=is_unit))
    if is_unit:
        found += [_receiver(url) for url in dict.fromkeys(item.webhook for item in ways if item.webhook)]
    troubles = [finding for finding in found if finding is not None]
    yield from troubles or [right(SUBJECT, "the programs of [notify] are there; to send a test: obcd notify test")]


def _command(word: str) -> Finding | None:
    path, shown = shutil.which(word), printable(word)
    if path is None:
        return fault(
            SUBJECT,
            f"at notify.command: {shown} is not a program that can be started: write its whole path",
            f"ls -l {shown}",
        )
    mode = os.stat(path).st_mode
    if mode & stat.S_IWOTH:
        why = f"at notify.command: everybody may write to {printable(path)}, which the daemon's user runs"
        return fault(SUBJECT, why, f"sudo chmod o-w {printable(path)}")
    return None


def _sendmail(path: Path, postdrop: Path, *, is_unit: bool) -> Finding | None:
    shown = printable(str(path))
    if shutil.which(str(path)) is None:
        why = f"at notify.sendmail: there is no program {shown}, and so no mail is sent"
        return fault(SUBJECT, why, "sudo apt install msmtp-mta")
    needs_rights = path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    is_postfix = path.name == "sendmail" and postdrop.exists()
    if is_unit and (needs_rights or is_postfix):
        why = (
            f"{shown} needs the rights of another user or group, which the unit {UNIT} grants to no program "
            "(NoNewPrivileges): it cannot deliver; name one that speaks SMTP itself"
        )
        return warning(SUBJECT, why, 'sudo apt install msmtp, then sendmail = "/usr/bin/msmtp"')
    return None


def _receiver(url: str) -> Finding | None:
    host = urlsplit(url).hostname or ""
    if is_loopback(host):
        return None
    try:
        is_public = ipaddress.ip_address(host).is_global
    except ValueError:
        is_public = True  # a name: it is not known here
    if not is_public:
        return None
    why = (
        f"the webhook at {host}: the unit {UNIT} sends to private networks only, so that a receiver elsewhere needs a "
        "drop-in with IPAddressAllow="
    )
    return note(SUBJECT, why, f"sudo systemctl edit {UNIT}")
