"""The whole campaign of faults: ``python -m tests.faults``, or ``make faults``; see experiments/faults/README.md."""

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded: runs are forked, and a process with threads may not be
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "support")]

if __name__ == "__main__":
    from faults.command import main

    sys.exit(main())
