"""The process: `mdrn`, and `python -m mdrn_cli`."""

import os
import sys
from contextlib import suppress

from mdrn_cli.errors import INTERRUPTED


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        # Takes a fifth of a second, in which Ctrl-C may come as well as later.
        from mdrn_cli.cli import main as run
        from mdrn_cli.parallel import launched
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    code = run()
    if code and launched().size > 1:
        # The processes have not parted (Group.connected), and threads of theirs now and then abort one of which the
        # interpreter is taken down.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
