"""Image features kept on disk, shared by runs and processes: computed once for weights, images, transform and views."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import kravl
from kravl.data.images import FileOpener
from kravl.data.inspect.fingerprint import Fingerprints, pixels_sha256
from kravl.data.loading.pixel_cache import locked
from kravl.data.source import Samples
from kravl.runtime.dtypes import FLOATS
from kravl.runtime.files import json_object, refuse_endless, write_atomic

log = logging.getLogger(__name__)
METADATA_KEY, FEATURES = "kravl", "features"
GB = 10**9
ALIGNMENT = 64  # bytes, of torch's allocations on a CPU
Key = Mapping[str, object]


class FeatureStore:
    """Tensors of features (n, ...) by what decided them, a file each in ``<cache_root>/features``.

    A file's name is a digest of its key, which it holds too, with a checksum of its numbers. One that is damaged is
    told, and computed again; so is one of another key. Files come into being whole or not at all. Where they would take
    more than ``limit_gb``, those unused for longest leave.

    Args:
        cache_root: None keeps nothing.
        limit_gb: gigabytes, of 10^9 bytes; 0 keeps nothing.
    """

    def __init__(self, cache_root: str | None, limit_gb: float) -> None:
        keeps = cache_root is not None and limit_gb > 0
        self.folder = Path(cache_root).expanduser() / FEATURES if keeps and cache_root is not None else None
        self._limit = round(limit_gb * GB)

    def get(self, key: Key, shape: tuple[int, int], compute: Callable[[], Tensor]) -> Tensor:
        """The features (n, d) of ``key``: memory-mapped where they are kept, else computed and then kept.

        Of several processes one computes, and the others wait for it. What ``compute`` gives is not kept if it has
        another number of rows, a part of the images, or a number that is not finite.

        Args:
            shape: n and d; what is kept is told from it, and from floating-point numbers that are finite.
        """
        if self.folder is None:
            return compute()
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(path))
            except OSError as error:
                log.warning("features are computed anew each time: nothing is kept in %s: %s", self.folder, error)
                return compute()
            if (kept := _read(path, text, shape)) is not None:
                return kept
            features = compute()
            if len(features) == shape[0] and features.isfinite().all():
                self._keep(path, text, features)
            return features

    def _keep(self, path: Path, key: str, features: Tensor) -> None:
        """Write one file, if there is room; called by the owner of its lock."""
        size = features.numel() * features.element_size()
        if size > self._limit:
            log.warning(
                "the features of %d images are %.1f GB and are not kept: feature_cache_gb is %g; raise it, or lower "
                "head.views",
                *(len(features), size / GB, self._limit / GB),
            )
            return
        try:
            for leftover in path.parent.glob(f".{path.name}.*"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            self._make_room(size)
            if (free := shutil.disk_usage(path.parent).free) < 2 * size:
                log.warning("features are not kept: %.2f GB with %.2f GB free on the disk", size / GB, free / GB)
                return
            record = {METADATA_KEY: json.dumps({"key": key, "checksum": _checksum(features)})}
            write_atomic(path, _aligned(save({FEATURES: features.contiguous()}, record)))
        except OSError as error:
            log.warning("features are not kept: %s", error)

    def _make_room(self, size: int) -> None:
        assert self.folder is not None
        files = [(file.stat().st_mtime_ns, file.stat().st_size, file) for file in self.folder.glob("*.safetensors")]
        taken = sum(each for _, each, _ in files)
        for _, each, file in sorted(files):
            if taken + size <= self._limit:
                return
            with suppress(OSError):  # a process that has it mapped goes on with it
                file.unlink()
            taken -= each


def _read(path: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """What `FeatureStore` wrote; None where there is nothing, or not that."""
    if not path.exists():
        return None
    try:
        refuse_endless(path)
        with safe_open(path, "pt") as file:
            record = json_object((file.metadata() or {})[METADATA_KEY], "its description")
            features = file.get_tensor(FEATURES)
        if record["key"] == key and _are_features(features, shape) and record["checksum"] == _checksum(features):
            os.utime(path)
            return features
        reason = "its numbers are not those that were written"
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    log.warning("%s is damaged (%s): its features are computed again", path, reason)
    with suppress(OSError):
        path.unlink()
    return None


def _are_features(tensor: Tensor, shape: tuple[int, int]) -> bool:
    return tuple(tensor.shape) == shape and tensor.dtype in FLOATS and bool(tensor.isfinite().all())


def _aligned(content: bytes) -> bytes:
    """A safetensors file with spaces in its header so that the numbers start where an allocation would.

    A product's last bits go by the alignment of its operands: mapped features must give the logits of computed ones.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    padding = -start % ALIGNMENT
    return (start - 8 + padding).to_bytes(8, "little") + content[8:start] + b" " * padding + content[start:]


def _checksum(features: Tensor) -> str:
    """XXH3 of the numbers: as fast as they are read."""
    return xxhash.xxh3_64_hexdigest(features.contiguous().view(torch.uint8).numpy().data)


def images_identity(samples: Samples) -> str:
    """What tells these images, in this order, from others: contents of files, sizes and times of large sets."""
    opener = samples.opener
    if isinstance(opener, FileOpener):
        known = Fingerprints().of(samples)
        return f"{known['images']} {known.get('contents') or known['times']}"
    clean = getattr(opener, "samples", None)
    if isinstance(clean, Samples) and is_dataclass(opener):  # made from other images: to make them is what takes long
        settings = {each.name: str(getattr(opener, each.name)) for each in fields(opener) if each.name != "samples"}
        made = f"{type(opener).__name__} {settings} of kravl {kravl.__version__}"
        return f"{made}, {samples.sha256()} {samples.positions} of {images_identity(clean)}"
    return f"{samples.sha256()} {pixels_sha256(samples)}"
