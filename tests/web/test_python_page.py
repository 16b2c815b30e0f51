"""The Python blocks of the manual's page From Python run word for word, one after the other, as in a notebook."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support import SOURCES, Cluster, Simulated

pytestmark = pytest.mark.web

PAGE = SOURCES / "etc" / "manual" / "from-python.md"


def test_python_blocks_of_the_page_run_one_after_the_other(cluster: Cluster, quick_server: Simulated) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'obcd[test-web]'")
    config = cluster.configure(quick_server.names)
    coordinator = cluster.coordinate(config)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    environment = {
        **cluster.environment, "OBCD_ROOT": str(coordinator.root), "OBCD_CONFIG": str(config),
        "XDG_STATE_HOME": str(cluster.folder / "state"),
    }  # fmt: skip

    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=cluster.folder, env=environment, text=True, check=False,
        capture_output=True, timeout=200,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert len(blocks) >= 8
    assert "1 bad_line" in done.stdout  # the row that could not fill the template
    assert "ObcdWarning: 1 row of 3 cannot fill the template" in done.stderr
