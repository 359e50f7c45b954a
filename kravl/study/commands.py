"""A study as the plain commands that Hydra sweeps with: ``python train.py -m ...``."""

import itertools
import shlex
from collections.abc import Sequence

from kravl.study.grid import settings_of
from kravl.study.schema import AXES, Settings, Study

ALL = "null"  # shots that mean all images, on a command line


def commands(study: Study, changes: Sequence[str]) -> list[str]:
    """As few as say it: names for which nothing is set share one, the others have one each.

    Add ``hydra/launcher=slurm`` or another to have it run elsewhere.
    """
    shots = ",".join(ALL if number is None else str(number) for number in study.shots)
    seeds = ",".join(map(str, study.seeds))
    common = [f"study={study.name}", f"runs={study.folder}", f"shots={shots}", f"seed={seeds}", *changes]
    parts = [_parts(axis, getattr(study, axis)) for axis in AXES]
    lines = [[*study.settings, *itertools.chain(*chosen), *common] for chosen in itertools.product(*parts)]
    return [f"python train.py -m {' '.join(map(shlex.quote, line))}" for line in lines]


def _parts(axis: str, entries: Settings) -> list[list[str]]:
    plain = [name for name, settings in entries.items() if not settings]
    return [
        *([settings_of(axis, ",".join(plain), [])] if plain else []),
        *(settings_of(axis, name, settings) for name, settings in entries.items() if settings),
    ]
