"""The schema of every command: the complete list of settings. A key that is not here is refused."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING

from kravl.runtime.files import shipped

CONFIGS = shipped("configs")
CACHE = "${oc.env:XDG_CACHE_HOME,'~/.cache'}/kravl"


@dataclass
class Backbone:
    name: str = MISSING
    build: dict[str, Any] = field(default_factory=dict)  # a kravl.backbones.classifier.Classifier
    # presets besides those of every backbone: patterns over the names of weight matrices, and of parameters to unfreeze
    sites: dict[str, list[str]] = field(default_factory=dict)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    # of a LoRA that is comparable to KRAdapter; null: as many parameters as KRAdapter has on `both`, and its scale of 2
    lora: dict[str, int | None] = field(default_factory=lambda: {"rank": None, "alpha": None})


@dataclass
class Data:
    name: str = MISSING
    source: dict[str, Any] = field(default_factory=dict)  # a kravl.data.source.Source
    # single: the set's own | plain | imagenet7 | openai80 | a template with {}, a list of them, or a file of them
    templates: Any = field(default="single", metadata={"types": ("str", "list[str]")})
    classes: str = "all"  # all | base | new: the first or the second half of the classes, as in base-to-new
    root: str | None = None  # data=folder: the training images, a folder per class
    train: str | None = None
    val: str | None = None
    test: str | None = None  # data=folder: the test images
    file: str | None = None  # data=table: a CSV, TSV or JSONL file of path, label, split
    class_names: str | None = None  # a CSV file of label,name; null: those of the set, with spaces for "_"
    descriptions: str | None = None  # in place of templates: a JSON file of class name: [sentences], as CuPL's
    long_prompts: str = "cut"  # cut | error: a prompt beyond the text tower's context
    transforms: str = "pil"  # pil | tensor: a faster augmentation whose pixels differ a little


@dataclass
class Evaluation:
    name: str = MISSING
    sets: dict[str, Any] = field(default_factory=dict)  # set name -> a kravl.data.source.Source, or a file of data/
    root: str | None = None  # evaluation=folder: the images, a folder per class
    classes: str = "trained"  # trained | own: each set's own class names, which the text tower scores untrained
    held_out: bool = False  # no test image is used: `test` is the drawn validation images, else the training ones left


@dataclass
class Optim:
    lr: float = 1e-3
    head_lr: float | None = None  # for a newly initialised head; null: lr
    weight_decay: float = 0.01  # of matrices; biases and norms are not decayed
    epochs: int | None = 30  # 0: the pretrained model, unchanged
    steps: int | None = None  # optimiser steps, in place of epochs
    steps_per_shot: int | None = None  # optimiser steps as a multiple of shots, in place of epochs
    warmup_steps: int = 0
    min_lr_ratio: float = 0.01  # the cosine ends at this fraction of lr
    label_smoothing: float = 0.0  # share of each label that is spread over all classes
    class_weights: Any = None  # null | balanced (by the images drawn) | a list in the order of the classes

    @property
    def trains(self) -> bool:
        return self.epochs != 0


@dataclass
class Loading:
    batch_size: int = 32
    eval_batch_size: int = 256
    num_workers: int | None = None  # null: none without a GPU, else up to 8
    min_batches: int = 10  # a small set is repeated to this many batches per epoch
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
    sites: str | None = "both"  # vision | text | both | cliplora | all, or the backbone file's own; null: no matrix
    targets: list[str] = field(default_factory=list)  # patterns over the names of matrices, in place of the preset
    unfreeze: list[str] = field(default_factory=list)  # norms | biases | last_two_blocks, patterns over parameter names
    linear_head: bool = False  # trainable class weights; CLIP's start from the text features
    train_statistics: bool = False  # norms with running statistics (BatchNorm) update them in training, and keep them
    shots: int | None = 16  # images per class; null: all
    fraction: float | None = None  # share of all training images; needs shots=null and split_protocol=lineage
    short_classes: str = "error"  # error | keep: a class with fewer images than shots
    split_protocol: str = "coop"  # coop | cliplora | tip | lineage | official
    split_seed: int = II("seed")  # which images are drawn; as in the published protocols, the seed's own by default
    seed: int = 1  # initialisation, order, augmentation
    checkpointing: bool = False  # save only the input of each block and recompute the block: less memory, more time
    alphas: Any = 2  # points of the WiSE-FT curve from the pretrained (0) to the adapted model (1), or their list
    spectrum_every: int = 100  # steps between spectra of ΔW in the log; 0: at the end only
    spectrum: str = "fast"  # fast | exact: during training, randomised in single precision or full decompositions
    checkpoint_every: int = 100  # steps between checkpoints, of which the last two are kept
    name: str = MISSING  # folder under runs
    runs: str = "runs"
    objective: str | None = None  # the metric that train.py returns to a sweeper that searches; needs held_out
    study: str | None = None  # the group of the run in W&B; null: its backbone, data set and shots
    data_root: str = "data"
    cache_root: str | None = CACHE  # resized evaluation images, shared by runs; may be deleted; null keeps none
    overwrite: bool = False  # redo a finished run
    resume: str | None = None  # resume in this run's folder, with the settings that it was started with
    force: bool = False  # with resume: with the settings of this command instead
    check_contents: bool = False  # tell changed images by the contents of all files, not by sizes and times of most
    tracking: str = "wandb"  # none | wandb | csv
    plugins: list[str] = field(default_factory=list)  # other packages whose classes may be built; command line only


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


@dataclass
class Fit:
    steps: int = 500
    lr: float = 0.05  # of AdamW, at its peak
    schedule: str = "cosine"  # cosine | constant
    weight_decay: float = 0.0
    scale: float | None = 1.0  # multiplier of every method's update; null: each adapter's own
    normalise: bool = True  # fit the target at a root mean square of 1, so that one rate suits all


@dataclass
class ApproximateConfig:
    targets: list[str] = field(default_factory=list)  # files of configs/target, or names of variants
    methods: list[str] = field(default_factory=list)  # files of configs/adapter, or names of variants; empty: all files
    variants: dict[str, Any] = field(default_factory=dict)  # name: {of: a file's name, and the settings that change}
    shape: list[int] = field(default_factory=lambda: [256, 256])  # out, in
    budgets: list[float] = field(default_factory=lambda: [1.0])  # multiples of KRAdapter's count; []: methods as given
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])  # of the target, the factors and the frozen bases
    fit: Fit = field(default_factory=Fit)
    device: str = "cpu"  # cpu | cuda | cuda:1
    name: str = MISSING
    out: str = "runs/approximation/${name}"  # folder; an interrupted study resumes there
    overwrite: bool = False  # fit again what is in the folder
    plugins: list[str] = field(default_factory=list)  # other packages whose classes may be built; command line only


@dataclass
class SpectraConfig:
    # folder of a finished run, or the beginning of its name; several as run=[a,b]
    run: Any = field(default=MISSING, metadata={"types": ("str", "list[str]")})
    out: str | None = None  # folder for figures; null: `spectra` in the first run's folder
    exact: bool = False  # singular values at the end by a decomposition in double precision, whatever was recorded
    plugins: list[str] = field(default_factory=list)


SCHEMAS = {"train": Config, "evaluate": EvaluateConfig, "approximate": ApproximateConfig, "spectra": SpectraConfig}
