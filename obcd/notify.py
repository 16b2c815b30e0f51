"""sd_notify(3): report to systemd that the process is ready, alive, or what it is doing; does nothing elsewhere.

Own code: sdnotify (0.3.2) leaves NOTIFY_SOCKET to child processes, drops a status with a character beyond Latin-1, and
may wait for ever.
"""

from __future__ import annotations

import os
import socket

_address = os.environ.pop("NOTIFY_SOCKET", "")  # popped, so that no child sends in our name

#: Seconds that the manager may take to make room; a longer wait here would look like a loop that hangs.
SEND_SECONDS = 1.0


def notify(**fields: str | int) -> None:
    """Send fields to the service manager, e.g. `notify(READY=1, STATUS="2 jobs, 41 %")`; never raises."""
    if not _address:
        return
    message = "\n".join(f"{key}={value}" for key, value in fields.items()).encode()
    address = "\0" + _address[1:] if _address.startswith("@") else _address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(SEND_SECONDS)
            sender.sendto(message, address)
    except OSError:  # a lost message costs a status line; the next tick feeds the watchdog again
        return


def watchdog_interval() -> float | None:
    """Return how often systemd expects a WATCHDOG=1, in seconds: a third of its limit; None when it expects none."""
    limit, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not limit.isdigit() or (pid is not None and pid != str(os.getpid())):
        return None
    return int(limit) / 1e6 / 3
