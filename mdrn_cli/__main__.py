"""The process: `mdrn`, and `python -m mdrn_cli`."""

import sys

from mdrn_cli.errors import INTERRUPTED


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        # Takes a fifth of a second, in which Ctrl-C may come as well as later.
        from mdrn_cli.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
