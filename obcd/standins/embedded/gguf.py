"""Read the head of a GGUF file: the model's name, architecture and size (ggml docs/gguf.md).

It does not read weights. A file that is not GGUF raises InputError with its path.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from obcd.errors import InputError

MAGIC = b"GGUF"

#: {type number: struct code} of single values
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9

#: {general.file_type: name}, llama.h
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHead:
    """The metadata in the head of a file."""

    metadata: dict[str, str | float]  # e.g. `{"general.architecture": "llama", "llama.block_count": 32}`; no arrays
    parameters: int  # numbers in all tensors

    @property
    def architecture(self) -> str:
        """Return e.g. `llama`."""
        return str(self.metadata.get("general.architecture", "unknown"))

    def number(self, key: str, default: int) -> int:
        """Return a number of the architecture, e.g. `context_length`."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return int(value) if isinstance(value, (int, float)) else default

    @property
    def quantization(self) -> str:
        """Return e.g. `Q4_K_M`."""
        return FILE_TYPES.get(int(self.metadata.get("general.file_type", -1)), "unknown")


def read_head(path: Path) -> GgufHead:
    """Read the head of a GGUF file.

    Raises:
        InputError: there is no such file, or it is not a GGUF file of version 2 or 3, or it is cut short.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise InputError(f"{path}: this is not a GGUF file; give one with --model, e.g. from huggingface.co.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).head()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give a readable GGUF file with --model.") from error
    except (struct.error, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path}: the GGUF file is damaged or cut short; fetch it again.") from error


class _Reader:
    """Reads the head from the beginning to the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def head(self) -> GgufHead:
        version = self._number("<I")
        if version not in {2, 3}:
            raise ValueError(version)
        tensors, pairs = self._number("<Q"), self._number("<Q")
        metadata: dict[str, str | float] = {}
        for _ in range(pairs):
            key = self._string().decode("utf-8", "replace")
            value = self._value(self._number("<I"))
            if value is not None:
                metadata[key] = value
        parameters = sum(self._tensor_size() for _ in range(tensors))
        if self._at > len(self._data):  # the last skipped part is missing
            raise IndexError(self._at)
        return GgufHead(metadata, parameters)

    def _scalar(self, code: str) -> float:
        value: float = struct.unpack_from(code, self._data, self._at)[0]
        self._at += struct.calcsize(code)
        return value

    def _number(self, code: str) -> int:
        return int(self._scalar(code))

    def _string(self) -> bytes:
        length = self._number("<Q")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise IndexError(self._at)
        return self._data[start : self._at]

    def _value(self, kind: int) -> str | float | None:
        """Return a value; arrays (the vocabulary) are skipped and give None."""
        if kind == _STRING:
            return self._string().decode("utf-8", "replace")
        if kind != _ARRAY:
            return self._scalar(_NUMBERS[kind])
        inner, count = self._number("<I"), self._number("<Q")
        if inner in {_STRING, _ARRAY}:
            for _ in range(count):
                self._value(inner) if inner == _ARRAY else self._string()
        else:
            self._at += struct.calcsize(_NUMBERS[inner]) * count
        return None

    def _tensor_size(self) -> int:
        """Return the count of numbers in a tensor; its description is name, dimensions, type and offset."""
        self._string()
        shape = [self._number("<Q") for _ in range(self._number("<I"))]
        self._at += 4 + 8
        return math.prod(shape)
