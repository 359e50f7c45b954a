"""Hold a data set on disk against its card, and look for what spoils a result: bad files, doubles, leakage."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from kravl.data.images import FileOpener
from kravl.data.source import Samples
from kravl.runtime.errors import InputError, some_of

LISTED = 20
MAX_THREADS = 8
AHEAD = 4096  # images that are asked for at once: a million futures would take gigabytes


class Count(NamedTuple):
    """Images of a split: how many there are, how many the card says (None: nothing), and by class."""

    images: int
    expected: int | None
    by_class: Mapping[str, int]


class Double(NamedTuple):
    """One content under several names, each ``split/path``; ``classes`` are the different labels that it has."""

    names: tuple[str, ...]
    classes: tuple[str, ...]


@dataclass
class Verification:
    """What was found; ``leaked`` are doubles across splits, ``doubled`` those within one."""

    name: str
    folder: str | None
    classes: int = 0
    expected_classes: int | None = None
    counts: dict[str, Count] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    leaked: list[Double] = field(default_factory=list)
    doubled: list[Double] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)  # files of resized images that are damaged

    @property
    def problems(self) -> list[str]:
        """What differs from the card or would spoil a result, a line each."""
        found = []
        if self.expected_classes not in (None, self.classes):
            found.append(f"{self.classes} classes; the card says {self.expected_classes}")
        for split, count in self.counts.items():
            if count.expected not in (None, count.images):
                found.append(f"{split}: {count.images:,} images; the card says {count.expected:,}")
            if empty := [name for name, images in count.by_class.items() if not images]:
                found.append(f"{split}: {len(empty)} classes without an image: {some_of(empty, LISTED)}")
        found += [f"unreadable: {line}" for line in self.unreadable[:LISTED]]
        if len(self.unreadable) > LISTED:
            found.append(f"unreadable: {len(self.unreadable) - LISTED} more")
        found += self.cached
        if self.leaked:
            found.append(f"{len(self.leaked)} images are in more than one split:")
            found += [f"  {' = '.join(double.names)}" for double in self.leaked[:LISTED]]
        if odd := [double for double in self.doubled if len(double.classes) > 1]:
            found.append(f"{len(odd)} images are in more than one class of a split:")
            found += [f"  {' = '.join(double.names)}" for double in odd[:LISTED]]
        return found

    def text(self) -> str:
        """The report as lines."""
        lines = [f"{self.name}: {self.folder}" if self.folder else self.name]
        for split, count in self.counts.items():
            sizes = sorted(count.by_class.values())
            spread = f"{sizes[0]:,} to {sizes[-1]:,} a class"
            lines.append(f"  {split}: {count.images:,} images of {self.classes} classes, {spread}")
        if self.doubled:
            lines.append(
                f"  {len(self.doubled)} images are doubled within a split, such as {self.doubled[0].names[:2]}"
            )
        lines += [f"  {line}" for line in self.problems]
        return "\n".join([*lines, "  something is wrong" if self.problems else "  all is well"])

    def record(self) -> dict[str, Any]:
        """The report for JSON."""
        counts = {split: count._asdict() for split, count in self.counts.items()}
        doubles = {key: [double._asdict() for double in getattr(self, key)] for key in ("leaked", "doubled")}
        return {**asdict(self), "counts": counts, **doubles, "problems": self.problems}


def inspect(
    report: Verification, splits: Mapping[str, Samples], class_ids: Sequence[str], images: Mapping[str, int]
) -> None:
    """Fill ``report`` in: read and digest every image of ``splits``, several at a time; a bar on stderr if a terminal.

    Args:
        images: how many there should be, by split.
    """
    report.classes = len(class_ids)
    for split, samples in splits.items():
        counted = Counter(samples.labels)
        by_class = {name: counted[label] for label, name in enumerate(class_ids)}
        report.counts[split] = Count(len(samples), images.get(split), by_class)
    places: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for (split, i), content in _digests(splits):
        if isinstance(content, InputError):
            report.unreadable.append(f"{split}: {content}")
        else:
            places[content].append((split, i))
    for found in places.values():
        if len(found) > 1:
            names = tuple(f"{split}/{splits[split].names[i]}" for split, i in found)
            labels = dict.fromkeys(splits[split].labels[i] for split, i in found)
            double = Double(names, tuple(class_ids[label] for label in labels))
            (report.leaked if len({split for split, _ in found}) > 1 else report.doubled).append(double)


def _digests(splits: Mapping[str, Samples]) -> Iterator[tuple[tuple[str, int], str | InputError]]:
    jobs = [(split, i) for split, samples in splits.items() for i in range(len(samples))]
    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool,
        Progress(console=console, disable=not console.is_terminal, transient=True) as progress,
    ):
        task = progress.add_task("reading images", total=len(jobs))
        for start in range(0, len(jobs), AHEAD):
            some = jobs[start : start + AHEAD]
            for job, content in zip(some, pool.map(lambda job: _content(splits[job[0]], job[1]), some), strict=True):
                progress.advance(task)
                yield job, content


def _content(samples: Samples, i: int) -> str | InputError:
    """A digest of the file, or of the pixels where there is no file; the error if it cannot be read."""
    try:
        samples.check(i)
        if isinstance(samples.opener, FileOpener):
            return hashlib.sha256((samples.opener.root / samples.names[i]).read_bytes()).hexdigest()
        image = samples.image(i)
    except InputError as error:
        return error
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
