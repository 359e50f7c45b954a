"""``kravl evaluate``: evaluate a finished run on any data set or shift, without training.

kravl evaluate run=runs/clip_vitb16_kra_16shot/seed1 evaluation=imagenet_ood
kravl evaluate run=runs/clip_vitb16_kra_16shot/seed1 evaluation=corruptions alphas=11
"""

from collections.abc import Sequence
from typing import Any

from kravl.cli.configured import run_configured
from kravl.cli.main import framed


@framed
def main(arguments: Sequence[str]) -> int:
    """Evaluate a finished run; see `kravl.run.evaluate.evaluate_run`."""
    return run_configured("evaluate", _evaluate, arguments)


def _evaluate(cfg: Any) -> object:
    """Imports here, so that --help, a typo, a missing run and a missing folder are answered before torch is loaded."""
    from kravl.run.finished.saved import evaluated_config
    from kravl.run.sources import list_sources

    sources = list_sources(evaluated_config(cfg))
    from kravl.run.evaluate import evaluate_run

    return evaluate_run(cfg, sources)
