"""A process of ours, and what it starts, leaves no core dump with prompts in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

SCRIPT = """
import subprocess, sys
from obcd.core_dumps import forbid_core_dumps
forbid_core_dumps()
forbid_core_dumps()
show = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE), open('/proc/self/coredump_filter').read())"
exec(show)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", show])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
def test_limit_and_filter_are_nothing_and_inherited() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)

    assert [line.split() for line in done.stdout.splitlines() if line] == [["0", "0", "00000000"]] * 2
