"""Fetch the npm packages of the browser tests, each pinned: `python -m tests.web.npm_packages DIR`.

npm only packs and unpacks here: no script of a package runs, and nothing that a package depends on is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: Seconds that one package may take.
LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """A package with the SHA-512 of its archive in base64, as `npm view NAME@VERSION dist.integrity` shows it."""

    name: str
    version: str
    sha512: str


PACKAGES = (
    NpmPackage(
        "playwright-core", "1.65.1",
        "hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw==",
    ),
    NpmPackage(
        "axe-core", "4.14.1", "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
    ),
)  # fmt: skip


def fetch(package: NpmPackage, folder: Path) -> str:
    """Put a package into `folder/node_modules`.

    Returns:
        Why it is not there, for people; "" if it is.
    """
    target = folder / "node_modules" / package.name
    stamp = target / f".obcd-{package.version}"
    if stamp.exists():
        return ""
    with tempfile.TemporaryDirectory() as temporary:
        command = ["npm", "pack", "--silent", "--pack-destination", temporary, f"{package.name}@{package.version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"npm cannot fetch {package.name}: {error}"
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            return f"npm cannot fetch {package.name} {package.version}: {done.stderr.strip()[-200:]}"
        digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if digest != package.sha512:
            return f"{package.name} {package.version} has another checksum than the recorded one: {digest}"
        with tarfile.open(archives[0]) as archive:
            archive.extractall(temporary, filter="data")
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(Path(temporary) / "package", target)
    stamp.touch()
    return ""


def main(folder: Path) -> int:
    """Fetch all; a package that is missing makes its tests be skipped, one of another content is an error."""
    reasons = [reason for package in PACKAGES if (reason := fetch(package, folder))]
    for reason in reasons:
        print(reason, file=sys.stderr)
    return int(any("checksum" in reason for reason in reasons))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
