"""What kravl can do with every model of open_clip and timm; see experiments/breadth/README.md.

python -m tests.breadth, or make breadth
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no weights are asked for
TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "support")]

if __name__ == "__main__":
    from breadth.command import main

    sys.exit(main())
