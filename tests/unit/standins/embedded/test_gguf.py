"""The head of a GGUF file, from bytes made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from obcd.errors import InputError
from obcd.standins.embedded.gguf import read_head
from obcd.standins.embedded.llama_cpp import default_name, short_number, without_oldest
from obcd.standins.wire.engine import JsonObject
from tests.golden.wording import wording


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def small_file() -> bytes:
    vocabulary = struct.pack("<IQ", 8, 2) + text("<s>") + text("hello")
    scores = struct.pack("<IQ", 6, 2) + struct.pack("<ff", 0.0, 1.0)
    pairs = [
        pair("general.architecture", 8, text("llama")),
        pair("tokenizer.ggml.tokens", 9, vocabulary),
        pair("tokenizer.ggml.scores", 9, scores),
        pair("llama.context_length", 4, struct.pack("<I", 8192)),
        pair("general.file_type", 4, struct.pack("<I", 15)),
    ]
    tensors = [text(name) + struct.pack("<IQQIQ", 2, 10, 20, 0, 0) for name in ("a", "b")]
    return b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors)


def test_head_tells_architecture_context_and_size(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(small_file())

    head = read_head(path)

    assert (head.architecture, head.number("context_length", 0), head.quantization) == ("llama", 8192, "Q4_K_M")
    assert head.parameters == 400
    assert "tokenizer.ggml.tokens" not in head.metadata


def test_every_cut_of_the_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = small_file()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"model\.gguf"):
            read_head(path)


def test_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=wording("no-such-file")):
        read_head(tmp_path / "none.gguf")


def test_names_sizes_and_dropped_messages() -> None:
    assert default_name(Path("/m/SmolLM2 135M.Q4_1.gguf")) == "smollm2-135m.q4_1:latest"
    assert (short_number(134_515_008), short_number(3_212_749_888)) == ("134.52M", "3.2B")
    system: JsonObject = {"role": "system"}
    old: JsonObject = {"role": "user", "content": "old"}
    last: JsonObject = {"role": "user"}
    assert without_oldest([system, old, last]) == [system, last]
    assert without_oldest([system, last]) is None
