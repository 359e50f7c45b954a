"""The schema of what is run beside training: an approximation study, and the spectra of finished runs."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


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
    out: str = "runs/approximation/${name}"  # folder; a study that was interrupted goes on there
    overwrite: bool = False  # fit again what is in the folder
    plugins: list[str] = field(default_factory=list)  # other packages that may be built; command line only


@dataclass
class SpectraConfig:
    run: Any = MISSING  # folder of a finished run, or the beginning of its name; several as run=[a,b]
    out: str | None = None  # folder for figures; null: `spectra` in the first run's folder
    exact: bool = False  # singular values at the end by a decomposition in double precision, whatever was recorded
    plugins: list[str] = field(default_factory=list)
