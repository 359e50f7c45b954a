"""`kravl train` as a script: python train.py experiment=clip_vitb16_kra_16shot"""

import sys

from kravl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
