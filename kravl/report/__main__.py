"""``python -m kravl.report``."""

import sys

from kravl.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
