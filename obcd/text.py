"""Text for people: escaped for a terminal or a log, counted, shortened; and durations. Floor 0, pure."""

from __future__ import annotations


def printable(name: str) -> str:
    r"""Escape what must not reach a terminal or log: control characters, bidi overrides, backslashes (as `\x1b`)."""
    return "".join(
        char if char.isprintable() and char != "\\" else char.encode("unicode_escape", "backslashreplace").decode()
        for char in name
    )


def one_line(text: str) -> str:
    r"""Escape what would end a line or control a terminal (as `\n`, `\x1b`); backslashes, and so escapes, stay."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )


def join_lines(text: str, most: int) -> str:
    """Return the lines of an error as one line, cut at `most` characters."""
    whole = "; ".join(line.strip() for line in text.splitlines()).replace(":; ", ": ")
    return whole if len(whole) <= most else whole[: most - 1] + "…"


def describe_encoding(raw: bytes) -> str:
    """Return that bytes are not UTF-8, what they seem to be, and what to do; for bytes that are not UTF-8."""
    try:
        is_western = all(char.isprintable() or char in "\t\r\n" for char in raw.decode("cp1252"))
    except UnicodeDecodeError:  # five bytes have no meaning there
        is_western = False
    if not is_western:
        return "not UTF-8: save the file as UTF-8"
    return (
        "not UTF-8, and looks like Windows-1252 (Latin-1): save the file as UTF-8 (in Excel: CSV UTF-8), or convert "
        "it: iconv -f WINDOWS-1252 -t UTF-8"
    )


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return e.g. `1 prompt`, `30 prompts`, `1 000 prompts`; `nouns` is a plural that does more than add an s."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}".replace(",", " ")


def duration(seconds: float | None) -> str:
    """Return a duration for people, e.g. `42 s`, `3 min 20 s`, `2 h 05 min`; `-` for None."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
