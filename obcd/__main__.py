"""`python -m obcd` and the `obcd` command; catches a Ctrl-C that comes while Python is still importing."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from obcd.cli.main import run  # noqa: PLC0415 - so that Ctrl-C during the import is caught too

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
