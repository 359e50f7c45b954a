"""The schema of every command: the complete list of settings. A key that is not here is refused."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import II, MISSING

from kravl.config.bounds import (
    FINITE,
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SHARE_BELOW_1,
    Bounds,
    limited,
    limited_list,
    named,
    one_of,
    whole,
    words_of,
)
from kravl.runtime.files import shipped

CONFIGS = shipped("configs")
CACHE = "${oc.env:XDG_CACHE_HOME,'~/.cache'}/kravl"
MOST_WORKERS = 256  # processes that load images
MOST_PIXELS = 4096  # of an image's side
# numbers of an adapter, a model, a source of images and a target, by the name that their classes give them
OF_CLASSES = {
    "alpha": POSITIVE, "batch_size": whole(1, 2**20), "beta": POSITIVE, "block": whole(1), "blocks": whole(1),
    "boundary": POSITIVE, "c": POSITIVE, "d_initial": FINITE, "density": Bounds(0, 1, low_open=True),
    "dropout": SHARE_BELOW_1, "epochs": whole(1), "exponent": FINITE, "factor": whole(1),
    "fraction": Bounds(0, 1, low_open=True), "grid": whole(1), "group": whole(1), "harmonics": whole(1),
    "high": POSITIVE, "holdout": whole(2), "image_size": whole(1, MOST_PIXELS), "init_a": FINITE,
    "least_area": Bounds(0, 1, low_open=True), "low": NOT_NEGATIVE, "lr": POSITIVE, "noise": NOT_NEGATIVE,
    "num_coefficients": whole(1), "num_values": whole(1), "omega": POSITIVE, "rank": whole(1), "ratio": SHARE,
    "reduction": whole(1), "scale": FINITE, "seed": SEED, "severity": whole(1, 5), "share": whole(1),
    "size": whole(1, MOST_PIXELS), "split": whole(1), "std": POSITIVE, "steps": whole(1), "strength": NOT_NEGATIVE,
    "terms": whole(1), "test_seed": SEED, "test_share": Bounds(0, 1, low_open=True, high_open=True),
    "train_share": Bounds(0, 1, low_open=True, high_open=True), "variant": whole(1), "views": whole(1, 1000),
    "warmup": whole(), "weight_decay": NOT_NEGATIVE,
}  # fmt: skip
# of Lightning's Trainer
OF_TRAINER = {
    "accumulate_grad_batches": whole(1), "check_val_every_n_epoch": whole(1), "devices": whole(-1, 1024),
    "gradient_clip_val": NOT_NEGATIVE, "limit_predict_batches": Bounds(0, MOST, low_open=True),
    "limit_test_batches": Bounds(0, MOST, low_open=True), "limit_train_batches": Bounds(0, MOST, low_open=True),
    "limit_val_batches": Bounds(0, MOST), "log_every_n_steps": whole(), "num_nodes": whole(1, 4096),
    "num_sanity_val_steps": whole(-1), "overfit_batches": Bounds(0, MOST),
    "reload_dataloaders_every_n_epochs": whole(), "val_check_interval": Bounds(0, MOST, low_open=True),
}  # fmt: skip


@dataclass
class Backbone:
    name: str = MISSING
    build: dict[str, Any] = named(**OF_CLASSES)  # a kravl.backbones.classifier.Classifier
    # presets besides those of every backbone: patterns over the names of weight matrices, and of parameters to unfreeze
    sites: dict[str, list[str]] = field(default_factory=dict)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    # of a LoRA that is comparable to KRAdapter; null: as many parameters as KRAdapter has on `both`, and its scale of 2
    lora: dict[str, int | None] = field(
        default_factory=lambda: {"rank": None, "alpha": None},
        metadata={"named": {"rank": whole(1), "alpha": whole(1)}},
    )


@dataclass
class Data:
    name: str = MISSING
    source: dict[str, Any] = named(**OF_CLASSES)  # a kravl.data.source.Source
    # single: the set's own | plain | imagenet7 | openai80 | a template with {}, a list of them, or a file of them
    templates: Any = field(default="single", metadata={"types": ("str", "list[str]")})
    # all | base | new: the first or the second half of the classes, as in base-to-new
    classes: str = one_of("all", "base", "new")
    root: str | None = None  # data=folder: the training images, a folder per class
    train: str | None = None
    val: str | None = None
    test: str | None = None  # data=folder: the test images
    file: str | None = None  # data=table: a CSV, TSV or JSONL file of path, label, split
    class_names: str | None = None  # a CSV file of label,name; null: those of the set, with spaces for "_"
    descriptions: str | None = None  # in place of templates: a JSON file of class name: [sentences], as CuPL's
    long_prompts: str = one_of("cut", "error")  # cut | error: a prompt beyond the text tower's context
    transforms: str = one_of("pil", "tensor")  # pil | tensor: a faster augmentation whose pixels differ a little


@dataclass
class Evaluation:
    name: str = MISSING
    sets: dict[str, Any] = named(**OF_CLASSES)  # set name -> a kravl.data.source.Source, or a file of data/
    root: str | None = None  # evaluation=folder: the images, a folder per class
    # trained | own: each set's own class names, which the text tower scores untrained
    classes: str = one_of("trained", "own")
    held_out: bool = False  # no test image is used: `test` is the drawn validation images, else the training ones left


@dataclass
class Optim:
    lr: float = limited(1e-3, NOT_NEGATIVE)
    head_lr: float | None = limited(None, NOT_NEGATIVE)  # for a newly initialised head; null: lr
    weight_decay: float = limited(0.01, NOT_NEGATIVE)  # of matrices; biases and norms are not decayed
    epochs: int | None = limited(30, whole())  # 0: the pretrained model, unchanged
    steps: int | None = limited(None, whole())  # optimiser steps, in place of epochs
    steps_per_shot: int | None = limited(None, whole())  # optimiser steps as a multiple of shots, in place of epochs
    warmup_steps: int = limited(0, whole())
    min_lr_ratio: float = limited(0.01, SHARE)  # the cosine ends at this fraction of lr
    label_smoothing: float = limited(0.0, SHARE)  # share of each label that is spread over all classes
    # null | balanced (by the images drawn) | a list in the order of the classes
    class_weights: Any = limited(None, each=POSITIVE)
    l2_sp: float = limited(0.0, NOT_NEGATIVE)  # adds l2_sp / 2 * the squared norm of what training has changed (L2-SP)

    @property
    def trains(self) -> bool:
        return self.epochs != 0


@dataclass
class Stage:
    # adapters | unfreeze | context | head, or patterns over names of what the run trains
    train: list[str] = field(default_factory=list)
    share: float | None = limited(None, Bounds(0, 1, low_open=True))  # of the run's steps; null: what the others leave
    steps: int | None = limited(None, whole(1))  # in place of a share
    lr: float | None = limited(None, NOT_NEGATIVE)  # of all that it trains; null: those of optim, as of the next two
    weight_decay: float | None = limited(None, NOT_NEGATIVE)
    warmup_steps: int | None = limited(None, whole())


@dataclass
class Loading:
    batch_size: int = limited(32, whole(1, 2**20))
    eval_batch_size: int = limited(256, whole(1, 2**20))
    num_workers: int | None = limited(None, whole(0, MOST_WORKERS))  # null: none without a GPU, else up to 8
    min_batches: int = limited(10, whole(1, 10**6))  # a small set is repeated to this many batches per epoch
    augmentation: str = one_of("crop_flip", "none")  # crop_flip | none
    max_megapixels: int = limited(40, whole(1, 10_000))  # a larger image is refused: it takes gigabytes


@dataclass
class Config:
    backbone: Backbone = MISSING
    method: str = MISSING  # a file of configs/method
    label: str = II("method")  # the method's name in tables and folders, for a method with settings of its own
    adapter: dict[str, Any] = named(**OF_CLASSES)  # a kravl.adapters.base.Adapter
    head: dict[str, Any] = named(**OF_CLASSES)  # a kravl.backbones.heads.head.Head on fixed features; empty: none
    tune: str = one_of(
        "none", "few_shot_val"
    )  # none | few_shot_val: the head's settings, on min(shots, 4) images a class
    data: Data = MISSING
    evaluation: Evaluation = MISSING
    trainer: dict[str, Any] = named(**OF_TRAINER)  # any argument of pytorch_lightning.Trainer
    optim: Optim = field(default_factory=Optim)
    loading: Loading = field(default_factory=Loading)
    init: str | None = None  # a finished run whose adapters this one starts from, of the same method and backbone
    sites: str | None = "both"  # vision | text | both | cliplora | all, or the backbone file's own; null: no matrix
    targets: list[str] = field(default_factory=list)  # patterns over the names of matrices, in place of the preset
    unfreeze: list[str] = field(default_factory=list)  # norms | biases | last_two_blocks, patterns over parameter names
    linear_head: bool = False  # trainable class weights; CLIP's start from the text features
    context_tokens: int = limited(0, whole(0, 1024))  # vectors learned in front of the class names (CoOp); 0: templates
    context_init: str | None = None  # words of so many tokens that they start from; null: normal numbers
    context_per_class: bool = False  # vectors of its own for each class
    train_statistics: bool = False  # norms with running statistics (BatchNorm) update them in training, and keep them
    # one after the other, each with an optimiser of its own; empty: all of the above trains in every step
    stages: list[Stage] = field(default_factory=list, metadata={"like": Stage})
    shots: int | None = limited(16, whole(1))  # images per class; null: all
    # share of all training images; needs shots=null and split_protocol=lineage
    fraction: float | None = limited(None, Bounds(0, 1, low_open=True))
    short_classes: str = one_of("error", "keep")  # error | keep: a class with fewer images than shots
    # coop | cliplora | tip | lineage | official
    split_protocol: str = one_of("coop", "cliplora", "tip", "lineage", "official")
    # which images are drawn; as in the published protocols, the seed's own by default
    split_seed: int = limited(II("seed"), SEED)
    seed: int = limited(1, SEED)  # initialisation, order, augmentation
    checkpointing: bool = False  # save only the input of each block and recompute the block: less memory, more time
    # points of the WiSE-FT curve from the pretrained (0) to the adapted model (1), or their list
    alphas: Any = limited(2, whole(1, 1001), each=SHARE, among=1)
    spectrum_every: int = limited(100, whole())  # steps between spectra of ΔW in the log; 0: at the end only
    # fast | exact: during training, randomised in single precision or full decompositions
    spectrum: str = one_of("fast", "exact")
    # steps between checkpoints, the last two of which are kept; 0: none between
    checkpoint_every: int = limited(100, whole())
    name: str = MISSING  # folder under runs
    runs: str = "runs"
    objective: str | None = None  # the metric that train.py returns to a sweeper that searches; needs held_out
    study: str | None = None  # the group of the run where it is tracked; null: its backbone, data set, shots
    data_root: str = "data"
    cache_root: str | None = CACHE  # resized evaluation images, shared by runs; may be deleted; null keeps none
    feature_cache_gb: float = limited(4.0, NOT_NEGATIVE)  # of features kept there for heads; the longest unused leave
    overwrite: bool = False  # redo a finished run
    resume: str | None = None  # resume in this run's folder, with the settings that it was started with
    force: bool = False  # with resume: with the settings of this command instead
    check_contents: bool = False  # tell changed images by the contents of all files, not by sizes and times of most
    # none | wandb | tensorboard | mlflow | trackio | csv, or several: [wandb,csv]
    tracking: Any = words_of("wandb", "none", "tensorboard", "mlflow", "trackio", "csv", alone="none")
    track_sites: bool = False  # curves of each site, too, as sites/...: hundreds of them
    plugins: list[str] = field(default_factory=list)  # other packages whose classes may be built; command line only


@dataclass
class EvaluateConfig:
    run: str = MISSING  # folder of a finished run, or the beginning of its name
    evaluation: Evaluation = MISSING
    alphas: Any = limited(2, whole(1, 1001), each=SHARE, among=1)  # as in a run
    trainer: dict[str, Any] = named(**OF_TRAINER)  # changes to the run's own
    loading: dict[str, Any] = field(default_factory=dict, metadata={"like": Loading})  # changes to the run's own
    data_root: str | None = None  # null: the run's own
    cache_root: str | None = CACHE  # as in a run
    plugins: list[str] = field(default_factory=list)


@dataclass
class Fit:
    steps: int = limited(500, whole(1))
    lr: float = limited(0.05, POSITIVE)  # of AdamW, at its peak
    schedule: str = one_of("cosine", "constant")  # cosine | constant
    weight_decay: float = limited(0.0, NOT_NEGATIVE)
    scale: float | None = limited(1.0, FINITE)  # multiplier of every method's update; null: each adapter's own
    normalise: bool = True  # fit the target at a root mean square of 1, so that one rate suits all


@dataclass
class ApproximateConfig:
    targets: list[str] = field(default_factory=list)  # files of configs/target, or names of variants
    methods: list[str] = field(default_factory=list)  # files of configs/adapter, or names of variants; empty: all files
    variants: dict[str, Any] = named(**OF_CLASSES)  # name: {of: a file's name, and the settings that change}
    shape: list[int] = limited_list((256, 256), whole(1, 2**16), length=2)  # out, in
    budgets: list[float] = limited_list((1.0,), POSITIVE)  # multiples of KRAdapter's count; []: methods as given
    seeds: list[int] = limited_list((1, 2, 3), SEED)  # of the target, the factors and the frozen bases
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
