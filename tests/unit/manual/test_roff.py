from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from obcd.manual.markdown import parse_markdown
from obcd.manual.roff import head, to_roff

PAGE = """\
# Title

What `obcd --help` says, **bold** and *italic*.

- `--from DIR`: a folder.
- a bullet

  ```sh
  .dot 'quoted' \\back ~/x
  ```

1. first
2. second

| key | meaning |
| --- | --- |
| `a` | the first |
| b | |

### Part

'apostrophe – dash
"""


def roff(text: str) -> str:
    return to_roff(parse_markdown(text))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("## See also", '.SH "SEE ALSO"'),
        ("### `obcd host`", '.SS "obcd host"'),
        ("a-b", ".PP\na-b"),
        ("`a-b`", ".PP\n\\fBa\\-b\\fR"),
        (".a", ".PP\n\\&.a"),
        ("'a", ".PP\n\\(aqa"),
        ("é \\\\", ".PP\n\\[u00E9] \\(rs"),
        ("- `--a X`: b", ".TP\n\\fB\\-\\-a X\\fR\nb"),
        ("- b", '.IP "\\(bu" 4\nb'),
        ("3. b", '.IP "1." 4\nb'),
        ("## A\n\nb\n\nc", '.SH "A"\nb\n.PP\nc'),
        ("```\n.a\n\nb\n```", ".PP\n.RS 4\n.nf\n\\&.a\n\nb\n.fi\n.RE"),
        ("|a|b|\n|-|-|\n|c||", ".PP\n.TS\ntab(\t);\nlb lb\nl lx.\nT{\na\nT}\tT{\nb\nT}\nT{\nc\nT}\t\n.TE"),
    ],
)
def test_block_becomes_a_macro(text: str, lines: str) -> None:
    found = roff(f"before\n\n{text}") if not text.startswith("#") else roff(text)

    assert found.removeprefix("before\n") == f"{lines}\n"


def test_roff_is_ascii_and_the_title_is_left_to_the_head() -> None:
    text = roff(PAGE)

    assert text.isascii()
    assert "Title" not in text


@pytest.mark.parametrize("command", [["groff", "-man", "-t", "-Tutf8", "-ww"], ["mandoc", "-T", "utf8", "-W", "error"]])
def test_formatters_have_nothing_to_say(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    path = tmp_path / "a.7"
    path.write_text(head("a", 7, "obcd 1") + '.SH "NAME"\na \\- b\n' + to_roff(parse_markdown(f"## More\n\n{PAGE}")))

    done = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "first" in done.stdout
