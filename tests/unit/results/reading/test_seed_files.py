"""One file per answer in the seed's shape: several answers to one prompt are several files, calls of tools are kept."""

from __future__ import annotations

import json
from pathlib import Path

from obcd.results.reading.seed_files import write_response_files
from obcd.spool.outbox.publication import publish
from tests.unit.spool.spools import accept_bytes, answer, make_layout, record

CALL = {"function": {"name": "weather", "arguments": {"city": "Riga"}}}


def test_each_of_several_answers_has_a_file_of_its_own(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "root")
    accept_bytes(layout, b'{"prompt": "Tell a joke.", "n": 2}\n{"prompt": "Weather?"}\n')
    jokes = [answer(number, f"joke {number}", line=1, seed=number) for number in (0, 1)]
    record(layout, "job1", [*jokes, answer(2, "", line=2, tool_calls=[CALL])])
    folder, output = publish(layout, "job1", {}), tmp_path / "files"
    output.mkdir()

    for _ in range(2):  # a repeat writes the same files again
        assert write_response_files(folder, output) == 3

    written = {path.stem.partition("-")[2]: json.loads(path.read_bytes()) for path in output.iterdir()}
    assert written == {
        "1-0": {"prompt": "Tell a joke.", "response": "joke 0"},
        "1-1": {"prompt": "Tell a joke.", "response": "joke 1"},
        "2": {"prompt": "Weather?", "response": "", "tool_calls": [CALL]},
    }
