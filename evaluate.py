"""Evaluate a finished run on any data set or shift, without training.

python evaluate.py run=runs/clip_vitb16_kra_16shot/seed1 evaluation=imagenet_ood
python evaluate.py run=runs/clip_vitb16_kra_16shot/seed1 evaluation=corruptions alphas=11
"""

from typing import Any

from kravl.cli.main import main


def evaluate(cfg: Any) -> object:
    """Imports here, so that --help and a typo are answered before torch is loaded."""
    from kravl.run.evaluate import evaluate_run

    return evaluate_run(cfg)


if __name__ == "__main__":
    main("evaluate", evaluate)
