"""`kravl evaluate` as a script: python evaluate.py run=runs/clip_vitb16_kra_16shot/seed1 evaluation=imagenet_ood"""

import sys

from kravl.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
