"""The first run: the study of KRAdapter beside LoRA, full fine-tuning and two heads on features, and its report.

Nothing is downloaded: the pictograms come with pip, the model with kravl. ``kravl quickstart --help``
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kravl.cli.main import framed
from kravl.runtime.errors import printable
from kravl.runtime.files import shipped

DESCRIPTION = (
    "Adapt a small CLIP to pictograms that it has never seen, in five ways, and evaluate it on them and in other "
    "styles: experiments/studies/quickstart.yaml, then its report. Run the same command again to resume."
)
CREDIT = "Pictures: OpenMoji (https://openmoji.org), CC BY-SA 4.0."
NEXT = (
    "kravl train data=folder data.root=/my/train data.test=/my/test backbone=kravl_tiny shots=8",
    "kravl train experiment=clip_vitb16_kra_16shot data_root=/data tracking=wandb",
    "kravl train -m experiment=quickstart_kra,quickstart_lora shots=1,4,16 seed=1,2,3",
    "kravl evaluate run=runs/quickstart/quickstart_kra/seed1 evaluation=openmoji_shifts alphas=11",
)


@framed
def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, show; 0, or what `kravl.cli.study` ends with."""
    parser = argparse.ArgumentParser(prog="kravl quickstart", description=DESCRIPTION, epilog=CREDIT)
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every run, as kravl train's"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3), help="default: 1 2 3")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one a core, at most four)")
    options = parser.parse_args(arguments)
    from kravl.cli import study  # not for --help
    from kravl.config.quoting import quoted

    file = str(shipped("experiments/studies") / "quickstart.yaml")
    given = ["--set", quoted("runs", str(options.out)), f"seed={','.join(map(str, options.seeds))}", *options.set]
    jobs = [] if options.jobs is None else ["--jobs", str(options.jobs)]
    status = study.main([file, "--retry-failed", "--report", str(options.out), "--pictures", *jobs, *given])
    if status == 0:
        print("\n  ".join([f"{CREDIT}\nFigures and pictures: {printable(options.out / 'index.html')}\nNext:", *NEXT]))
    return status
