"""Batches for training and evaluation; a training loader resumes mid-epoch with exactly the next batch."""

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kravl.data.inspect.limits import MEGAPIXELS
from kravl.data.loading.dataset import Batch, CroppedImages, Crops, EvaluationImages, TrainingFeatures, TrainingImages
from kravl.data.loading.samplers import AugmentedIndex, DistributedSequential, EpochSampler, FixedOrder
from kravl.data.loading.transforms import AUGMENTATIONS, ENGINES
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.signals import ignore

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

MAX_WORKERS = 8
HANDLES = 64  # files that a process of torch has open beside
HANDLES_EACH = 12  # pipes and locks of a worker
BATCHES_AHEAD = 3  # of a worker: two that are prefetched, one that is used
NO_HANDLES = ("Too many open files", "received 0 items of ancdata")  # in errors of workers and of shared memory
T = TypeVar("T")


@dataclass(frozen=True)
class LoadingSettings:
    """How images are put into batches.

    Args:
        num_workers: processes that decode; None: none without a GPU, else up to 8.
        min_batches: a small training set is repeated to this many batches per epoch.
        seed: of order and augmentation.
        augmentation: ``crop_flip`` or ``none``.
        transforms: ``pil``, or ``tensor`` for a faster ``crop_flip`` whose pixels differ a little; see `CropFlip`.
        cache_root: the folder of resized evaluation images; None: they are not cached.
        max_megapixels: of an image; a larger one is refused.
        feature_cache_gb: what features may take there.

    Raises:
        InputError: a number below its least value, or an unknown name.
    """

    batch_size: int = 32
    eval_batch_size: int = 256
    num_workers: int | None = None
    min_batches: int = 1
    seed: int = 1
    augmentation: str = "crop_flip"
    transforms: str = "pil"
    cache_root: str | None = None
    max_megapixels: int = MEGAPIXELS
    feature_cache_gb: float = 0.0

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "eval_batch_size": 1, "min_batches": 1, "num_workers": 0, "max_megapixels": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise InputError(f"loading.{name} is {value}; it must be at least {bound}")
        if self.augmentation not in AUGMENTATIONS:
            raise unknown("augmentation", self.augmentation, AUGMENTATIONS)
        if self.transforms not in ENGINES:
            raise unknown("data.transforms", self.transforms, ENGINES)

    def workers(self) -> int:
        """The number of worker processes."""
        if self.num_workers is not None:
            return self.num_workers
        return min(MAX_WORKERS, os.cpu_count() or 1) if torch.cuda.is_available() else 0


class ResumableLoader(DataLoader[Batch | Crops]):
    """Training batches; `state_dict` counts those yielded, not those that workers have prefetched.

    Lightning saves and loads the state of such a loader with its checkpoints. Order and augmentation depend on seed
    and epoch alone, so resuming only has to skip the batches that were seen.
    """

    def __init__(
        self,
        dataset: TrainingImages | CroppedImages | TrainingFeatures,
        sampler: EpochSampler,
        batch_size: int,
        num_workers: int,
    ) -> None:
        super().__init__(**_options(dataset, sampler, batch_size, num_workers), persistent_workers=num_workers > 0)
        self._order = sampler
        self._epoch = 0
        self._yielded = 0
        self._resume: tuple[int, int] | None = None  # epoch, batches

    def __iter__(self) -> Iterator[Batch | Crops]:  # type: ignore[override]
        # a generator: this runs with the first batch, when Lightning has set the epoch
        same_epoch = self._resume is not None and self._resume[0] == self._order.epoch
        self._yielded = self._resume[1] if self._resume is not None and same_epoch else 0
        self._epoch, self._resume = self._order.epoch, None
        assert self.batch_size is not None
        self._order.start = self._yielded * self.batch_size
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been yielded."""
        epoch, batches = self._resume or (self._epoch, self._yielded)
        return {"epoch": epoch, "batches": batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from ``state``: with the next batch, or the next epoch."""
        done = state["batches"] >= len(self)
        self._resume = (state["epoch"] + 1, 0) if done else (state["epoch"], state["batches"])
        self._order.set_epoch(self._resume[0])


def evaluation_loader(dataset: EvaluationImages, loading: LoadingSettings) -> DataLoader[Batch]:
    """Every image once, in the order of the set; shared among processes if there are several."""
    sampler = DistributedSequential(len(dataset), *processes())
    return DataLoader(**_options(dataset, sampler, loading.eval_batch_size, loading.workers()))


def ordered_loader(
    dataset: TrainingImages, draws: Sequence[AugmentedIndex], loading: LoadingSettings
) -> DataLoader[Batch]:
    """The images of ``draws``, in that order and in evaluation's batch size; all of them in every process."""
    sampler = FixedOrder(draws)
    return DataLoader(**_options(dataset, sampler, loading.eval_batch_size, loading.workers()))


def processes() -> tuple[int, int]:
    """The number of processes that train together, and the rank of this one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1, 0
    return torch.distributed.get_world_size(), torch.distributed.get_rank()


def _options(dataset: Dataset[Any], sampler: Sampler[Any], batch_size: int, workers: int) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "sampler": sampler,
        "batch_size": batch_size,
        "num_workers": workers,
        "collate_fn": no_collate,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": ignore,
        # forked workers share decoded images and die with a killed run; those of Python 3.14's "forkserver" do neither
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "generator": torch.Generator(),  # workers' base seed, else drawn from the global generator
    }


def require_handles(loading: LoadingSettings) -> None:
    """Allow this process as many file handles as its loaders' workers may take, within what the system lets it have.

    A worker hands each tensor over as an open file; where its process has none left, the loader may wait for ever.

    Raises:
        InputError: the system lets it have fewer.
    """
    if not (workers := loading.workers()) or resource is None:
        return
    tensors = 3 + (loading.batch_size if loading.transforms == "tensor" else 0)  # of a batch; see `Crops`
    needed = HANDLES + workers * (HANDLES_EACH + BATCHES_AHEAD * tensors)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InputError(
            f"loading.num_workers={workers} may take {needed} file handles, and this process may have {hard} "
            "(ulimit -n); lower loading.num_workers, 0 needs none, or raise that limit"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def workers_end(error: BaseException) -> str | None:
    """What to say of a loader's worker that died, or of too few handles for its files and pipes; None of others."""
    text = f"{error}"
    if (isinstance(error, OSError) and error.errno == errno.EMFILE) or any(sign in text for sign in NO_HANDLES):
        return (
            f"too many open files: a process may have {_handles()} (ulimit -n); raise that, or lower "
            "loading.num_workers, of which each takes several"
        )
    if not (found := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ([^.]*)", text)):
        return None
    died = found[2].strip()
    starved = "Killed" in died or "Bus error" in died
    meaning = ", as the system does when memory or /dev/shm runs out" if starved else ""
    return f"a data loader's worker (process {found[1]}) {died}{meaning}; loading.num_workers=0 needs none"


def _handles() -> str:
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) if resource else "few"


def no_collate(batch: T) -> T:
    """The data sets return complete batches: there is nothing to collate."""
    return batch
