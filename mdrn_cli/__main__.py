"""`python -m mdrn_cli` is `mdrn`."""

import sys

from mdrn_cli.cli import main

if __name__ == "__main__":
    sys.exit(main())
