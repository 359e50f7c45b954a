"""The first run: KRAdapter beside LoRA, full fine-tuning, the linear probe and zero-shot, in and out of distribution.

Nothing is downloaded: the pictograms come with pip, the model with kravl. ``kravl quickstart --help``
"""

import argparse
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kravl.cli.main import framed
from kravl.config.compose import check_command_line, register_configs
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError
from kravl.runtime.signals import handling, raise_if_stopped, stop_requested
from kravl.study.scheduler import run_all
from kravl.study.worker import LOG
from kravl.tracking.run_folder import folder_of

METHODS = ("linear_probe", "lora", "kra", "full")  # shortest first; configs/experiment/quickstart_<method>.yaml
SEEDS = (1, 2, 3)
# points of the WiSE-FT curve, of the first seed only: each costs an evaluation of all sets, of a probe next to nothing
CURVE = {"linear_probe": 3}
OTHERS = [0.5, 1.0]
INTRODUCTION = (
    "16 pictograms per class of OpenMoji 17, 30 classes such as 'bird' and 'tool'; kravl-tiny, a CLIP of 5.7 million "
    "parameters that has never seen OpenMoji's drawings. Four ways to adapt it, three seeds each; then the same test "
    "pictures as they are, and in other styles: what did adapting cost there?",
    "Pictograms: OpenMoji (https://openmoji.org), CC BY-SA 4.0.",
)
NEXT = (
    "python train.py data=folder data.root=/my/train data.test=/my/test backbone=kravl_tiny shots=8",
    "python train.py experiment=clip_vitb16_kra_16shot data_root=/data tracking=wandb",
    "python train.py -m experiment=quickstart_kra,quickstart_lora shots=1,4,16 seed=1,2,3",
    "python evaluate.py run=runs/quickstart/quickstart_kra/seed1 evaluation=openmoji_shifts alphas=11",
)


@framed
def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, show; finished runs are kept and skipped. 0, or 2 where it cannot be done here."""
    parser = argparse.ArgumentParser(prog="kravl quickstart", description=" ".join(INTRODUCTION))
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every run, as train.py's"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core, at most four)")
    options = parser.parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    for paragraph in INTRODUCTION:
        console.print(f"{paragraph}\n")
    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; it must be at least 1")
    planned = plan_runs(options.seeds, [f"runs={options.out}", *options.set])
    _make(options.out)
    folders = _train(planned, options.jobs, console)
    from kravl.cli.quickstart_report import (
        report_first_run,  # it loads torch, which this process needs for nothing else
    )

    report_first_run(folders, options.out, INTRODUCTION, NEXT)
    return 0


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be written: {error.strerror}; pass --out FOLDER") from error


def plan_runs(seeds: Sequence[int], changes: Sequence[str]) -> list[Any]:
    """The configs of all runs, method by method.

    Raises:
        InputError: ``changes`` that are no settings.
    """
    register_configs()
    configs = []
    for method in METHODS:
        overrides = [f"experiment=quickstart_{method}", *changes]
        check_command_line(overrides, "train")
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            common: Any = compose("train", overrides=overrides)
        for seed in seeds:
            configs.append(deepcopy(common))
            configs[-1].seed = seed
            if not any(change.startswith("alphas=") for change in changes):
                configs[-1].alphas = CURVE.get(method, OTHERS) if seed == seeds[0] else 1
    return configs


def _train(planned: Sequence[Any], jobs: int | None, console: Console) -> list[Path]:
    """Every run, what it prints in a file of its folder; the folders of the runs.

    The longest are trained first, so that at the end no core waits long for the last of them.
    """
    folders = []
    for cfg in planned:
        config = cast(dict[str, Any], OmegaConf.to_container(cfg))
        folders.append(folder_of(cfg.runs, cfg.name, cfg.seed, config))
    columns = TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with handling(), Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=len(planned))
        runs = list(zip(folders, planned, strict=True))[::-1]
        for position, status, reason in run_all([(folder, cfg.copy) for folder, cfg in runs], jobs, stop_requested):
            folder, cfg = runs[position]
            if status in ("failed", "stopped"):
                raise InputError(f"{cfg.method}, seed {cfg.seed}: {reason or status} ({folder / LOG})")
            if status == "done":
                progress.update(task, description=f"done: {cfg.method}, seed {cfg.seed}", advance=1)
        raise_if_stopped()
    return folders
