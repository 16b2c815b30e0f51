"""End with the parent: a server started by `obcd demo`, a test or a supervisor must not outlive it.

Floor 0: imports nothing of obcd. Nothing happens unless the environment requests it: `OBCD_DIE_WITH_PARENT=812` names
the parent, so that its end is noticed even if it happens while this process still starts; `1` means the present parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping

#: The variable by which a parent requests that its child ends when it does.
VARIABLE = "OBCD_DIE_WITH_PARENT"

#: prctl(2): send this signal to the caller when the thread that made it ends.
PR_SET_PDEATHSIG = 1


def tie_to_parent(environ: Mapping[str, str], parent: int | None = None) -> bool:
    """Request a SIGTERM from the kernel for the end of the parent; return whether this was requested and is possible.

    Args:
        environ: Where `VARIABLE` is looked up; anything but a positive number means no.
        parent: The process id of the parent at the start, if the caller knows it. The parent may end
            between our start and the call: then this process is already the child of another one, the kernel will send
            no signal, and this process sends itself the one that it missed.
    """
    asked = environ.get(VARIABLE, "")
    if not asked.isdecimal() or int(asked) == 0 or not sys.platform.startswith("linux"):
        return False
    if parent is None:
        parent = int(asked) if int(asked) > 1 else os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        return False
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
    return True
