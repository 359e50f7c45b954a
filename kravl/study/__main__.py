"""``python -m kravl.study``."""

import sys

from kravl.cli.study import main

if __name__ == "__main__":
    sys.exit(main())
