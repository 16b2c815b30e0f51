"""`obcd batch` as a process: the seed's configuration and prompts, interruptions, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.golden.wording import wording
from tests.support import (
    Cluster,
    Published,
    Running,
    Simulated,
    family,
    prompt_lines,
    run_obcd,
    wait_until,
)

pytestmark = pytest.mark.integration


#: A configuration and prompts of the shape that ollama-batch-cluster takes, as its users have them.
CONFIG = '''model = "llama3.2"
system_message = """You answer in one sentence,
and you say "I don't know" when you don't."""

[ollama_instances]
"{endpoint}" = 0
'''
PROMPTS = [{"role": "user", "content": f"What is {number} plus {number}?"} for number in range(8)]


class Folder:
    """A working folder with `config.toml` and `prompts.jsonl`, and the command in it."""

    def __init__(self, cluster: Cluster, endpoint: str) -> None:
        self.path, self.environment = cluster.folder / "work", cluster.environment
        self._cluster = cluster
        self.path.mkdir()
        self.write_config(endpoint)
        self.write_prompts(PROMPTS)

    def write_config(self, endpoint: str, **changes: str) -> None:
        text = CONFIG.format(endpoint=endpoint)
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.path / "config.toml").write_text(text, "utf-8")

    def fix_slots(self, slots: int) -> None:
        """Say how many slots the endpoint has, instead of having it found out."""
        with open(self.path / "config.toml", "a", encoding="utf-8") as file:
            file.write(f"[requests]\nslots = {slots}\n")

    def write_prompts(self, documents: list[Any]) -> None:
        content = "".join(json.dumps(item) + "\n" for item in documents)
        (self.path / "prompts.jsonl").write_text(content, "utf-8")

    def run_installed(self) -> subprocess.CompletedProcess[str]:
        """Run the command as it is on the path: Python itself puts the folder first where it is started by `-m`."""
        return subprocess.run(
            [str(Path(sys.executable).with_name("obcd")), "batch", "--prompts", "prompts.jsonl"],
            env=self.environment, cwd=self.path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_obcd(self.environment, "batch", "--prompts", "prompts.jsonl", *arguments, cwd=self.path)

    def begin(self, **tweaks: float) -> Running:
        places = {f"obcd.cli.jobs.batch_run:{name}": value for name, value in tweaks.items()}
        return self._cluster.begin("batch", "--prompts", "prompts.jsonl", tweaks=places, cwd=self.path)

    @property
    def published(self) -> Published:
        return Published(self.path / "responses" / "prompts")

    def jobs(self) -> list[str]:
        return os.listdir(self.path / "responses" / ".obcd" / "jobs")


@pytest.fixture
def server(quick_server: Simulated) -> Simulated:
    return quick_server


@pytest.fixture
def folder(cluster: Cluster, server: Simulated) -> Folder:
    return Folder(cluster, server.names[0])


@pytest.mark.parametrize("name", ["obcd/x", "json.py", "socket.py", "tempfile.py", "string.py"])
def test_what_lies_in_the_folder_is_never_imported(folder: Folder, name: str) -> None:
    path = folder.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("import os\nopen('ran', 'w').close()\nos._exit(3)\n", "utf-8")

    done = folder.run_installed()

    assert done.returncode == 0, done.stderr
    assert not (folder.path / "ran").exists()


def test_configuration_and_prompts_of_the_seed_work_as_they_are(folder: Folder, server: Simulated) -> None:
    done = folder.run()

    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert lines[0] == "prompts.jsonl: 8 prompts over 1 endpoint"
    assert lines[1] == wording("stand-in-servers-answer-0-33")
    assert lines[2] == "8 prompts answered, 0 failed: responses/prompts/"
    assert re.fullmatch(wording("d-d-s-of-server-work"), lines[3])
    folder.published.assert_complete(8)
    assert [item["prompt"] for item in folder.published.responses] == [item["content"] for item in PROMPTS]
    assert folder.published.manifest["settings"]["system"].startswith("You answer in one sentence,\nand")
    assert (folder.jobs(), len(server.account())) == ([], 8)
    assert (folder.path / "prompts.jsonl").exists()


def test_verbose_prints_a_line_per_answer(folder: Folder) -> None:
    done = folder.run("-v")

    pattern = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, Line: (\d+), Host: 127\.0\.0\.1:\d+, GPU: 0, "
        r"Words: \d+, Duration: \d+\.\d\ds, WPS: \d+\.\d\d"
    )
    found = [match[1] for line in done.stderr.splitlines() if (match := re.fullmatch(pattern, line))]
    assert sorted(found, key=int) == [str(number) for number in range(1, 9)]
    assert "plus" not in done.stderr


def test_r28_wait_for_the_only_slot_is_no_work_of_the_server(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 1, "--seconds", 0.1)
    folder = Folder(cluster, server.names[0])
    folder.fix_slots(8)
    folder.write_prompts([{"prompt": f"Question {number}?"} for number in range(24)])

    done = folder.run()

    times = folder.published.manifest["times"]
    assert 2.3 < times["work_seconds"] < 6  # with the waits it would be some 17; a busy machine takes longer
    assert times["wait_seconds"] > 1.5 * times["work_seconds"]
    assert 0.5 < times["speedup"] < 1.5
    assert re.search(wording("d-d-s-of-server-work"), done.stderr)


def test_progress_is_said_now_and_then(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.4)
    folder = Folder(cluster, server.names[0])
    process = folder.begin(PLAIN_SECONDS=0.3)

    assert process.wait() == 0

    pattern = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, \d/8 done, 0 failed, \d+ tokens/s, ETA .+$"
    assert re.search(pattern, process.text()), process.text()


def test_files_option_writes_one_json_file_per_answer(folder: Folder) -> None:
    assert folder.run("--files").returncode == 0

    output = folder.path / "responses"
    files = sorted(output.glob("*.json"), key=lambda path: int(path.stem.split("-")[1]))
    assert [re.fullmatch(r"\d{10}-\d", path.stem) is not None for path in files] == [True] * 8
    answers = folder.published.responses
    for path, answer in zip(files, answers, strict=True):
        expected = json.dumps(
            {"prompt": answer["prompt"], "response": answer["response"]}, indent=4, ensure_ascii=False
        )
        assert path.read_text("utf-8") == expected

    before = {path.name: path.stat().st_mtime_ns for path in files}
    files[0].unlink()
    assert folder.run("--files").returncode == 0
    assert {path.name for path in output.glob("*.json")} == set(before)


def test_r50_r51_several_files_and_a_pipe_are_answered_at_once_with_a_file_for_each_answer(
    folder: Folder, server: Simulated
) -> None:
    with open(folder.path / "config.toml", "r+", encoding="utf-8") as file:
        config = file.read()
        file.seek(0)
        file.write("files = true\n" + config)
    (folder.path / "b.jsonl").write_bytes(prompt_lines("abcdefghi"))
    os.mkfifo(folder.path / "pipe")
    writer = threading.Thread(target=(folder.path / "pipe").write_bytes, args=(prompt_lines("yz"),))
    writer.start()

    done = folder.run("b.jsonl", "--prompts", "pipe", "--limit", "5", "-v")
    writer.join()

    assert done.returncode == 0, done.stderr
    assert len(server.account()) == 12
    for name, count in (("prompts.first-5", 5), ("b.first-5", 5), ("pipe.first-5", 2)):
        published = Published(folder.path / "responses" / name)
        published.assert_complete(count)
        files = sorted(path.name.split("-")[1] for path in published.folder.glob("1*-*.json"))
        assert files == [f"{number}.json" for number in range(1, count + 1)]
        assert f"File: {name}.jsonl, Line: 1, Host: " in done.stderr
        assert f"{count} prompts answered, 0 failed: responses/{name}/" in done.stderr
    assert folder.jobs() == []
    assert os.listdir(folder.path / "responses" / ".obcd" / "read") == []


def test_a_file_without_prompts_does_not_stop_the_others(folder: Folder) -> None:
    (folder.path / "bad.jsonl").write_bytes(b"nonsense\n")

    done = folder.run("bad.jsonl", "--model", "llama3.2")

    assert done.returncode == 5
    assert "obcd: bad.jsonl: " in done.stderr
    folder.published.assert_complete(8)


def test_files_of_two_runs_do_not_collide(folder: Folder, server: Simulated) -> None:
    assert folder.run("--files").returncode == 0
    assert folder.run("--files", "--again").returncode == 0

    assert len(list((folder.path / "responses").glob("*.json"))) == 16
    assert len(server.account()) == 16


def test_what_is_answered_already_is_not_asked_again(folder: Folder, server: Simulated) -> None:
    folder.run()
    again = folder.run()

    assert again.returncode == 0
    assert again.stderr == wording("prompts-jsonl-is-answered-already-in")
    assert len(server.account()) == 8


def test_changed_settings_or_prompts_are_asked_anew(folder: Folder, server: Simulated) -> None:
    folder.run()
    folder.write_config(server.names[0], **{"one sentence": "two sentences"})
    assert "8 prompts answered" in folder.run().stderr
    folder.write_prompts(PROMPTS[:3])
    assert "3 prompts answered" in folder.run().stderr

    assert len(server.account()) == 19
    assert len(list((folder.path / "responses").glob("prompts*/manifest.json"))) == 3


def test_interrupted_run_goes_on_where_it_was(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.3)
    folder = Folder(cluster, server.names[0])
    folder.fix_slots(4)
    first = folder.begin()
    wait_until(lambda: sum(record["outcome"] == "answered" for record in server.account()) >= 2)
    children = family(first.pid)
    first.send(signal.SIGINT)

    assert first.wait() == 130
    assert wording("interrupted-the-same-command-goes-on") in first.text()
    assert "Traceback" not in first.text()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    wait_until(lambda: server.in_flight() == 0)
    answered = sum(record["outcome"] == "answered" for record in server.account())

    second = folder.run()
    assert second.returncode == 0
    assert second.stderr.startswith(wording("going-on-with-prompts-jsonl-where"))
    folder.published.assert_complete(8)
    records = server.account()
    assert sum(record["attempt"] > 1 for record in records) <= 4  # what was in flight, in four slots
    assert sum(record["outcome"] == "answered" for record in records) - 8 <= answered - 2


def test_killed_run_goes_on_where_it_was(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 4, "--seconds", 0.15)
    folder = Folder(cluster, server.names[0])
    folder.fix_slots(4)
    folder.write_prompts([{"prompt": f"question {number}"} for number in range(32)])
    first = folder.begin()
    wait_until(lambda: sum(record["outcome"] == "answered" for record in server.account()) >= 12)
    first.kill()

    assert folder.run().returncode == 0
    folder.published.assert_complete(32)
    # in flight in four slots, and at most as many answers that were not on disk yet
    assert sum(record["attempt"] > 1 for record in server.account()) <= 8


def test_second_run_into_the_same_folder_is_refused(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 1, "--seconds", 30)
    folder = Folder(cluster, server.names[0])
    folder.begin()
    wait_until(lambda: server.in_flight() == 1)

    assert folder.run().returncode == 7


def test_prompts_that_changed_since_an_interruption_are_refused(cluster: Cluster) -> None:
    server = cluster.simulate("--parallel", 2, "--seconds", 0.3)
    folder = Folder(cluster, server.names[0])
    folder.fix_slots(4)
    first = folder.begin()
    wait_until(lambda: sum(record["outcome"] == "answered" for record in server.account()) >= 3)
    first.send(signal.SIGINT)
    first.wait()
    folder.write_prompts([{"role": "user", "content": "something else"}])

    refused = folder.run()

    assert refused.returncode == 5
    assert wording("changed-since-its-interrupted-run") in refused.stderr
    folder.write_prompts(PROMPTS)
    assert folder.run().returncode == 0


def test_folders_of_the_user_in_the_output_folder_are_left_alone(folder: Folder) -> None:
    thesis = folder.path / "responses" / "thesis.partial"
    thesis.mkdir(parents=True)
    empty = folder.path / "responses" / "mine.waiting"
    empty.mkdir()
    (thesis / "chapter1.tex").write_text("years of work", "utf-8")

    assert folder.run().returncode == 0

    assert (thesis / "chapter1.tex").read_text("utf-8") == "years of work"
    assert empty.is_dir()


def test_failures_end_in_exit_code_three_and_can_be_retried(folder: Folder) -> None:
    folder.write_prompts([*PROMPTS[:2], {"role": "user", "content": "[[simulate:status=400]] x"}, {"role": "user"}])

    done = folder.run()

    assert done.returncode == 3
    assert wording("prompts-jsonl-4-prompts-1-bad") in done.stderr
    assert re.search(wording("line-3-on-127-0-0"), done.stderr)
    assert "2 prompts answered, 2 failed: responses/prompts/" in done.stderr
    assert wording("to-try-again-responses-prompts-retry") in done.stderr
    folder.published.assert_complete(4)
    assert folder.run().returncode == 3  # it is answered already, as far as it could be


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ('model = "llama3.2"\ncolour = 1\n', 4, "at colour: unknown key"),
        ('model = "llama3.2', 4, wording("is-not-toml")),
        ('[ollama_instances]\n"127.0.0.1:{free}" = 0\n', 6, wording("no-endpoint-can-be-reached")),
        ('[ollama_instances]\n"127.0.0.1:{free}/v1" = 0\n', 6, wording("take-the-path-off", "/v1")),
        ('[ollama_instances]\n"{endpoint}/api" = 0\n', 6, wording("take-the-path-off", "/api")),
        ('model = "phi4"\n[ollama_instances]\n"{endpoint}" = 0\n', 6, "ollama pull phi4"),
    ],
)
def test_what_cannot_be_run_is_said_with_its_exit_code(
    folder: Folder, server: Simulated, cluster: Cluster, config: str, code: int, said: str
) -> None:
    if "{free}" in config:
        gone = cluster.simulate()
        gone.kill()
        config = config.replace("{free}", str(gone.port))
    text = config.replace("{endpoint}", server.names[0])
    (folder.path / "config.toml").write_text(text, "utf-8")

    done = folder.run()

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_mended_configuration_is_used_after_a_run_that_asked_nothing(folder: Folder, server: Simulated) -> None:
    folder.write_config(server.names[0], **{'"llama3.2"': '"phi4"'})
    assert folder.run().returncode == 6
    folder.write_prompts(PROMPTS[:4])
    folder.write_config(server.names[0])

    done = folder.run()

    assert done.returncode == 0, done.stderr
    assert "prompts.jsonl: 4 prompts over 1 endpoint" in done.stderr
    folder.published.assert_complete(4)
    assert folder.jobs() == []


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b'{"prompt": "a"}\n{"prom', b"\x1f\x8b\x08"])
def test_prompt_file_that_cannot_be_used_is_exit_code_five(folder: Folder, content: bytes | None) -> None:
    path = folder.path / "prompts.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    done = folder.run()

    assert done.returncode == 5
    assert "prompts.jsonl" in done.stderr
    assert not (folder.path / "responses" / "prompts").exists()


def test_named_configuration_that_is_missing_is_exit_code_four(folder: Folder) -> None:
    assert folder.run("--config", "nowhere.toml").returncode == 4


def test_unknown_profile_is_exit_code_four(folder: Folder) -> None:
    done = folder.run("--profile", "clinical")

    assert done.returncode == 4
    assert "no [profiles.clinical]" in done.stderr


def test_other_output_folder_and_other_file_name(folder: Folder) -> None:
    (folder.path / "notes.txt").write_bytes(prompt_lines(["a"]))

    done = run_obcd(folder.environment, "batch", "--prompts", "notes.txt", "--output_dir", "out/deep", cwd=folder.path)

    assert done.returncode == 0, done.stderr
    Published(folder.path / "out" / "deep" / "notes.txt").assert_complete(1)


@pytest.mark.parametrize("name", ["esc\x1b[31mred.jsonl", "new\nline.jsonl"])
def test_name_that_cannot_be_shown_is_refused_and_escaped(folder: Folder, name: str) -> None:
    (folder.path / name).write_bytes(prompt_lines(["why?"]))

    done = run_obcd(folder.environment, "batch", "--prompts", name, cwd=folder.path)

    assert done.returncode == 5
    assert wording("has-characters-that-cannot-be-shown") in done.stderr
    assert "\x1b" not in done.stderr
    assert not (folder.path / "responses").exists()
