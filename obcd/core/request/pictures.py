"""The pictures of a message: base64, as Ollama accepts them. Pure."""

from __future__ import annotations

import base64
import binascii

from obcd.errors import LineError

#: A shorter text, in characters, is not a picture: the smallest GIF has 35 bytes. A slash in it is that of a path.
LEAST_LENGTH = 48
#: A longer text, in characters, is not a path.
LONGEST_PATH = 1024


def check_images(images: object, place: str) -> list[str]:
    """Return the pictures as bare base64, without the head of `data:` URLs and without line breaks.

    Raises:
        LineError: If one is neither. The message never quotes it.
    """
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise LineError(f"{place} must be a list of base64 strings")
    return [_bare(image, place) for image in images]


def _bare(image: str, place: str) -> str:
    if image[:5].lower() == "data:":
        head, comma, text = image.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise LineError(f"{place} has a data: URL that is not base64 (data:image/png;base64,…)")
        if not head[5:].lower().startswith("image/"):
            raise LineError(f"{place} has a data: URL that is not a picture (data:image/png;base64,…)")
        return _decodable("".join(text.split()), place)
    if _is_path(image):
        raise LineError(
            f"{place} must be base64 data: a path cannot be read from here, nor an address "
            "(`obcd prepare --images` packs a folder of pictures)"
        )
    return _decodable("".join(image.split()) if "\n" in image else image, place)


def _is_path(image: str) -> bool:
    """Return whether it is a path or an address and not base64, which may have a slash too: JPEG begins with `/9j/`."""
    if len(image) > LONGEST_PATH:
        return False
    return any(sign in image for sign in ".:\\~") or ("/" in image and len(image) < LEAST_LENGTH)


def _decodable(text: str, place: str) -> str:
    try:
        is_empty = not base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise LineError(f"{place} has one that is not base64: encode the file's bytes (base64 -w0 FILE)") from None
    if is_empty:
        raise LineError(f"{place} has an empty one")
    return text
