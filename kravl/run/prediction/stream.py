"""Files in, predictions out: scored a batch at a time, written as they come, with rate and time left."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kravl.data.loading.named_files import NamedFiles
from kravl.data.loading.resumable import workers_end
from kravl.run.prediction.output import Format, Prediction, PredictionFile
from kravl.run.prediction.scorer import Scorer
from kravl.run.prediction.sheet import PredictionSheet
from kravl.runtime.errors import printable
from kravl.runtime.microbatch import OutOfMemory
from kravl.runtime.signals import handling

LISTED = 20  # unreadable files in the list at the end
SECONDS_BETWEEN = 30.0  # lines of progress where there is no terminal


@dataclass
class Unreadable:
    """Counts files that could not be scored and keeps the reasons of the first of them."""

    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, prediction: Prediction) -> None:
        if prediction.error is not None:
            self.count += 1
            named = prediction.path in prediction.error
            if len(self.reasons) < LISTED:
                self.reasons.append(prediction.error if named else f"{prediction.path}: {prediction.error}")


@dataclass(frozen=True)
class Job:
    """What is asked of each image, and how it is loaded."""

    class_names: Sequence[str]
    top: int
    batch_size: int
    workers: int
    sheet: Path | None = None
    title: str = ""
    temperature: float = 1.0


def predict_files(scorer: Scorer, files: NamedFiles, job: Job, target: PredictionFile | Format) -> Unreadable:
    """Write the prediction of each file to ``target``, or as lines of that format to standard output.

    What an unfinished target holds is not computed again.

    Raises:
        Interrupted: the process was asked to stop; whole batches are written, and the same command resumes.
        SystemExit: memory does not suffice for one image, or a worker died.
    """
    unreadable, sheet, paths = Unreadable(), PredictionSheet(), iter(files)
    with handling(), _reasons(), _progress(files.total) as advance:
        written = target.written(paths, job.batch_size) if isinstance(target, PredictionFile) else ()
        before = ([prediction] for prediction in written)
        for batch in chain(before, _new(scorer, paths, job, target)):
            for prediction in batch:
                unreadable.add(prediction)
                sheet.add(prediction)
            advance(len(batch))
    if job.sheet:
        sheet.save(job.sheet, job.title)
    if isinstance(target, PredictionFile):
        target.finish()
    return unreadable


def _new(scorer: Scorer, paths: Iterator[str], job: Job, target: PredictionFile | Format) -> Iterator[list[Prediction]]:
    """The predictions of the files that are left, each batch written before it is counted."""
    for scored in scorer.files(paths, job.batch_size, job.workers):
        batch = [Prediction.of(one, job.class_names, job.top, job.temperature) for one in scored]
        if isinstance(target, PredictionFile):
            target.write(batch)
        else:
            sys.stdout.write("".join(map(target.line, batch)))
            sys.stdout.flush()
        yield batch


@contextmanager
def _reasons() -> Iterator[None]:
    """What stops predictions for a known reason is one line, and exit status 1."""
    try:
        yield
    except OutOfMemory as error:
        sys.exit(f"error: {error}")
    except (RuntimeError, OSError) as error:
        if (reason := workers_end(error)) is None:
            raise
        sys.exit(f"error: {reason.replace('loading.num_workers', '--workers')}")


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[int], None]]:
    """A function that takes how many images are done: a bar on stderr, or a line every now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task, begun = bar.add_task("", total=total, rate=""), time.monotonic()

            def advance(count: int) -> None:
                bar.update(task, advance=count)
                done = bar.tasks[0].completed
                bar.update(task, rate=f"{done / max(time.monotonic() - begun, 1e-9):.0f} images/s")

            yield advance
    else:
        lines = _Lines(total)
        yield lines.advance


class _Lines:
    """A line of progress on stderr, at most one in `SECONDS_BETWEEN`."""

    def __init__(self, total: int | None) -> None:
        self._total, self._done = total, 0
        self._begun = self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN:
            self._said = now
            print(progress_line(self._done, self._total, now - self._begun), file=sys.stderr, flush=True)


def progress_line(done: int, total: int | None, seconds: float) -> str:
    """How many images are done, at what rate, and what time is left."""
    rate = done / max(seconds, 1e-9)
    if total is None:
        return f"{done:,} images, {rate:.0f} images/s"
    left = (total - done) / max(rate, 1e-9)
    return f"{done:,} of {total:,} images, {rate:.0f} images/s, {left:.0f} s left"


def listed(unreadable: Unreadable) -> str:
    """A line for each of the first, and how many more there are."""
    lines = [printable(f"  {reason}") for reason in unreadable.reasons]
    more = unreadable.count - len(lines)
    return "\n".join(lines + ([f"  and {more:,} more"] if more else []))
