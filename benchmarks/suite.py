"""Every benchmark at one commit, each in a process of its own: ``make benchmarks``.

python benchmarks/suite.py                      goes on where it was stopped; then results/ and README.md are written
python benchmarks/suite.py --only layer step    some, by the names of their records in results/
python benchmarks/suite.py --data-root /data    with those that read Caltech-101 from there
python benchmarks/suite.py --plan               how long it takes, by the records of before

A record is kept in build/benchmarks/COMMIT as it is measured, and goes to results/ when all are there. Nothing else
should run on the machine meanwhile.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMPARATORS = "SHiRA HiRA LoHa C3A FourierFT WaveFT PiSSA GraLoRA DeLoRA MiSS Bat LoKr OFT HRA RoAd PSOFT"
SHAPES = "--shapes 3072x768 768x768"
VIT_B16 = "backbone=clip_vitb16 backbone.build.pretrained=null optim.steps=2 alphas=1"
COMMANDS = {
    "attention": "attention.py",
    "conv": "conv.py --rounds 5",
    "layer": f"layer.py --dtype float32 {SHAPES} --rounds 7",
    "layer_bf16": f"layer.py --dtype bfloat16 {SHAPES} --rounds 7",
    "layer_comparators": f"layer.py --layers {COMPARATORS} {SHAPES} --tokens 788 6304 --rounds 5",
    "ideas": "ideas.py",
    "ideas_bf16": "ideas.py --dtype bfloat16",
    "optimizer": "optimizer.py",
    "parts": "parts.py",
    "peft_step": "peft_step.py --layers 1 --rounds 5",
    "heads": "heads.py --rounds 3",
    "scale": "scale.py",
    "spectra": "spectra.py",
    "start": "start.py",
    "grid": "grid.py",
    "step": "step.py --blocks 4 --rounds 3",
    "step_all_blocks": "step.py --methods KRAdapter LoRA --classes 100 --rounds 1",
    "step_bf16": "step.py --dtype bfloat16 --methods KRAdapter LoRA --classes 100 --rounds 3",
    "step_peft": "step.py --loops peft peft-77 kravl kravl-shared kravl-stored --methods LoRA 'LoRA, dropout 0.25' "
    "--classes 100 --rounds 3",
    "step_peft_1000_classes": "step.py --loops peft kravl --methods LoRA --classes 1000 --blocks 4 --rounds 1",
    "step_1000_classes": "step.py --methods KRAdapter LoRA --classes 1000 --blocks 2 --rounds 1",
    "step_vit_b16": "step.py --models ViT-B-16 --methods KRAdapter LoRA --classes 100 --blocks 4 --rounds 1",
    "step_vit_b16_1000_classes": "step.py --models ViT-B-16 --methods KRAdapter LoRA --classes 1000 --loops kravl "
    "--rounds 1",
    "job_1000_classes": f"job.py --threads 2 --drawn 1000 --jobs KRAdapter LoRA --overrides {VIT_B16}",
}
# what a figure depends on; of this folder not what is written from the records
MEASURED = ("kravl", "configs", "experiments/studies", "benchmarks", ":!benchmarks/README.md", ":!benchmarks/results")
WITH_DATA = {  # {data} is a folder that has 101_ObjectCategories
    "data": "data.py --folder {data}/101_ObjectCategories --images 1000 --rounds 3",
    "data_checksum": "data.py --folder {data}/101_ObjectCategories --images 1000 --rounds 61 --tasks 'one pass' "
    "'two passes'",
    "job": "job.py --data-root {data} --jobs zero-shot 'linear probe, kept features' 'KRAdapter, bf16'",
}


def known_seconds(name: str, results: Path) -> float | None:
    """What it took when its record of before was measured."""
    record = results / f"{name}.json"
    seconds: float | None = json.loads(record.read_text()).get("seconds") if record.exists() else None
    return seconds


def told(seconds: float | None) -> str:
    return "unknown, no record says" if seconds is None else f"{seconds / 60:.0f} min"


def show_plan(missing: Mapping[str, str], results: Path, left_out: list[str]) -> None:
    known = {name: known_seconds(name, results) for name in missing}
    for name, seconds in known.items():
        print(f"{name:<28} {told(seconds)}")
    total = sum(seconds for seconds in known.values() if seconds is not None)
    unknown = sum(seconds is None for seconds in known.values())
    print(f"{len(missing)} to measure: {total / 60:.0f} min" + (f" and {unknown} of unknown length" if unknown else ""))
    if left_out:
        print(f"left out without --data-root, which they read Caltech-101 from: {', '.join(left_out)}")


def commit() -> str:
    """The commit of a tree without changes: rows of one commit are of its files."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *MEASURED)
    if changed:
        raise SystemExit(f"benchmarks are of one commit, and files differ from it: {changed.splitlines()[0].strip()}")
    return _git("rev-parse", "--short", "HEAD")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def measure(name: str, command: str, options: argparse.Namespace, folder: Path) -> bool:
    """Run one; its record appears whole or not at all."""
    script, *arguments = [part.format(data=options.data_root) for part in shlex.split(command)]
    begun = folder / f"{name}.part"
    given = ["--quick"] if options.quick else arguments
    line = [sys.executable, str(HERE / script), *given, "--json", str(begun)]
    with (folder / f"{name}.log").open("w") as log:
        status = subprocess.run(line, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
    if status == 0:
        begun.replace(folder / f"{name}.json")
    else:
        print(f"{name} ended with {status}: {folder / name}.log", file=sys.stderr)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[*COMMANDS, *WITH_DATA], metavar="RECORD", help="by name")
    parser.add_argument("--data-root", type=Path, help="folder that holds 101_ObjectCategories")
    parser.add_argument("--plan", action="store_true", help="say what is missing and how long it takes, and end")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="of before, and where records go")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/benchmarks", help="where they are kept until then")
    parser.add_argument("--quick", action="store_true", help="each checks itself; nothing goes to the results")
    options = parser.parse_args()
    every = COMMANDS | (WITH_DATA if options.data_root else {})
    left_out = [name for name in options.only or WITH_DATA if name not in every]
    wanted = {name: every[name] for name in options.only or every if name in every}
    folder = options.folder / ("quick" if options.quick else commit())
    folder.mkdir(parents=True, exist_ok=True)
    missing = {name: command for name, command in wanted.items() if not (folder / f"{name}.json").exists()}
    show_plan(missing, options.results, left_out)
    if options.plan:
        return 0
    for name, command in missing.items():
        if not options.quick and (now := commit()) != folder.name:
            raise SystemExit(f"the commit was {folder.name} and is {now}: the same command begins anew at that")
        print(f"{name}: {told(known_seconds(name, options.results))}", flush=True)
        if not measure(name, command, options, folder):
            return 1
    if not options.quick:
        for name in wanted:
            shutil.copy(folder / f"{name}.json", options.results / f"{name}.json")
        if options.results == HERE / "results":
            subprocess.run([sys.executable, str(HERE / "report.py")], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
