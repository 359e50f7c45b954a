"""``kravl train``: adapt a pretrained classifier to a few images per class, evaluate it in and out of distribution.

kravl train experiment=clip_vitb16_kra_16shot
kravl train -m experiment=clip_vitb16_lora_16shot seed=1,2,3
"""

from collections.abc import Sequence
from typing import Any

from kravl.cli.configured import run_configured
from kravl.cli.main import framed


@framed
def main(arguments: Sequence[str]) -> int:
    """Train one run, or with ``-m`` a sweep of them; see `kravl.run.train.train`."""
    return run_configured("train", _train, arguments)


def _train(cfg: Any) -> object:
    """Imports here, so that --help, a typo and a missing folder are answered before torch is loaded."""
    from kravl.config.compose import as_written, typed
    from kravl.run.sources import list_sources
    from kravl.tracking.kinds import kinds_of
    from kravl.tracking.run_folder import RunFolder, find_run, folder_of

    kinds_of(cfg.tracking)
    if cfg.init is not None:
        find_run(cfg.init)
    done = RunFolder(folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg))).done
    sources = None if done and not cfg.overwrite else list_sources(typed(cfg))
    from kravl.run.train import objective, train

    return objective(cfg.objective, train(cfg, sources))
