"""Check the hosts folder: whether it answers, who may write into it, and which records do not count."""

from __future__ import annotations

import os
from collections.abc import Iterator

from obcd.config.settings import Settings
from obcd.diagnostics.findings import Finding, fault, note, right, warning
from obcd.hosts.scan import Scan, scan_within
from obcd.hosts.trust import find_trusted
from obcd.spool.folders.layout import Layout
from obcd.spool.folders.permissions import lstat, quoted, shown
from obcd.text import plural, printable
from obcd.users import user_name

#: Seconds that a scan may take.
LIMIT_SECONDS = 5.0
#: Most records of which the fault is reported.
MOST_REFUSED = 5


def daemon_uid(layout: Layout) -> int:
    """Return the daemon's user: the owner of its jobs, or the present user if there are none yet."""
    found = lstat(layout.jobs)
    return os.geteuid() if found is None else found.st_uid


def examine_hosts(settings: Settings, layout: Layout) -> Iterator[Finding]:
    """Yield the findings about the hosts folder; none without one."""
    folder = settings.cluster.folder
    if folder is None:
        return
    own = daemon_uid(layout)
    trusted, unknown = find_trusted(settings.cluster.users, own)
    for name in unknown:
        yield fault("hosts", f"at [cluster] users: this machine has no user {printable(name)!r}")
    if others := sorted(trusted - {own, 0}):
        names = ", ".join(map(user_name, others))
        why = f"the servers of {names} see every submitter's prompts, and their answers are believed ([cluster] users)"
        yield note("hosts", f"the servers of {names} serve their own users' jobs only" if layout.per_user else why)
    try:
        scan = scan_within(LIMIT_SECONDS, folder, trusted)
    except FileNotFoundError:
        owner = user_name(own)
        remedy = f"sudo install -d -o {owner} -g {owner} -m 3770 {quoted(folder)}"
        yield fault(
            "hosts", f"there is no hosts folder {shown(folder)}: make it, or mount the file system with it", remedy
        )
    except OSError as error:
        yield fault(
            "hosts", f"the hosts folder {shown(folder)} cannot be read: {error.strerror}", f"ls -ld {quoted(folder)}"
        )
    else:
        where = shown(folder)
        if scan.mode & 0o022 and not scan.mode & 0o1000:
            why = f"everybody who may write into the hosts folder {where} can remove the records of others"
            yield warning("hosts", why, f"sudo chmod +t {quoted(folder)}")
        yield from _judge_records(scan, where)


def _judge_records(scan: Scan, where: str) -> Iterator[Finding]:
    for name, item in sorted(scan.refused.items())[:MOST_REFUSED]:
        yield warning("hosts", f"the record {name} in the hosts folder does not count: {item.why}")
    if len(scan.refused) > MOST_REFUSED:
        yield warning("hosts", f"{plural(len(scan.refused) - MOST_REFUSED, 'more record')} do not count", "obcd hosts")
    if scan.found:
        yield right("hosts", f"the hosts folder {where} has {plural(len(scan.found), 'record')}")
    else:
        yield note("hosts", f"no host has registered in {where} yet", f"obcd host --register {where}")
