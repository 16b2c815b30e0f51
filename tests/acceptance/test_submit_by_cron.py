"""`obcd submit` as cron runs it: by sh, in an almost empty environment, with nobody watching."""

from __future__ import annotations

import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from obcd.package_data import shared
from obcd.spool.folders.layout import Layout
from tests.golden.wording import wording
from tests.support import SOURCES, prompt_lines, wait_until

pytestmark = pytest.mark.acceptance

#: Days and files that a sample's line may name: `{file in HOME: content}`.
FILES = {"prompts/nightly.jsonl": ["one", "two"], "staging/letters.jsonl": ["three"]}


class Cron:
    """A home, a spool, and `obcd` on PATH; what is run here gets nothing else."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.layout = Layout.at(folder / "root")
        self.layout.inbox.mkdir(parents=True)
        (self.layout.inbox / "clinical").mkdir()
        self.layout.outbox.mkdir()
        self.home.mkdir()
        self.config = folder / "obcd.toml"
        self.config.write_text("spool.settle_seconds = 0\n", "utf-8")
        programs = folder / "bin"
        programs.mkdir()
        self._program(
            programs / "obcd",
            f"export OBCD_ROOT={self.layout.root} OBCD_CONFIG={self.config} PYTHONPATH={SOURCES}\n"
            f'exec {sys.executable} -m obcd "$@"',
        )
        self.variables = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.home)}

    def _program(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
        path.chmod(0o755)

    def write(self, name: str, prompts: Sequence[str]) -> Path:
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(prompt_lines(prompts))
        return path

    def generator(self, name: str, prompts: Sequence[str]) -> None:
        text = prompt_lines(prompts).decode()
        self._program(self.home / name, f"printf %s {shlex.quote(text)}")

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a line by `sh -c` in this environment alone."""
        kept = {name: value for name, value in {**self.variables, **variables}.items() if value}
        return subprocess.run(
            ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in kept.items()), "/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, umask=0o077,
        )  # fmt: skip

    def inbox(self) -> list[str]:
        return sorted(path.name for path in self.layout.inbox.rglob("*.jsonl"))


@pytest.fixture
def cron(tmp_path: Path) -> Cron:
    return Cron(tmp_path)


def crontab_commands() -> Iterator[str]:
    """Yield the commands of the sample as crontab(5) hands them to the shell."""
    for line in shared("cron/obcd").read_text("utf-8").splitlines():
        if not line or line.startswith("#") or re.match(r"\w+\s*=", line):
            continue
        command = line.split(None, 5)[5]
        assert not re.search(r"(?<!\\)%", command), f"cron would end it at the %: {command}"
        yield command.replace("\\%", "%")


def test_lines_of_the_crontab_sample_drop_what_they_say(cron: Cron) -> None:
    for name, prompts in FILES.items():
        cron.write(name, prompts)
    cron.generator("bin/make-prompts", ["four", "five"])
    commands = list(crontab_commands())
    assert len(commands) == 3
    days = {time.strftime("%F")}

    for _ in range(2):
        for command in commands:
            done = cron.run(command)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), command
        days.add(time.strftime("%F"))

    assert {"letters.jsonl", time.strftime("weekly-%G-W%V.jsonl")} <= set(cron.inbox())
    assert {f"nightly-{day}.jsonl" for day in days} >= set(cron.inbox()) - {"letters.jsonl"} - {
        time.strftime("weekly-%G-W%V.jsonl")
    }
    assert len(cron.inbox()) in (3, 4)  # 4 at midnight
    assert (cron.home / "staging" / "submitted" / "letters.jsonl").exists()


def test_timer_sample_has_times_that_systemd_understands() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    (sample,) = shared("timer").iterdir()

    times = re.findall(r"^OnCalendar=(.+)$", sample.read_text("utf-8"), re.MULTILINE)

    assert times == ["*-*-* 02:15:00"]
    assert subprocess.run(["systemd-analyze", "calendar", *times], capture_output=True, check=False).returncode == 0


def test_logrotate_sample_is_understood(tmp_path: Path) -> None:
    if shutil.which("logrotate") is None:
        pytest.skip("no logrotate here")
    command = ["logrotate", "--debug", "--state", str(tmp_path / "state"), str(shared("logrotate/obcd"))]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "error" not in done.stderr


def test_submit_needs_neither_home_nor_language_nor_umask(cron: Cron) -> None:
    source = cron.write("notes.jsonl", ["grüß"])

    done = cron.run(f"obcd submit {source}", HOME="")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (mode,) = {path.stat().st_mode & 0o777 for path in cron.layout.inbox.glob("notes.jsonl")}
    assert mode in (0o640, 0o644)


def test_once_without_a_place_for_its_record_is_one_line(cron: Cron) -> None:
    source = cron.write("notes.jsonl", ["a"])

    done = cron.run(f"obcd submit --once {source}", HOME="/dev/null/nobody")
    by_systemd = cron.run(f"obcd submit --once {source}", HOME="/dev/null/nobody", STATE_DIRECTORY=str(cron.home / "s"))

    assert done.returncode == 5
    assert re.fullmatch(wording("obcd-cannot-keep-a-record-set"), done.stderr)
    assert (by_systemd.returncode, by_systemd.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "code", "why"),
    [
        ("obcd submit", 2, wording("nothing-to-drop")),
        ("obcd submit --nonsense", 2, "No such option"),
        ("obcd submit --timeout -1 good.jsonl", 2, "Invalid value"),
        (wording("obcd-submit-name-n-q-good"), 2, wording("strftime-has-no-q")),
        (wording("obcd-submit-name-100-good-jsonl"), 2, wording("strftime-has-no")),
        (wording("obcd-submit-name-n-d-good"), 2, wording("it-holds-a")),
        (wording("obcd-submit-name-f-good-jsonl"), 5, wording("cannot-be-a-job-s-name")),
        (wording("obcd-submit-name-n-good-jsonl"), 2, wording("name-is-for-one-file")),
        ("obcd submit -", 2, "give --name"),
        (wording("obcd-submit-from-staging-good-jsonl"), 2, wording("from-takes-neither-file")),
        (wording("obcd-submit-from-staging"), 5, wording("no-such-file")),
        ("obcd submit missing.jsonl", 5, wording("there-is-no-such-file-nothing-was")),
        (wording("obcd-submit-name-empty-dev-null"), 5, wording("standard-input-there-is-no-prompt")),
        (wording("obcd-submit-name-closed"), 5, "standard input"),
        (wording("obcd-submit-profile-clinicl-good-jsonl"), 4, "no [profiles.clinicl]"),
        ("obcd submit --config wrong.toml good.jsonl", 4, "spool.settle_seconds"),
        ("obcd submit --root nowhere good.jsonl", 5, wording("there-is-no-inbox")),
        ("obcd submit --wait --timeout 0 good.jsonl", 8, wording("is-not-answered-yet")),
    ],
)
def test_every_failure_is_one_line_and_its_code(cron: Cron, command: str, code: int, why: str) -> None:
    cron.write("good.jsonl", ["a"])
    cron.write("other.jsonl", ["a"])
    (cron.home / "wrong.toml").write_text("colour = 1\n[spool]\nsettle_seconds = -1\n", "utf-8")

    done = cron.run(f"cd && {command}")

    assert (done.returncode, done.stdout) == (code, "")
    assert why in done.stderr
    assert re.fullmatch(r"obcd: [^\n]+\n", done.stderr)


def test_one_bad_file_of_several_is_one_line_and_the_others_are_dropped(cron: Cron) -> None:
    cron.write("a.jsonl", ["a"])
    (cron.home / "b.jsonl").write_bytes(b"\x1f\x8b\x08")
    cron.write("c.jsonl", ["c"])

    done = cron.run("cd && obcd submit a.jsonl b.jsonl c.jsonl")

    assert done.returncode == 5
    assert done.stderr == wording("obcd-b-jsonl-is-a-gzip")
    assert cron.inbox() == ["a.jsonl", "c.jsonl"]


def test_lines_that_are_no_prompts_are_told_in_one_line(cron: Cron) -> None:
    (cron.home / "a.jsonl").write_bytes(prompt_lines(["a"]) + b"x\ny\n")

    done = cron.run("cd && obcd submit a.jsonl")

    assert done.returncode == 0
    assert re.fullmatch(wording("a-jsonl-2-lines-will-be"), done.stderr)


def test_name_with_a_line_feed_is_told_in_one_line(cron: Cron) -> None:
    (cron.home / "bad\nx.jsonl").write_bytes(prompt_lines(["a"]) + b"x\n")

    done = cron.run("cd && obcd submit --name b1 bad*x.jsonl")
    missing = cron.run("cd && obcd submit --name b1 \"$(printf 'no\\n\\033x.jsonl')\"")

    assert (done.returncode, missing.returncode) == (0, 5)
    assert re.fullmatch(wording("bad-nx-jsonl-1-line-will"), done.stderr)
    assert missing.stderr == wording("obcd-cannot-drop-no-n-x1bx")


@pytest.mark.parametrize("options", [[], ["--once"]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_nothing_behind_and_is_what_it_died_of(
    cron: Cron, options: list[str], number: signal.Signals
) -> None:
    command = ["env", "-i", *(f"{key}={value}" for key, value in cron.variables.items()), "obcd", "submit", *options]
    with subprocess.Popen([*command, "--name", "slow", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: list(cron.layout.inbox.glob(".*.tmp")), what="it reads")
        process.send_signal(number)
        process.send_signal(number)  # as timeout(1) does
        process.wait(60)
        assert process.stderr is not None
        said = process.stderr.read()

    assert (process.returncode, said) == (-number, b"")
    assert [path.name for path in cron.layout.inbox.iterdir()] == ["clinical"]


def test_signal_that_nohup_has_it_ignore_stays_ignored(cron: Cron) -> None:
    variables = [f"{key}={value}" for key, value in cron.variables.items()]
    command = ["env", "-i", *variables, "sh", "-c", "trap '' HUP; exec obcd submit --name slow -"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        wait_until(lambda: list(cron.layout.inbox.glob(".*.tmp")), what="it reads")
        process.send_signal(signal.SIGHUP)
        process.communicate(prompt_lines(["a"]), timeout=60)

    assert process.returncode == 0
    assert cron.inbox() == ["slow.jsonl"]


def test_generator_of_a_job_that_was_submitted_already_is_read_to_its_end(cron: Cron) -> None:
    cron.write("a.jsonl", ["a"])
    generator = 'cat a.jsonl; head -c 500000 /dev/zero | tr "\\0" "\\n"; echo "$?" > wrote'
    line = f"cd && {{ {generator}; }} | obcd submit --once --name n -"

    first, second = cron.run(line), cron.run(f"rm -f {cron.home}/wrote; {line}")

    assert [(done.returncode, done.stderr) for done in (first, second)] == [(0, ""), (0, "")]
    assert (cron.home / "wrote").read_text("utf-8") == "0\n"


def test_second_load_with_a_lock_ends_at_once(cron: Cron) -> None:
    cron.write("a.jsonl", ["a"])
    command = ["env", "-i", *(f"{key}={value}" for key, value in cron.variables.items()), "obcd", "submit", "--lock"]
    with subprocess.Popen([*command, "--name", "slow", "-"], stdin=subprocess.PIPE, cwd=cron.home) as first:
        wait_until(lambda: list(cron.layout.inbox.glob(".*.tmp")), what="the first load runs")

        second = cron.run("cd && obcd submit --lock a.jsonl")
        other = cron.run("cd && obcd submit --lock --profile clinical a.jsonl")

        first.kill()
    third = cron.run("cd && obcd submit --lock a.jsonl")
    assert second.returncode == 7
    assert re.fullmatch(wording("obcd-another-submit-lock-into-n"), second.stderr)
    assert (other.returncode, third.returncode) == (0, 0)


def on_a_terminal(command: str, environment: dict[str, str]) -> str:
    """Run a command whose three streams are a terminal; returns what it showed."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], env=environment, stdin=follower, stdout=follower, stderr=follower
    )
    os.close(follower)
    shown = b""
    try:
        while block := os.read(leader, 4096):
            shown += block
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(leader)
    assert process.wait(60) == 0
    return shown.decode()


def test_person_at_a_terminal_is_told_what_happens(cron: Cron) -> None:
    cron.write("a.jsonl", ["a"])
    variables = {**cron.variables, "XDG_RUNTIME_DIR": str(cron.home)}

    first = on_a_terminal("cd && obcd submit --once a.jsonl", variables)
    second = on_a_terminal("cd && obcd submit --once a.jsonl", variables)
    quiet = on_a_terminal("cd && obcd submit -q --once a.jsonl", variables)

    assert wording("1-prompt-dropped-the-answers-come") in first
    assert wording("waits-for-one-obcd-up-or") in first
    assert re.search(wording("a-jsonl-was-submitted-already-nothing"), second)
    assert quiet == ""
