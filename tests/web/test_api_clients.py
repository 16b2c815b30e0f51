"""Other people's programs, unmodified, take a batch of `obcd api` through its life.

Each is a script in a process of its own, as its users write one: what these libraries leave open ends with it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api_support import ApiProcess, finished, start_api
from tests.support import Cluster, Running, Simulated
from tests.unit.api.api_spool import lines

pytestmark = pytest.mark.web

OPENAI_BATCH = """
import sys
from openai_batch import Batch
from openai_batch.providers import get_provider_by_base_url
provider = get_provider_by_base_url(sys.argv[1])
provider.api_key = sys.argv[2]
with Batch(submission_input_file=sys.argv[3], output_file="output.jsonl", provider=provider) as batch:
    done, output, errors = batch.submit_wait_download(interval=0.2)
print(done.id, done.status, done.request_counts.completed, output, errors)
"""
LITELLM = """
import sys, time
import litellm
here = {"custom_llm_provider": "openai", "api_base": sys.argv[1], "api_key": sys.argv[2]}
file = litellm.create_file(file=open(sys.argv[3], "rb"), purpose="batch", **here)
wish = {"completion_window": "24h", "endpoint": "/v1/chat/completions", "input_file_id": file.id}
batch = litellm.create_batch(**wish, metadata={"night": "1"}, **here)
while batch.status not in ("completed", "failed"):
    time.sleep(0.2)
    batch = litellm.retrieve_batch(batch_id=batch.id, **here)
with open("output.jsonl", "w") as output:
    output.write(litellm.file_content(file_id=batch.output_file_id, **here).text)
assert [item.id for item in litellm.list_batches(**here).data] == [batch.id]
line = open(sys.argv[3]).readline()
with open("long.jsonl", "w") as long:
    long.writelines(line.replace("r-0", f"r-{number}") for number in range(5000))
long = litellm.create_file(file=open("long.jsonl", "rb"), purpose="batch", **here)
again = litellm.create_batch(**{**wish, "input_file_id": long.id}, **here)
assert litellm.cancel_batch(batch_id=again.id, **here).status in ("cancelling", "cancelled")
assert litellm.file_delete(file_id=file.id, **here).deleted
print(batch.id, batch.status, batch.metadata["night"])
"""
#: What a task of Airflow does, without its scheduler: the operator waits for the batch itself.
AIRFLOW = """
import sys, unittest.mock
from airflow.providers.openai.hooks.openai import OpenAIHook
from airflow.providers.openai.operators.openai import OpenAITriggerBatchOperator
file = OpenAIHook(conn_id="obcd").upload_file(sys.argv[3], purpose="batch")
operator = OpenAITriggerBatchOperator(
    task_id="night", file_id=file.id, endpoint="/v1/chat/completions", conn_id="obcd", deferrable=False,
    wait_seconds=0.5, timeout=60,
)
print(operator.execute({"ti": unittest.mock.Mock()}))
"""


@pytest.fixture
def api(cluster: Cluster, quick_server: Simulated, started: list[Running]) -> ApiProcess:
    return start_api(cluster, quick_server, started)


def run(script: str, api: ApiProcess, folder: Path, python: str = sys.executable, **environment: str) -> list[str]:
    """Run a script of a user with the API's address, a token and a prompt file; return its last line in words."""
    source = folder / "in.jsonl"
    source.write_bytes(lines(3))
    done = subprocess.run(
        [python, "-c", script, f"http://{api.address}/v1", api.token, str(source)], cwd=folder, capture_output=True,
        text=True, timeout=240, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1].split()


def need(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed: make test-web installs it")


def ids_in(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text("utf-8").splitlines()]


def test_parasails_openai_batch(api: ApiProcess, tmp_path: Path) -> None:
    need("openai_batch", "openai-batch")

    _, *said = run(OPENAI_BATCH, api, tmp_path)

    assert said == ["completed", "3", "output.jsonl", "None"]
    assert ids_in(tmp_path / "output.jsonl") == ["r-0", "r-1", "r-2"]


def test_litellms_batch_client(api: ApiProcess, tmp_path: Path) -> None:
    need("litellm", "litellm")

    batch, *said = run(LITELLM, api, tmp_path, LITELLM_LOCAL_MODEL_COST_MAP="True")

    assert said == ["completed", "1"]
    assert ids_in(tmp_path / "output.jsonl") == ["r-0", "r-1", "r-2"]
    assert finished(api.client(), batch).metadata == {"night": "1"}


def test_airflows_operator(api: ApiProcess, tmp_path: Path) -> None:
    """Airflow takes minutes to install and pins its own dependencies: it has an environment of its own."""
    python = os.environ.get("OBCD_AIRFLOW")
    if python is None:
        pytest.skip("OBCD_AIRFLOW does not name a Python that has apache-airflow-providers-openai")
    connection = {"conn_type": "openai", "host": f"http://{api.address}/v1", "password": api.token}

    (batch,) = run(AIRFLOW, api, tmp_path, python, AIRFLOW_HOME=str(tmp_path), AIRFLOW_CONN_OBCD=json.dumps(connection))

    assert api.client().batches.retrieve(batch).status == "completed"
