"""Which evaluation sets are kept as pixel files, and their writing: one pass that checks the images as it goes."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kravl.data.check import Checked
from kravl.data.pixel_file import PixelFile, Writer
from kravl.data.source import Samples
from kravl.data.transforms import CentreCrop

log = logging.getLogger(__name__)


def pixel_file(cache_root: str | None, samples: Samples, crop: CentreCrop) -> PixelFile | None:
    """Where the images are kept; None if they are not: without a ``cache_root``, or where they are not plain files."""
    paths = [samples.file(i) for i in range(len(samples))]
    files = [path for path in paths if path is not None]
    if cache_root is None or not files or len(files) < len(paths):
        return None
    return PixelFile(Path(cache_root).expanduser(), files, crop)


@contextmanager
def writing(cache_root: str | None, sets: Mapping[str, Samples], crop: CentreCrop) -> Iterator[dict[str, Checked]]:
    """For each set what `check_images` is to go over; whatever it writes is in place when the block ends well.

    That is a writer, nothing of a set that is written already, or the set itself if it is not kept. A folder that
    cannot be written costs time and a line in the log, no run.
    """
    files = {name: pixel_file(cache_root, samples, crop) for name, samples in sets.items()}
    checked: dict[str, Checked] = dict(sets)
    writers: list[Writer] = []
    locked: set[Path] = set()
    with ExitStack() as stack:
        # in the order of their paths: two processes that each hold what the other waits for would wait for ever
        for name, file in sorted(files.items(), key=lambda item: str(item[1] and item[1].path)):
            if file is None:
                continue
            nothing = sets[name].subset(())
            if file.path in locked:  # the images of another set: waiting for its lock would be for ever
                checked[name] = nothing
                continue
            try:
                stack.enter_context(file.locked())
                locked.add(file.path)
                if file.open():
                    checked[name] = nothing
                else:
                    checked[name] = writer = Writer(file, sets[name], crop)
                    writers.append(writer)
            except OSError as error:
                log.warning("%s is read anew each time: nothing is kept in %s: %s", name, file.path.parent, error)
        whole = False
        try:
            yield checked
            whole = True
        finally:
            for writer in writers:
                writer.finish(whole)
                if whole and writer.failure:
                    log.warning("evaluation images are not kept: %s", writer.failure)
