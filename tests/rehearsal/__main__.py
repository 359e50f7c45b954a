"""A rehearsal of the shipped commands at their real numbers of classes and images; see experiments/rehearsal/README.md.

python -m tests.rehearsal, or make rehearsal
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded; studies run a process a core
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "support")]

if __name__ == "__main__":
    from rehearsal.command import main

    sys.exit(main())
