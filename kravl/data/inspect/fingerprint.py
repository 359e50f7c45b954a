"""What tells that images are the same: names and labels, sizes and times of their files, and contents."""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from kravl.data.images import FileOpener
from kravl.data.source import Samples, Source
from kravl.runtime.errors import InputError
from kravl.runtime.shared import file_state, is_sharing, shared
from kravl.runtime.signals import raise_if_stopped

log = logging.getLogger(__name__)
SMALL = 256 * 2**20  # bytes of a set whose contents are read without being asked for: less than a second
MAX_DRAWN = 4 * 2**30  # likewise of the images that are trained on, which are decoded anyway
MAX_THREADS = 8
AHEAD = 1024  # files that are asked for at once
SHOWN = 12  # hex digits of a digest in a line for a person
Stat = tuple[int, int]  # bytes, and nanoseconds of the last change


class Fingerprints:
    """Fingerprints of sets, each file looked at once.

    Args:
        contents: read every file, not only those of small sets.
    """

    def __init__(self, contents: bool = False) -> None:
        self._contents = contents
        self._stats: dict[Path, Stat] = {}
        self._known: dict[Any, dict[str, str]] = {}

    def of(self, samples: Samples, most: int = SMALL) -> dict[str, str]:
        """``images``: how many, and a digest of names, labels and sizes; ``times`` of files; ``contents``, where read.

        The first and the last are the same on every machine that has the images.

        Args:
            most: bytes of files beyond which their contents are not read unless they were asked for.

        Raises:
            InputError: an image cannot be read.
        """
        samples = _read_from(samples)
        if not isinstance(samples.opener, FileOpener):
            return self._look(samples, most)
        key = (samples.opener.root, samples.names, samples.labels, most)  # every corruption is of the same images
        if key not in self._known:
            self._known[key] = self._look(samples, most)
        return dict(self._known[key])

    def differences(self, what: str, recorded: Mapping[str, str], samples: Samples) -> Iterator[str]:
        """``field: old -> new`` where ``samples`` are other images than those ``recorded`` by `of`.

        A time alone says nothing where contents were recorded: a copy of the images has others.
        """
        samples = _read_from(samples)
        images, times = self._listed(samples)
        if recorded.get("images", images) != images:
            yield f"images of {what}: {_short(recorded['images'])} -> {_short(images)}"
        elif recorded.get("times", times) != times:
            if "contents" not in recorded:
                yield f"times of change of the images of {what}: {_short(recorded['times'])} -> {_short(times)}"
            elif recorded["contents"] != (now := contents_sha256(samples)):
                yield f"contents of the images of {what}: {_short(recorded['contents'])} -> {_short(now)}"
        elif self._contents and "contents" in recorded and recorded["contents"] != (now := contents_sha256(samples)):
            yield f"contents of the images of {what}: {_short(recorded['contents'])} -> {_short(now)}"

    def set_sha256(self, samples: Samples) -> str:
        """A digest by which two sets differ, the same on every machine: contents of small ones, sizes of others."""
        known = self.of(samples)
        small = sum(size for size, _ in map(self._stat, _files(_read_from(samples)))) <= SMALL
        parts = [known["images"], *([known["contents"]] if small and "contents" in known else [])]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def _look(self, samples: Samples, most: int) -> dict[str, str]:
        images, times = self._listed(samples)
        files = _files(samples)
        read = self._contents or (bool(files) and sum(size for size, _ in map(self._stat, files)) <= most)
        return {"images": images, "times": times} | ({"contents": contents_sha256(samples)} if read else {})

    def _listed(self, samples: Samples) -> tuple[str, str]:
        stats = [self._stat(file) for file in _files(samples)]
        sizes = hashlib.sha256(f"{samples.sha256()} {[size for size, _ in stats]}".encode()).hexdigest()
        times = hashlib.sha256(str([time for _, time in stats]).encode()).hexdigest()
        return f"{len(samples)}, sha256 {sizes}", times

    def _stat(self, file: Path) -> Stat:
        if file not in self._stats:
            try:
                status = file.stat()
            except (OSError, ValueError):  # reading it says so
                self._stats[file] = (-1, -1)
            else:
                self._stats[file] = (status.st_size, status.st_mtime_ns)
        return self._stats[file]


def data_sha256(source: Source, test_sha256: str) -> str:
    """A digest of the classes in their order and of the test images: two data sets of one name differ in it."""
    classes = "\n".join(source.class_ids).encode("utf-8", "surrogateescape")
    return hashlib.sha256(classes + f"\n{test_sha256}".encode()).hexdigest()


def trained_contents(
    trained: Samples, evaluated: Mapping[str, Samples], most: float = MAX_DRAWN, seen_as: str = "trained on"
) -> list[str]:
    """A line for each set some of whose images are, byte for byte, images that are ``trained`` on, by other names too.

    Only files of one size are read. Images that are no files of their own are not looked at.

    Args:
        most: bytes of a set and of the images trained on beyond which they are not compared, which is told.

        seen_as: what the images are used for.

    Raises:
        InputError: an image cannot be read.
        Interrupted: the process has been asked to stop.
    """
    known = _by_size(trained)
    lines = []
    for name, samples in evaluated.items():
        alike = {size: (files, known[size]) for size, files in _by_size(samples).items() if size in known}
        if sum(size * (len(files) + len(drawn)) for size, (files, drawn) in alike.items()) > most:
            log.info("%s is not compared with what is %s; check_contents=true reads all of it", name, seen_as)
            continue
        seen = set(_digests([file for _, drawn in alike.values() for file in drawn]))
        count = sum(digest in seen for digest in _digests([file for files, _ in alike.values() for file in files]))
        if count:
            lines.append(f"{count} of the {len(samples)} images of {name} are {seen_as}, byte for byte")
    return lines


def _by_size(samples: Samples) -> dict[int, list[Path]]:
    """The files that are an image each, by their bytes."""
    found: defaultdict[int, list[Path]] = defaultdict(list)
    for index in range(len(samples)):
        if (file := samples.file(index)) is not None:
            with suppress(OSError):  # reading it says so
                found[file.stat().st_size].append(file)
    return dict(found)


def _digests(files: Sequence[Path]) -> Iterator[bytes]:
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(files), AHEAD):
            raise_if_stopped()
            yield from pool.map(_file_digest, files[start : start + AHEAD])


def contents_sha256(samples: Samples) -> str:
    """Hex digest of the contents of the files, or of the pixels where there are none, in order.

    Raises:
        InputError: an image cannot be read.
        Interrupted: the process has been asked to stop.
    """
    files = _files(samples)
    return _joint_sha256(_file_digest, files) if files else pixels_sha256(samples)


def pixels_sha256(samples: Samples) -> str:
    """Hex digest of the pixels of every image, in order. Raises as `contents_sha256`."""
    return _joint_sha256(_pixel_digest(samples), range(len(samples)))


def _joint_sha256(part_of: Callable[[Any], bytes], jobs: Sequence[Any]) -> str:
    digest = hashlib.sha256()
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(jobs), AHEAD):
            raise_if_stopped()
            for part in pool.map(part_of, jobs[start : start + AHEAD]):
                digest.update(part)
    return digest.hexdigest()


def _pixel_digest(samples: Samples) -> Callable[[int], bytes]:
    """A function from a position to the digest of the pixels there."""

    def compute(index: int) -> bytes:
        image = samples.image(index)
        return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()

    def digest(index: int) -> bytes:
        known = samples.identity(index) if is_sharing() else None
        return shared(known and ("pixels sha256", *known), lambda: compute(index))

    return digest


def _file_digest(path: Path) -> bytes:
    known = file_state(path) if is_sharing() else None
    return shared(known and ("file sha256", *known), lambda: _read_digest(path))


def _read_digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def _files(samples: Samples) -> list[Path]:
    """The files that the images are read from, each once, in order; none of images that are made."""
    return list(dict.fromkeys(samples.files()))


def _read_from(samples: Samples) -> Samples:
    """The images that those of ``samples`` are made from, such as the clean ones of a corruption; else themselves."""
    source = getattr(samples.opener, "samples", None)
    return source if isinstance(source, Samples) else samples


def _short(text: object) -> str:
    return " ".join(word[:SHOWN] for word in str(text)[:200].split())
