"""The form of an upload (multipart/form-data), read piece by piece: the file never lies in memory."""

from __future__ import annotations

import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from obcd.api.forms.refusals import invalid
from obcd.text import printable

# It warns of each odd byte of a client, and shows it.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

#: Most fields of a form, and most bytes of one that is not the file.
MOST_FIELDS, MAX_FIELD_BYTES = 16, 1024
#: Longest name of a file that is kept, in characters.
MAX_NAME = 255
#: Bytes of one header of a part, and the number of its headers.
MAX_HEADER_BYTES, MOST_HEADERS = 2048, 8


class UploadForm:
    """Takes the bytes of a body; gives those of the part called `file`, and the other fields.

    Args:
        content_type: The request's Content-Type.

    Raises:
        ApiError: From every method, if it is not such a form.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise invalid("send the file as multipart/form-data, with the fields `purpose` and `file`")
        #: {name: value} of the fields that are not files
        self.fields: dict[str, str] = {}
        #: The name that the client gave the file; None before it came.
        self.filename: str | None = None
        self.is_complete = False
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name, self._is_file = "", False
        self._field = b""
        self._pieces: list[bytes] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
                max_header_count=MOST_HEADERS,
                max_header_size=MAX_HEADER_BYTES,
            )
        except FormParserError:
            raise invalid("the boundary of the form is too long") from None

    def feed(self, block: bytes) -> bytes:
        """Take the next bytes of the body; return those of the file in them."""
        try:
            self._parser.write(block)
        except FormParserError:
            raise invalid("the body is not a form: is it cut off, or its boundary another one?") from None
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def finish(self) -> None:
        """Check that the form is complete."""
        if not self.is_complete:
            raise invalid("the body is cut off")
        if self.filename is None:
            raise invalid("the form has no `file`", "file")

    def _on_part_begin(self) -> None:
        self._disposition, self._field, self._name, self._is_file = b"", b"", "", False

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")[:MAX_FIELD_BYTES]
        self._is_file = self._name == "file"
        if self._is_file:
            if self.filename is not None:
                raise invalid("the form has two files: send one", "file")
            name = options.get(b"filename", b"").decode("utf-8", "replace")
            self.filename = printable(name.rpartition("/")[2])[:MAX_NAME] or "upload.jsonl"
        elif len(self.fields) >= MOST_FIELDS:
            raise invalid("the form has too many fields")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append(data[start:end])
        elif len(self._field) + end - start > MAX_FIELD_BYTES:
            raise invalid("a field of the form is too long")
        else:
            self._field += data[start:end]

    def _on_part_end(self) -> None:
        if not self._is_file and self._name:
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.is_complete = True
