"""`python -m obcd` and the `obcd` command; handles a Ctrl-C that comes while Python is still importing."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    # Child processes are started as `python -m …` and `python -c …`, which would import modules from the present folder
    # before Python's own: a folder named obcd, a json.py, or a file that somebody else put there.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        from obcd.cli.main import name_standard_output, run  # noqa: PLC0415 - so that Ctrl-C during the import is caught

        name_standard_output()
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
