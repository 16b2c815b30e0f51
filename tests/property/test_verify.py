"""What holds for any damage to a published folder: it is found, and nothing raises."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obcd.results.verify import Verdict, Verification, verify
from obcd.spool.folders.layout import Layout
from tests.unit.spool.spools import accept_bytes, answer, failure, finish, record

#: With a blank line, a bad line, a repeated line and one without LF at the end.
INPUT = (
    b'{"id": "a", "prompt": "one"}\n\n{"prompt": "two"}\n{"prompt": "two"}\nno json\n'
    b'{"id": "e", "prompt": "five"}\n{"prompt": "six"}\n{"prompt": "seven"}'
)
OUTPUTS = ("responses.jsonl", "errors.jsonl", "retry.jsonl")
FILES = ("input.jsonl", *OUTPUTS)

Folder = dict[str, bytes]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return a published folder's files: {name: content}."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        layout = Layout.at(tmp_path_factory.mktemp("root"))
        layout.create([])
        header = accept_bytes(layout, INPUT)
        given = [failure(1, line=3), answer(0), answer(5, line=7), answer(4, line=6), answer(2, line=4)]
        record(layout, header.id, [*given, failure(6, line=8)])
        folder = finish(layout, header)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def verify_files(files: Folder) -> Verification:
    with TemporaryDirectory() as parent:  # retries are searched beside a folder: nothing else is there
        folder = Path(parent) / "notes"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return verify("notes", folder)


def without_digests(files: Folder) -> Folder:
    manifest = json.loads(files["manifest.json"])
    del manifest["outputs"]
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def test_folder_is_complete_as_published(published: Folder) -> None:
    assert verify_files(published).verdict is Verdict.COMPLETE
    assert verify_files(without_digests(published)).verdict is Verdict.COMPLETE
    assert set(published) == {*FILES, "manifest.json"}


@given(name=st.sampled_from(FILES), place=st.integers(min_value=0))
def test_any_lost_byte_is_found(published: Folder, name: str, place: int) -> None:
    content = published[name]
    place %= len(content)

    result = verify_files({**published, name: content[:place] + content[place + 1 :]})

    assert result.verdict is Verdict.WRONG


@given(name=st.sampled_from(FILES), place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(published: Folder, name: str, place: int, bit: int) -> None:
    content = bytearray(published[name])
    content[place % len(content)] ^= 1 << bit

    assert verify_files({**published, name: bytes(content)}).verdict is Verdict.WRONG


@given(name=st.sampled_from(FILES), place=st.integers(min_value=0), is_twice=st.booleans())
def test_any_lost_or_repeated_line_is_found_even_without_digests(
    published: Folder, name: str, place: int, is_twice: bool
) -> None:
    content = published[name].splitlines(keepends=True)
    place %= len(content)
    content[place : place + 1] = [content[place]] * (2 if is_twice else 0)

    result = verify_files({**without_digests(published), name: b"".join(content)})

    assert result.verdict is Verdict.WRONG


@given(name=st.sampled_from(OUTPUTS), one=st.integers(min_value=0), other=st.integers(min_value=0))
def test_any_two_lines_that_changed_places_are_found_even_without_digests(
    published: Folder, name: str, one: int, other: int
) -> None:
    content = published[name].splitlines(keepends=True)
    one, other = one % len(content), other % len(content)
    is_changed = content[one] != content[other]
    content[one], content[other] = content[other], content[one]

    result = verify_files({**without_digests(published), name: b"".join(content)})

    assert result.verdict is (Verdict.WRONG if is_changed else Verdict.COMPLETE)


@given(
    name=st.sampled_from([*FILES, "manifest.json"]),
    place=st.integers(min_value=0),
    length=st.integers(0, 40),
    rubbish=st.binary(max_size=40) | st.sampled_from([b"\n", b"[" * 3000, b'"', b"null", b"1e999", b"9" * 5000, b"\0"]),
)
def test_no_rubbish_raises(published: Folder, name: str, place: int, length: int, rubbish: bytes) -> None:
    content = published[name]
    place %= len(content)

    result = verify_files({**published, name: content[:place] + rubbish + content[place + length :]})

    assert result.verdict in set(Verdict)
    assert all(sentence.isprintable() for sentence in result.problems)


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["counts", "tokens", "input", "endpoints", "outputs", "failures", "sha256", "rejected", "format"]
                )
                | st.text(),
                inner,
                max_size=5,
            )
        ),
        max_leaves=15,
    )
)
def test_no_manifest_raises(published: Folder, document: object) -> None:
    result = verify_files({**published, "manifest.json": json.dumps(document).encode()})

    assert result.verdict is not Verdict.COMPLETE
