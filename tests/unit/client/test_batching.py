"""`obcd.batch` before and after its processes run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import obcd
from obcd.client import batching


def test_rows_that_never_became_a_job_leave_their_key_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "obcd.toml"
    config.write_text('model = "llama3.2"\n')

    def refuse(*_: Any) -> None:
        raise obcd.InputError("no line is a valid prompt")

    def submit(row: str) -> None:
        obcd.batch([row], key="visits", config=config, output=tmp_path / "answers")

    monkeypatch.setattr(batching, "_run", refuse)
    for row in ("wrong", "right"):
        with pytest.raises(obcd.InputError, match="no line") as caught:
            submit(row)
        assert not isinstance(caught.value, obcd.KeyConflict)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batching, "_run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        submit("right")
    monkeypatch.setattr(batching, "_run", refuse)
    with pytest.raises(obcd.InputError, match="no line"):
        submit("right")
    with pytest.raises(obcd.KeyConflict):  # it may have become a job before
        submit("other")
