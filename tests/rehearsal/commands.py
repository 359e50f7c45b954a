"""The shipped commands at their real numbers of classes and images: what is run, in order, on a small architecture."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rehearsal import model
from rehearsal.sets import FOLDERS

from kravl.config.compose import methods
from kravl.config.schema import CONFIGS

ROOT = Path(__file__).parents[2]
KRAVL = (sys.executable, "-c", "import sys; from kravl.cli.main import main; sys.exit(main())")
STUDIES = ROOT / "experiments/studies"
METHOD = "kra"  # that every set is tried with
STEPS = 4  # of the optimiser
NOT_SIBLINGS = ("custom", "last_blocks")  # the first has no settings of its own, the second names blocks 10 and 11
GROWTH = {"a quarter of the classes": (250, 48), "a quarter of the images": (1000, 12), "all": (1000, 48)}
HEADS = ("kra", "linear_probe")


class Step(NamedTuple):
    """A command, and what it is called in the tables."""

    name: str
    command: Sequence[str]


def steps(data: Path, work: Path, full: bool) -> Iterator[Step]:
    """Every command, lazily: some name runs that earlier ones have made.

    Args:
        data: the root of what `sets.build` writes.
        work: gets studies, runs and the small model.
        full: of each study every method on every data set, in place of each at least once.
    """
    clip = model.clip(work / "clip")
    common = (f"data_root={data}", f"cache_root={work / 'cache'}")
    few = (f"optim.steps={STEPS}", "optim.warmup_steps=0", "trainer.precision=32-true")
    train = [sys.executable, str(ROOT / "train.py")]
    named = "backbone.name=clip_vitb16"  # the run is the larger model's rehearsal
    own = work / "runs/own"
    # the user's own command, with everything that it brings, W&B's files too; then with WiSE-FT's curve
    yield Step("own", [*train, "experiment=clip_vitb16_kra_16shot", named, *common, *few, *clip, f"runs={own}"])
    yield from _evaluations(own, "clip_vitb16_kra_16shot", common, ("objectnet", "imagenet_ood_1000way"), 2)
    yield from _evaluations(own, "clip_vitb16_kra_16shot", common, ("imagenet_ood",), 11)
    yield _study(work, "siblings", _siblings(), [*common, *few, *clip, "tracking=none"])
    for file in sorted(STUDIES.glob("*.yaml")):
        content = yaml.safe_load(file.read_text())
        small = () if "kravl_tiny" in content["backbones"] else clip
        for part in [content] if full else _covering(content):
            yield _study(work, content["name"], _shortened(part, data), [*common, *few, *small, "tracking=none"])
    yield _study(work, "domains", _domain_study(), [*common, *few, *clip, "tracking=none"])
    for name in ("pacs", "caltech101"):
        runs = work / f"runs/vits14_{name}"
        settings = [f"experiment=vits14_{name}", *common, *few, *model.VIT, f"runs={runs}", "tracking=csv"]
        yield Step(f"vits14_{name}", [*train, *settings])
    yield from _growth(data, work, train, [*common, *few, *clip, named])
    yield from _corrupted(work, train, [*common, *few])
    for kind in ("cifar10", "cifar100"):
        runs = work / f"runs/{kind}_c"
        shifts = [f"data.name={kind}", f"evaluation={kind}_c", "alphas=1", *_folder(data, kind), "backbone=clip_vitb32"]
        shifts.append("backbone.name=clip_vitb32")
        yield Step(f"{kind}_c", [*train, *shifts, *common, *few, *clip, f"runs={runs}", "tracking=none"])
    yield from _evaluations(work / "runs/cifar10_c", "clip_vitb32_kra_16shot_cifar10", common, ("cifar10_shifts",), 1)
    for runs in sorted(path for path in (work / "runs").iterdir() if path.name != "growth"):
        yield Step(f"report {runs.name}", [*KRAVL, "report", str(runs)])
    (run,) = own.glob("*/seed1-*")
    yield Step("spectra own", [*KRAVL, "spectra", f"run=[{run}]"])


def _siblings() -> dict[str, Any]:
    """The other methods of the user's command, on ImageNet and its natural shifts."""
    named = [name for name in methods() if name not in NOT_SIBLINGS]
    datasets = {"imagenet": ["evaluation=imagenet_ood"]}
    return {"backbones": ["clip_vitb16"], "datasets": datasets, "methods": named, "shots": [16], "seeds": [1]}


def _domain_study() -> dict[str, Any]:
    """Each domain set, trained on one domain and evaluated on the others whole."""
    named = sorted(path.stem.removesuffix("_domains") for path in (CONFIGS / "evaluation").glob("*_domains.yaml"))
    datasets = {name: [f"evaluation={name}_domains", "short_classes=keep"] for name in named}
    return {"backbones": ["clip_vitb32"], "datasets": datasets, "methods": ["kra"], "shots": [16], "seeds": [1]}


def _covering(study: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two studies: every data set with one method, and the other methods on one data set (ImageNet if it is alone)."""
    method = METHOD if METHOD in study["methods"] else next(iter(study["methods"]))
    dataset = next((name for name in study["datasets"] if name != "imagenet"), "imagenet")
    every_set = {"methods": _only(study["methods"], [method])}
    every_method = {
        "backbones": _only(study["backbones"], list(study["backbones"])[:1]),
        "datasets": _only(study["datasets"], [dataset]),
        "methods": _only(study["methods"], [name for name in study["methods"] if name != method]),
    }
    return [{**study, **part, "baseline": None} for part in (every_set, every_method)]


def _only(axis: Any, names: Sequence[str]) -> dict[str, list[str]]:
    return {name: list(axis[name] or ()) if isinstance(axis, Mapping) else [] for name in names}


def _shortened(study: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """One seed and the most shots of ``study``; sets that need a checksum as folders."""
    datasets = _only(study["datasets"], list(study["datasets"]))
    for name in FOLDERS:
        if name in datasets:
            datasets[name] = [*_folder(data, name), *datasets[name]]
    return {**study, "datasets": datasets, "shots": [max(study.get("shots", [16]))], "seeds": [1]}


def _folder(data: Path, name: str) -> list[str]:
    root = data / "folders" / name
    return ["data=folder", f"data.root={root}", "data.train=train", "data.test=test"]


def _study(work: Path, name: str, content: Mapping[str, Any], changes: Sequence[str]) -> Step:
    """The study as a file of ``work``, and the command that runs it."""
    runs = work / "runs" / name
    title = name if len(content["methods"]) == 1 else f"{name}, methods"
    file = work / "studies" / f"{title}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    backbones = _only(content["backbones"], list(content["backbones"]))
    as_named = {backbone: [*settings, f"backbone.name={backbone}"] for backbone, settings in backbones.items()}
    study = {**content, "name": name, "runs": str(runs), "backbones": as_named}
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return Step(title, [*KRAVL, "study", str(file), "--set", *changes])


def _evaluations(
    runs: Path, name: str, common: Sequence[str], evaluations: Sequence[str], alphas: int
) -> Iterator[Step]:
    for evaluation in evaluations:
        command = [sys.executable, str(ROOT / "evaluate.py"), f"run={runs / name / 'seed1'}"]
        command += [f"evaluation={evaluation}", f"alphas={alphas}", *common]
        yield Step(f"evaluate {name} {evaluation} alphas={alphas}", command)


def _corrupted(work: Path, train: Sequence[str], settings: Sequence[str]) -> Iterator[Step]:
    """All 75 corruptions of ImageNet-C on 275 pictures: they are computed at 224 pixels, whatever the architecture."""
    runs = work / "runs/imagenet_c"
    chosen = ["experiment=quickstart_kra", "evaluation=imagenet_c", "alphas=1", "loading.num_workers=1"]
    yield Step("imagenet_c", [*train, *chosen, *settings, f"runs={runs}"])


def _growth(data: Path, work: Path, train: Sequence[str], settings: Sequence[str]) -> Iterator[Step]:
    """The same job on a quarter of the classes, on a quarter of the images, and on all."""
    for title, (classes, images) in GROWTH.items():
        root = work / f"growth/{classes}x{images}"
        _link(data / "imagenet", root, classes, images)
        for head in HEADS:
            runs = work / "runs/growth"
            what = ["backbone=clip_vitb16", f"method={head}", f"label={head}_{classes}x{images}", "alphas=3"]
            where = ["data=folder", f"data.root={root}", "data.train=train", "data.test=test", f"runs={runs}"]
            # the pixels of the training images are kept, so that the features of a head are computed once
            how = ["loading.augmentation=none", "tracking=none", "split_protocol=official"]
            yield Step(f"growth {head}, {title}", [*train, *what, *where, *how, *settings])


def _link(source: Path, target: Path, classes: int, images: int) -> None:
    """The first ``images`` of each of ``classes`` of ImageNet's validation images, 16 to train on; hard links."""
    for part, there, count in (("train", "train", 16), ("val", "test", images)):
        for folder in sorted((source / part).iterdir())[:classes]:
            (target / there / folder.name).mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.iterdir())[:count]:
                if not (link := target / there / folder.name / file.name).exists():
                    os.link(file, link)
