"""``python -m kravl.data``."""

import sys

from kravl.cli.data import main

if __name__ == "__main__":
    sys.exit(main())
