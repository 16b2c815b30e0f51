"""What `obcd batch` says at the end of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from obcd.cli.jobs import batch_run
from obcd.errors import ExitCode


@pytest.mark.parametrize("cached", [None, 0, 23480])
def test_prefix_cache_is_named_where_replies_name_it(
    cached: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = {"prompt": 28394, "eval": 9}
    tokens |= {} if cached is None else {"prompt_evaluated": 4914, "prompt_cached": cached}
    counts = {"responses": 1, "failures": 0, "cut_short": 0, "empty": 0}
    manifest = {"counts": counts, "tokens": tokens, "times": {"speedup": None}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")

    assert batch_run._conclude(tmp_path, tmp_path, files=False, quiet=False) is ExitCode.DONE

    words = capsys.readouterr().err.split()
    assert ("4914" in words, str(cached) in words) == (cached is not None, cached is not None)
