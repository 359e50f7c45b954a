"""Adapt a pretrained classifier to a few images a class, then evaluate it in and out of distribution.

python train.py experiment=clip_vitb16_kra_16shot
python train.py -m experiment=clip_vitb16_lora_16shot seed=1,2,3
python train.py --help
"""

from typing import Any

from kravl.cli.main import main


def train(cfg: Any) -> object:
    """Imports here, so that --help and a typo are answered before torch is loaded."""
    from kravl.run.train import objective, train

    return objective(cfg.objective, train(cfg))


if __name__ == "__main__":
    main("train", train)
