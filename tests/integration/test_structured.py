"""Structured answers through a coordinator: repairs on disk, failures with their text, one lease a request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden.wording import wording
from tests.support import Cluster, run_obcd, wait_until

pytestmark = pytest.mark.integration


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}},
    "required": ["name", "age", "tags"],
}
IMPOSSIBLE = {"type": "string", "not": {"type": "string"}}


def strict(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "note", "strict": True, "parameters": parameters}}


LINES: list[dict[str, Any]] = [
    {"id": "plain", "prompt": "Who?"},
    {"id": "mended", "prompt": "[[simulate:length]] Who?"},
    {"id": "never", "prompt": "Who?", "format": IMPOSSIBLE},
    {"id": "called", "prompt": "Who?", "tools": [strict(SCHEMA)]},
    {"id": "miscalled", "prompt": "Who?", "tools": [strict({"type": "object", "not": {"type": "object"}})]},
    {"id": "thought", "prompt": "[[simulate:empty-thinking]] Who?"},
    {"id": "bad", "prompt": "Who?", "format": {"$ref": "https://e.org/a.json"}},
]


def test_answers_are_mended_or_fail_with_their_text_and_the_folder_adds_up(tmp_path: Path, cluster: Cluster) -> None:
    # given
    (tmp_path / "visit.schema.json").write_text(json.dumps(SCHEMA))
    server = cluster.simulate("--parallel", 4, "--seconds", 0.01, "--load-seconds", 0.0)
    config = cluster.configure({server.names[0]: 4}, schema="visit.schema.json")
    coordinator = cluster.coordinate(config)

    # when
    coordinator.drop(b"".join(json.dumps(line).encode() + b"\n" for line in LINES))
    done = coordinator.published()

    # then
    done.assert_complete(len(LINES))
    found = {item["id"]: item for item in done.responses}
    assert set(found) == {"plain", "mended", "called"}
    assert set(found["called"]["tool_calls"][0]["function"]["arguments"]) == {"name", "age", "tags"}
    assert found["plain"]["parsed"] == json.loads(found["plain"]["response"])
    assert "repairs" not in found["plain"]
    assert (found["mended"]["repairs"], found["mended"]["attempts"]) == (1, 1)
    failed = {item["id"]: item for item in done.errors}
    assert {key: item["class"] for key, item in failed.items()} == {
        "never": "invalid_answer",
        "miscalled": "invalid_answer",
        "thought": "cut_in_thought",
        "bad": "bad_line",
    }
    assert (failed["never"]["repairs"], failed["never"]["attempts"], bool(failed["never"]["response"])) == (2, 1, True)
    assert failed["miscalled"]["tool_calls"][0]["function"]["name"] == "note"
    assert failed["thought"]["thinking"]
    assert wording("never-fetched-put-it-under-defs") in failed["bad"]["message"]
    assert done.manifest["counts"]["repairs"] == 5
    verified = run_obcd(cluster.environment, "verify", str(done.folder))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    # tokens of all that was asked, the failures' too
    spent = sum(item.get("eval_tokens", 0) for item in (*done.responses, *done.errors))
    assert done.manifest["tokens"]["eval"] == spent

    # when merged, then columns are the schema's, and what failed is told by the exit code
    merged = run_obcd(cluster.environment, "merge", "--input-dir", str(done.folder), "-o", str(tmp_path / "out.csv"))
    assert merged.returncode == 3
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "name,age,tags"


def test_r07_empty_answers_are_counted_tried_again_or_failures(cluster: Cluster) -> None:
    # given
    server = cluster.simulate("--parallel", 4, "--seconds", 0.01, "--load-seconds", 0.0)
    profiles = {"again": {"empty": "retry", "attempts": 2}, "never": {"empty": "fail"}}
    coordinator = cluster.coordinate(cluster.configure({server.names[0]: 4}, profiles=profiles))
    prompts = ("[[simulate:blank]] a", "[[simulate:blank*1]] b", "c")

    # when
    for profile in ("", *profiles):
        coordinator.drop([f"{prompt} {profile}" for prompt in prompts], profile=profile)
    kept, again, never = (coordinator.published(f"{profile}/notes".lstrip("/")) for profile in ("", *profiles))

    # then
    assert [
        (done.manifest["counts"]["responses"], done.manifest["counts"]["empty"]) for done in (kept, again, never)
    ] == [
        (3, 2),
        (2, 0),
        (1, 0),
    ]
    assert [item["response"] for item in kept.responses][:2] == ["\n \n", "\n \n"]
    assert [(item["line"], item["attempts"]) for item in again.responses] == [(2, 2), (3, 1)]
    assert [(item["line"], item["class"], item["attempts"]) for item in again.errors] == [(1, "empty_answer", 2)]
    assert [(item["line"], item["class"], item["attempts"]) for item in never.errors] == [
        (1, "empty_answer", 1),
        (2, "empty_answer", 1),
    ]
    for done in (kept, again, never):
        done.assert_complete(3)
        assert run_obcd(cluster.environment, "verify", str(done.folder)).returncode == 0
    status = json.loads(run_obcd(cluster.environment, "status", "--json", "--root", str(coordinator.root)).stdout)
    assert {item["name"]: item["empty"] for item in status["published"]}["notes.jsonl"] == 2
    assert wording("3-answered-2-of-them-empty") in coordinator.text()


def test_cancelled_job_breaks_off_what_is_being_mended(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "s.json").write_text(json.dumps(IMPOSSIBLE))
    server = cluster.simulate("--parallel", 1, "--seconds", 0.5, "--load-seconds", 0.0)  # five seconds of repairs
    config = cluster.configure({server.names[0]: 1}, schema="s.json", requests={"repairs": 10})
    coordinator = cluster.coordinate(config)
    coordinator.drop(["one"])
    wait_until(lambda: len(server.account()) >= 2, what="the first repair is asked")

    (coordinator.inbox / "notes.jsonl.cancel").touch()
    done = coordinator.published()

    assert [item["class"] for item in done.errors] == ["cancelled"]
    assert len(server.account()) < 11


#: Judges an answer that its schema would be at for hours, and counts beside it.
BESIDE = """
import threading, time
from obcd.core.schema.schemas import Schema
from obcd.ollama.validation_process import judge_apart

schema, answer = Schema({"pattern": "(?:(?=.*x).)+y"}), '"' + "a" * 100_000 + '"'
thread = threading.Thread(target=schema.judge, args=(answer, judge_apart), daemon=True)
thread.start()
beats = 0
while thread.is_alive():
    time.sleep(0.01)
    beats += 1
print(beats)
"""


def test_other_threads_go_on_while_an_answer_takes_too_long() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], capture_output=True, text=True, timeout=20, check=True)

    assert int(done.stdout) > 10
