from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from obcd.manual.man_pages import MAN_PAGES, ManPage, render_man_page
from obcd.manual.pages import read_page

IDS = [page.file_name for page in MAN_PAGES]


def rendered(page: ManPage) -> str:
    return render_man_page(page, read_page).decode("ascii")


def test_four_pages_lie_where_man_looks() -> None:
    assert IDS == ["man1/obcd.1", "man5/obcd.toml.5", "man8/obcd-host.8", "man8/obcd-coordinator.8"]


@pytest.mark.parametrize("page", MAN_PAGES, ids=IDS)
def test_page_has_the_sections_of_a_man_page(page: ManPage) -> None:
    text = rendered(page)

    sections = [line[5:-1] for line in text.splitlines() if line.startswith('.SH "')]
    assert sections[0] == "NAME"
    assert "DESCRIPTION" in sections
    assert sections[-2:] == ["FILES", "SEE ALSO"]
    assert f"\n{page.name}".replace("-", "\\-") + " \\- " in text
    assert all(f"\\fB{name[:-3]}\\fR{name[-3:]}".replace("-", "\\-") in text for name in page.see)


def test_pages_hold_their_commands_and_no_others() -> None:
    obcd, toml, host, coordinator = map(rendered, MAN_PAGES)

    assert '.SS "obcd submit"' in obcd
    assert '.SH "EXIT STATUS"\nExit codes: 0 done' in obcd
    assert '.SH "EXAMPLES"' in host
    assert '.SS "[requests]"' in toml
    assert '.SS "obcd host endpoints"' in host
    assert '.SS "obcd submit"' not in host
    assert '.SS "obcd reload"' in coordinator
    assert '.SH "SIGNALS"' in coordinator
    assert "\n\\fBnum_ctx\\fR\n" in toml


def test_shell_of_an_option_can_be_copied() -> None:
    assert "\\fB\\-\\-base\\-port PORT\\fR" in rendered(MAN_PAGES[2])


@pytest.mark.parametrize("page", MAN_PAGES, ids=IDS)
def test_man_has_no_warnings(page: ManPage, tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    path = tmp_path / "page"
    path.write_text(rendered(page))

    command = ["groff", "-man", "-t", "-Tutf8", "-ww", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")
