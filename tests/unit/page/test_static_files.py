from __future__ import annotations

import hashlib
import json
from pathlib import Path

import obcd.page
from obcd.page.static_files import StaticFiles

VENDOR = Path(obcd.page.__file__).parent / "vendor"


def test_files_of_others_are_those_whose_checksums_are_recorded() -> None:
    for record in VENDOR.glob("*.json"):
        said = json.loads(record.read_text("utf-8"))
        assert {"name", "version", "license", "package_sha512"} <= said.keys()
        for name, digest in said["files"].items():
            assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
    recorded = {name for record in VENDOR.glob("*.json") for name in json.loads(record.read_text("utf-8"))["files"]}
    assert {path.name for path in VENDOR.iterdir() if path.suffix != ".json"} == recorded


def test_address_changes_with_the_content_and_leads_to_it() -> None:
    files = StaticFiles()

    url = files.url("page.css")

    file = files.find(url.rpartition("/")[2])
    assert file is not None
    assert hashlib.sha256(file.plain).hexdigest()[:12] in url
    assert files.find("page.css") is None


def test_script_writes_no_markup_past_its_policy() -> None:
    script = (VENDOR.parent / "assets" / "page.js").read_text("utf-8")

    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "http:",
        "https:",
    ):
        assert way not in script
