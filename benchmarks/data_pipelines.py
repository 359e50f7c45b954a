"""The loaders that data.py compares: torchvision's ImageFolder with PIL transforms, and kravl's, on the same files."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from kravl.data.loading.loaders import Loaders
from kravl.data.loading.resumable import LoadingSettings
from kravl.data.loading.transforms import CropFlip
from kravl.data.source import Samples
from kravl.data.sources.folder import ImageFolder


@dataclass(frozen=True)
class Clip:
    """What CLIP ViT-B/16 expects of an image."""

    image_size: int = 224
    resize: int = 224
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill: tuple[int, int, int] = (0, 0, 0)


class Pipelines:
    """Loaders over the same images; making one is part of the time that is measured."""

    def __init__(self, folder: Path, count: int, workers: int, cache: Path) -> None:
        whole = torchvision.datasets.ImageFolder(str(folder))
        step = max(1, len(whole) // count)
        self.indices = range(0, min(len(whole), step * count), step)
        samples = ImageFolder(str(folder)).split("train")
        assert [str(folder / name) for name in samples.names] == [path for path, _ in whole.samples]
        self.samples = samples.subset(self.indices)
        self.none = samples.subset(())
        self.folder, self.workers, self.cache = folder, workers, cache
        self.warm = {engine: self.checked(self.samples, self.samples, "kept", engine) for engine in ("pil", "tensor")}

    def reference(self, train: bool) -> DataLoader[Any]:
        mode, clip = InterpolationMode.BICUBIC, Clip()
        crop = [T.RandomResizedCrop(224, interpolation=mode), T.RandomHorizontalFlip()]
        centre = [T.Resize(224, interpolation=mode), T.CenterCrop(224)]
        chain = T.Compose([*(crop if train else centre), T.ToTensor(), T.Normalize(clip.mean, clip.std)])
        images = Subset(torchvision.datasets.ImageFolder(str(self.folder), chain), self.indices)
        return DataLoader(images, 32 if train else 256, shuffle=train, num_workers=self.workers)

    def checked(self, train: Samples, test: Samples, cache: str | None, engine: str = "pil") -> Loaders:
        """As a run has them when it begins to train."""
        root = str(self.cache / cache) if cache else None
        loading = LoadingSettings(num_workers=self.workers, transforms=engine, cache_root=root)
        loaders = Loaders(Clip(), loading, train, {"test": test})
        loaders.check()
        return loaders

    def passes(self) -> dict[str, dict[str, Callable[[], Iterable[Any]]]]:
        """Task -> pipeline -> what makes its loader; the first of a task is what the others are compared with."""
        all_, none, warm = self.samples, self.none, self.warm
        plain = Loaders(Clip(), LoadingSettings(num_workers=self.workers), none, {"test": all_})
        train: dict[str, Callable[[], Iterable[Any]]] = {
            "ImageFolder + PIL": lambda: self.reference(train=True),
            "kravl, first epoch and the check before it": lambda: self.checked(all_, none, None).training(),
            "kravl, later epochs": warm["pil"].training,
            "kravl, later epochs, data.transforms=tensor": warm["tensor"].training,
        }
        fresh = (f"fresh{i}" for i in itertools.count())
        evaluate: dict[str, Callable[[], Iterable[Any]]] = {
            "ImageFolder + PIL": lambda: self.reference(train=False),
            "kravl, cache_root=null": lambda: plain.evaluation()["test"],
            "kravl, first and the check before it": lambda: self.checked(none, all_, next(fresh)).evaluation()["test"],
            "kravl, later": lambda: warm["pil"].evaluation()["test"],
        }
        # what the checksums cost where they cost most: images in the system's memory, and nothing done with them. A run
        # of default settings reads them twice, for the pretrained and the adapted model, and checks them once
        later = evaluate["kravl, later"]
        once: dict[str, Callable[[], Iterable[Any]]] = {"no checksum": self.unchecked, "checked": later}
        twice: dict[str, Callable[[], Iterable[Any]]] = {
            "no checksum": lambda: itertools.chain(*[self.unchecked()] * 2),
            "checked": lambda: itertools.chain(*[later()] * 2),
        }
        return {"train": train, "evaluate": evaluate, "one pass": once, "two passes": twice}

    def unchecked(self) -> DataLoader[Any]:
        """The kept images as if each had been held against its checksum before."""
        loader = self.warm["pil"].evaluation()["test"]
        loader.dataset._pixel_file._sound[:] = bytes([1]) * len(self.samples)  # type: ignore[attr-defined]
        return loader


def differences(pipelines: Pipelines) -> dict[str, float]:
    """How far kravl's pixels are from PIL's: normalised for evaluation, in levels of 0 to 255 for training."""
    kept = pipelines.warm["pil"].evaluation()["test"]
    pairs = zip(pipelines.reference(False), kept, strict=True)
    evaluation = max(float((theirs[0] - ours.images).abs().max()) for theirs, ours in pairs)
    exact, fast = (CropFlip(224, "bicubic", engine) for engine in ("pil", "tensor"))
    levels = []
    for i in range(0, len(pipelines.samples), max(1, len(pipelines.samples) // 256)):
        pixels = np.array(pipelines.samples.image(i))
        levels.append(np.abs(exact(pixels, i).astype(int) - fast(pixels, i)))
    return {
        "evaluation_max": evaluation,
        "tensor_max_levels": float(max(level.max() for level in levels)),
        "tensor_mean_levels": float(np.mean([level.mean() for level in levels])),
    }


def draw_pictures(folder: Path, classes: Sequence[str] = ("a", "b"), count: int = 64) -> None:
    """Smooth pictures of several sizes, of one class after the other."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / classes[i % len(classes)] / f"{i:02}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((200 + i % 64, 150 + 2 * (i % 64)), Image.Resampling.BICUBIC).save(path)
