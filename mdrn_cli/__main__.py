"""The process: `mdrn`, and `python -m mdrn_cli`."""

import os
import sys
from contextlib import suppress

from mdrn_cli.errors import INTERRUPTED


def main() -> int:
    """Run the command line; returns the exit code."""
    _occupy_standard_descriptors()
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


def _occupy_standard_descriptors() -> None:
    """Have 0, 1 and 2 be of no file of ours, where a shell's `2>&-` has closed one: C libraries write errors there."""
    with suppress(OSError):  # a sandbox may have no such device
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
