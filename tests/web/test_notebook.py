"""The example notebook runs from its first cell to its last, twice, and the second time nothing is sent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import NEVER_HEDGED, SOURCES, Cluster, Simulated

pytestmark = pytest.mark.web

EXAMPLES = SOURCES / "etc" / "examples"


def run(notebook: Path) -> Any:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install 'obcd[test-web]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install 'obcd[test-web]'")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install 'obcd[test-web]'")
    document = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(document, timeout=250, resources={"metadata": {"path": str(notebook.parent)}}).execute()
    return document


def outputs(document: Any) -> list[dict[str, Any]]:
    return [output for cell in document.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.filterwarnings("ignore")
def test_notebook_runs_and_runs_again_without_sending(
    cluster: Cluster, quick_server: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed: pip install 'obcd[test-web]'")
    coordinator = cluster.coordinate(cluster.configure(quick_server.names), tweaks=NEVER_HEDGED)
    work = cluster.folder / "examples"
    shutil.copytree(EXAMPLES, work)
    for name, value in {
        **{name: cluster.environment[name] for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PYTHONPATH")},
        "OBCD_ROOT": str(coordinator.root), "XDG_STATE_HOME": str(cluster.folder / "state"),
        "IPYTHONDIR": str(cluster.folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(cluster.folder / "jupyter"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    first = outputs(run(work / "notebook.ipynb"))
    asked = quick_server.asked().total()
    second = outputs(run(work / "notebook.ipynb"))

    assert asked == quick_server.asked().total() >= 3 * 30
    assert not [output for output in first + second if output["output_type"] == "error"]
    shown = json.dumps(first)
    assert "<progress" in shown  # the bar of a notebook
    assert "finished" in shown
    assert "string" in shown
    assert "Int64" in shown


def test_notebook_is_stored_without_outputs() -> None:
    document = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))

    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"] is not None] == []
