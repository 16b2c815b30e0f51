"""Drops of all sorts and sizes, and what is owed for each: every line one result, every drop one folder."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obcd.results.verify import Verdict, find_folders, verify
from tests.support import prompt_key

PROFILE = "short"
#: What stands in every prompt, and must stand in no log.
WORD = "confidential"
#: {kind of line: how often of a hundred}; an `answer` is asked.
_LINES = {"answer": 94, "bad": 3, "blank": 3}


@dataclass(frozen=True, slots=True)
class Drop:
    """One file that was dropped, `times` times with the same content."""

    name: str
    profile: str
    content: bytes
    prompts: tuple[str, ...]  # of its good lines
    bad: int


@dataclass(slots=True)
class Drops:
    """All that is dropped into one spool.

    Args:
        dice: What chooses sizes, lines and ways.
    """

    root: Path
    dice: random.Random
    made: list[Drop] = field(default_factory=list)
    #: One entry a drop; the same one stands there twice when it was dropped twice.
    dropped: list[Drop] = field(default_factory=list)

    @property
    def prompts(self) -> int:
        """How many requests are owed."""
        return sum(len(drop.prompts) for drop in self.dropped)

    def wanted(self) -> dict[str, int]:
        """Return `{prompt key: times}` of those that were dropped more than once."""
        counts = Counter(prompt_key(prompt) for drop in self.dropped for prompt in drop.prompts)
        return {key: count for key, count in counts.items() if count > 1}

    def drop(self, most: int) -> None:
        """Drop a new file of up to `most` lines, or now and then one that was taken a while ago once more."""
        old = self.made[-4] if len(self.made) > 4 and self.dice.random() < 0.05 else None
        if old is not None and self.dropped.count(old) == 1 and not self._path(old).exists():
            self._put(old)
            return
        drop = self._new(self.dice.randint(1, most))
        self.made.append(drop)
        self._put(drop)

    def _new(self, lines: int) -> Drop:
        number = len(self.made)
        kinds = self.dice.choices(list(_LINES), list(_LINES.values()), k=lines)
        kinds[0] = "answer"
        prompts = [f"{WORD} {number}.{line} " + "x" * self.dice.randrange(60) for line in range(lines)]
        texts = {"bad": "no json", "blank": ""}
        raw = [texts.get(kind, json.dumps({"prompt": prompt})) for kind, prompt in zip(kinds, prompts, strict=True)]
        asked = tuple(prompt for kind, prompt in zip(kinds, prompts, strict=True) if kind == "answer")
        profile = PROFILE if self.dice.random() < 0.3 else ""
        return Drop(f"job{number}.jsonl", profile, "\n".join([*raw, ""]).encode(), asked, kinds.count("bad"))

    def _path(self, drop: Drop) -> Path:
        return self.root / "inbox" / drop.profile / drop.name

    def _put(self, drop: Drop) -> None:
        """Drop as `obcd submit` does, with a marker and by a rename, or as `cp` does."""
        path = self._path(drop)
        if self.dice.random() < 0.7:
            marker = {"sha256": hashlib.sha256(drop.content).hexdigest(), "bytes": len(drop.content)}
            for target, content in (
                (path.with_name(path.name + ".done"), json.dumps(marker).encode()),
                (path, drop.content),
            ):
                temporary = path.with_name(f".{target.name}.tmp")
                temporary.write_bytes(content)
                temporary.rename(target)
        else:
            path.write_bytes(drop.content)
        self.dropped.append(drop)

    # --- what there is -------------------------------------------------------------------------------------------

    def published(self) -> int:
        """Return how many folders are in the outbox."""
        outbox = self.root / "outbox"
        return len(list(outbox.glob("*/manifest.json"))) + len(list(outbox.glob(f"{PROFILE}/*/manifest.json")))

    def are_all_published(self) -> bool:
        return self.published() >= len(self.dropped)

    def left(self) -> list[str]:
        """Return what should not be there any more when all is done."""
        root, inbox = self.root, self.root / "inbox"
        rests = [*(root / "jobs").iterdir(), *(inbox / ".obcd" / "claim").iterdir()]
        rests += [path for path in inbox.iterdir() if path.name not in (".obcd", PROFILE)]
        rests += [path for path in (inbox / PROFILE).iterdir()]
        signs = (".partial", ".waiting", ".tmp", ".rejected")
        for folder, folders, files in os.walk(root / "outbox"):  # which passes over what goes while it looks
            rests += [Path(folder, name) for name in (*folders, *files) if name.endswith(signs)]
        return [str(path.relative_to(root)) for path in rests]

    def check(self) -> Outcome:
        """Hold what is in the outbox against what was dropped; raises AssertionError at the first that is wrong."""
        folders: dict[tuple[str, str], list[Path]] = {}
        for _, folder in find_folders(self.root / "outbox"):
            manifest = json.loads((folder / "manifest.json").read_bytes())
            folders.setdefault((manifest["profile"], manifest["name"]), []).append(folder)
        outcome = Outcome()
        for drop in self.made:
            found = folders.pop((drop.profile, drop.name), [])
            assert len(found) == self.dropped.count(drop), f"{drop.name}: dropped {self.dropped.count(drop)}, {found}"
            for folder in found:
                outcome.add(drop, folder)
        assert not folders, f"nobody dropped {folders}"
        return outcome


@dataclass(slots=True)
class Outcome:
    """Counts over all folders."""

    results: int = 0
    missing: int = 0
    twice: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)  # good lines without an answer

    def add(self, drop: Drop, folder: Path) -> None:
        assert (folder / "input.jsonl").read_bytes() == drop.content, f"{folder}: its input is not what was dropped"
        found = verify(folder.name, folder)
        assert found.verdict is Verdict.COMPLETE, f"{folder}: {found.problems}"
        answers, errors = _read(folder / "responses.jsonl"), _read(folder / "errors.jsonl")
        counts = Counter(item["line"] for item in [*answers, *errors])
        lines = drop.content.split(b"\n")
        owed = {number for number, line in enumerate(lines, 1) if line}
        self.missing += len(owed - counts.keys())
        self.twice += sum(count - 1 for count in counts.values())
        assert counts.keys() <= owed, f"{folder}: a result without a line"
        assert all(json.loads(lines[item["line"] - 1])["prompt"] == item["prompt"] for item in answers)
        self.results += counts.total()
        failed = [item for item in errors if item["class"] != "bad_line"]
        assert len(errors) - len(failed) == drop.bad
        self.failed += failed


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if os.path.exists(path) else []
