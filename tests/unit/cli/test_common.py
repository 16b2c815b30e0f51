"""What the commands share: the end of a command by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys

#: A signal that another thread takes does not interrupt the main thread's read, nor does one that arrives just before.
_MISSED = """
import os, signal, threading
from obcd.cli.common import ending_cleanly

def miss():
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with ending_cleanly():
    timer = threading.Timer(0.1, miss)
    timer.daemon = True
    timer.start()
    os.read(0, 1)
"""


def test_signal_that_just_missed_a_read_ends_it_all_the_same() -> None:
    with subprocess.Popen([sys.executable, "-c", _MISSED], stdin=subprocess.PIPE) as process:
        assert process.wait(60) == -signal.SIGTERM
