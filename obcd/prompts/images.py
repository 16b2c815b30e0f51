"""Make prompt lines of a folder of pictures: each in base64, because a coordinator reads no paths that users name."""

from __future__ import annotations

import base64
from pathlib import Path

from obcd.prompts.texts import Prompt
from obcd.text import printable
from obcd.text_files import LeftOut

#: Patterns of the files that are read: all of them, so that a file that is not a picture is reported.
GLOBS = ("*",)
#: Largest picture; servers scale them to a few hundred points a side anyway.
MAX_IMAGE_BYTES = 20 * 2**20
#: The default prompt.
TEMPLATE = "Describe this picture."


def image_from_file(path: Path, name: str, most_bytes: int = MAX_IMAGE_BYTES) -> Prompt | LeftOut:
    """Return a picture as one prompt; its name is the id and the text of the template."""
    place = printable(name)
    try:
        with open(path, "rb") as stream:
            data = stream.read(most_bytes + 1)
    except OSError as error:
        return LeftOut(place, f"it cannot be read: {error.strerror}")
    if not data:
        return LeftOut(place, "it is empty")
    if not _is_image(data):
        return LeftOut(place, "it is not a picture that Ollama reads: PNG, JPEG or WebP")
    if len(data) > most_bytes:
        return LeftOut(place, f"it is larger than {most_bytes} bytes: scale it down, or raise --max-image-bytes")
    shown = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return Prompt(shown, shown, place, {"images": [base64.b64encode(data).decode("ascii")]})


def _is_image(data: bytes) -> bool:
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")) or is_webp
