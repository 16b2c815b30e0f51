"""Validate an answer against a schema in a separate process: only there can a long validation be ended.

judge_apart ──► {"schema": {…}, "answer": "…"} ──► python -m obcd.ollama.validation_process
     ▲                                                  └► runs out of CPU time or memory, or dies: no answer
     └──────── {"is_fit": true, "value": …} ◄───────────── judges
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from obcd.core.schema.extract import search_json
from obcd.core.schema.schemas import BACKTRACKS_APART, Fit, Misfit, Schema, too_long

#: Time limit of one judgement in seconds of CPU time: by the wall clock, a busy machine would make answers unfit.
SECONDS = 1.0
#: Time limit by the wall clock in seconds: no machine is as busy as that.
WALL_SECONDS = 120.0
#: Memory limit in bytes.
BYTES = 2**31


def judge_apart(document: Mapping[str, Any], answer: str) -> Fit | Misfit:
    """Return how an answer fits a schema; a final misfit if the validation takes too long."""
    asked = json.dumps({"schema": document, "answer": answer, "seconds": SECONDS})
    command = [sys.executable, "-P", "-m", __name__]
    while True:
        try:
            done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=WALL_SECONDS,
                                  check=False, start_new_session=True)  # fmt: skip
        except subprocess.TimeoutExpired:
            break
        if done.returncode == 0:
            found = json.loads(done.stdout)
            return Fit(**found) if found.pop("is_fit") else Misfit(**found)
        if done.returncode != -signal.SIGTERM:  # SIGTERM ends all processes of a service and is no judgement
            break
    search = search_json(answer)
    return too_long(f"{SECONDS:g} s", search.text, search.thoughts)


def main() -> None:
    """Judge the answer on standard input, and print how it fits."""
    asked = json.load(sys.stdin)
    schema = Schema(asked["schema"], BACKTRACKS_APART)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    signal.setitimer(signal.ITIMER_PROF, asked["seconds"])  # its signal is not caught, so it ends the process
    judged = schema.judge(asked["answer"])
    print(json.dumps({"is_fit": isinstance(judged, Fit), **asdict(judged)}))


if __name__ == "__main__":
    main()
