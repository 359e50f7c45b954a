"""The schema of a run and of an evaluation: the only list of knobs. A key that is not here is refused."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, OmegaConf

from kravl.analysis_config import ApproximateConfig, SpectraConfig

_PACKAGE = Path(__file__).parent
CONFIGS = next(p for p in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if p.is_dir())
SHOTS = (1, 2, 4, 8, 16)
CACHE = "${oc.env:XDG_CACHE_HOME,'~/.cache'}/kravl"


@dataclass
class Backbone:
    name: str = MISSING
    build: dict[str, Any] = field(default_factory=dict)  # a kravl.backbones.classifier.Classifier
    sites: dict[str, list[str]] = field(default_factory=dict)  # presets: patterns over the names of weight matrices
    parameters: dict[str, list[str]] = field(default_factory=dict)  # presets for unfreeze
    lora: dict[str, int] = field(default_factory=dict)  # rank and alpha of a LoRA that is comparable to KRAdapter


@dataclass
class Data:
    name: str = MISSING
    source: dict[str, Any] = field(default_factory=dict)  # a kravl.data.source.Source
    templates: str = "single"
    classes: str = "all"  # all | base | new: the first or the second half of the classes, as in base-to-new
    root: str | None = None  # data=folder: the training images, a folder a class
    train: str | None = None
    val: str | None = None
    test: str | None = None  # data=folder: the test images
    file: str | None = None  # data=table: a CSV, TSV or JSONL file of path, label, split
    class_names: str | None = None  # a CSV file of label,name; null: those of the set, with spaces for "_"
    transforms: str = "pil"  # pil | tensor: a faster augmentation whose pixels differ a little


@dataclass
class Evaluation:
    name: str = MISSING
    sets: dict[str, Any] = field(default_factory=dict)  # set name -> a kravl.data.source.Source, or a file of data/
    classes: str = "trained"  # trained | own: each set's own class names, which the text tower scores untrained
    held_out: bool = False  # no test image is looked at: `test` is the drawn validation images, else those left over


@dataclass
class Optim:
    lr: float = 1e-3
    head_lr: float | None = None  # for a head that starts from nothing; null: lr
    weight_decay: float = 0.01  # of matrices; biases and norms are not decayed
    epochs: int | None = 30  # 0 is the pretrained model, unchanged
    steps: int | None = None  # optimiser steps, in place of epochs
    steps_per_shot: int | None = None  # optimiser steps as a multiple of shots, in place of epochs
    warmup_steps: int = 0
    min_lr_ratio: float = 0.01  # the cosine ends at this fraction of lr


@dataclass
class Loading:
    batch_size: int = 32
    eval_batch_size: int = 256
    num_workers: int | None = None  # null: none without a GPU, else up to 8
    min_batches: int = 10  # a small set is repeated to this many batches an epoch
    augmentation: str = "crop_flip"  # crop_flip | none


@dataclass
class Config:
    backbone: Backbone = MISSING
    method: str = MISSING  # a file of configs/method
    label: str = II("method")  # the method's name in tables and folders, for a method with settings of its own
    adapter: dict[str, Any] = field(default_factory=dict)  # a kravl.adapters.base.Adapter
    data: Data = MISSING
    evaluation: Evaluation = MISSING
    trainer: dict[str, Any] = field(default_factory=dict)  # any argument of pytorch_lightning.Trainer
    optim: Optim = field(default_factory=Optim)
    loading: Loading = field(default_factory=Loading)
    sites: str | None = "both"  # a preset of the backbone; null adapts no matrix
    targets: list[str] = field(default_factory=list)  # patterns in place of the preset
    unfreeze: list[str] = field(default_factory=list)  # patterns over parameter names
    linear_head: bool = False  # class weights of their own; CLIP's start from the text features
    shots: int | None = 16  # images a class; null: all
    fraction: float | None = None  # share of all training images; needs shots=null and split_protocol=lineage
    short_classes: str = "error"  # error | keep: a class with fewer images than shots
    split_protocol: str = "coop"  # coop | cliplora | tip | lineage | official
    split_seed: int = II("seed")  # which images are drawn; as in the published protocols, the seed's own by default
    seed: int = 1  # initialisation, order, augmentation
    checkpointing: bool = False  # keep the input of each block alone and compute it again: less memory, more time
    alphas: Any = 2  # points of the WiSE-FT curve from the pretrained (0) to the adapted model (1), or their list
    spectrum_every: int = 100  # steps between spectra of ΔW in the log; 0: at the end only
    spectrum: str = "fast"  # fast | exact: while training single precision and randomised, or full decompositions
    checkpoint_every: int = 100  # steps between checkpoints, of which the last two are kept
    name: str = MISSING  # folder under runs
    runs: str = "runs"
    objective: str | None = None  # the metric that train.py returns to a sweeper that searches; needs held_out
    study: str | None = None  # the group of the run in W&B; null: its backbone, data set and shots
    data_root: str = "data"
    cache_root: str | None = CACHE  # resized evaluation images, shared by runs; may be deleted; null keeps none
    overwrite: bool = False  # redo a finished run
    resume: str | None = None  # go on in this run's folder, by the settings that it was started with
    force: bool = False  # with resume: by those of this command
    tracking: str = "wandb"  # none | wandb | csv
    plugins: list[str] = field(default_factory=list)  # other packages that may be built; command line only


@dataclass
class EvaluateConfig:
    run: str = MISSING  # folder of a finished run, or the beginning of its name
    evaluation: Evaluation = MISSING
    alphas: Any = 2  # as in a run
    trainer: dict[str, Any] = field(default_factory=dict)  # changes to the run's own
    loading: dict[str, Any] = field(default_factory=dict)  # changes to the run's own
    data_root: str | None = None  # null: the run's own
    cache_root: str | None = CACHE  # as in a run
    plugins: list[str] = field(default_factory=list)


def methods() -> list[str]:
    """The names of the shipped methods: an adapter, or what else trains, with its fixed hyper-parameters."""
    return _names("method")


def experiments() -> list[str]:
    """The names of the shipped experiment files, and of every combination of a backbone, a method and 1 to 16 shots."""
    grid = product(_names("backbone"), _names("method"), SHOTS)
    return _names("experiment") + [f"{backbone}_{method}_{shots}shot" for backbone, method, shots in grid]


def register(wanted: Iterable[str] = ()) -> None:
    """Tell Hydra the schemas, and those of the ``wanted`` experiments that are a ``<backbone>_<method>_<shots>shot``.

    Such an experiment is a composition, on ImageNet and its shifts; a file for each would only repeat its name.
    """
    OmegaConf.register_new_resolver("images", _images, replace=True)
    store = ConfigStore.instance()
    store.store(name="train_schema", node=Config)
    store.store(name="evaluate_schema", node=EvaluateConfig)
    store.store(name="approximate_schema", node=ApproximateConfig)
    store.store(name="spectra_schema", node=SpectraConfig)
    for name in wanted:
        for backbone, method in product(_names("backbone"), _names("method")):
            if shots := re.fullmatch(f"{backbone}_{method}_([1-9][0-9]*)shot", name):
                choices = {"backbone": backbone, "method": method, "data": "imagenet", "evaluation": "imagenet_ood"}
                defaults: list[Any] = [{f"override /{group}": choice} for group, choice in choices.items()]
                # follows what the command line changes
                label = "${backbone.name}_${label}_${images:${shots},${fraction}}"
                node = {"defaults": [*defaults, "_self_"], "shots": int(shots[1]), "name": label}
                store.store(group="experiment", name=name, package="_global_", node=node)


def _images(shots: int | None, fraction: float | None) -> str:
    """How many images a run trains on, as its name says it: 16shot, fraction0.5 or all."""
    if shots is not None:
        return f"{shots}shot"
    return "all" if fraction is None else f"fraction{fraction}"


def _names(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))
