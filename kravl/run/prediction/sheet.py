"""A contact sheet of predictions: for the classes that were said most often the surest images and the least sure."""

import heapq
from collections import Counter, defaultdict
from pathlib import Path

from PIL import Image

from kravl.data.images import open_rgb
from kravl.data.inspect.contact_sheet import SheetRow, draw_sheet
from kravl.run.prediction.output import Prediction
from kravl.runtime.errors import InputError

ROWS, EACH, TILE = 20, 4, 96  # classes; images at each end of a row; pixels


class PredictionSheet:
    """Keeps the paths of a few images of each class, and opens them at the end."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._surest: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
        self._least: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)

    def add(self, prediction: Prediction) -> None:
        if not prediction.classes:
            return
        name, probability = prediction.classes[0], prediction.probabilities[0]
        self._counts[name] += 1
        for ranked, sign in ((self._surest[name], 1), (self._least[name], -1)):
            heapq.heappush(ranked, (sign * probability, prediction.path))
            if len(ranked) > EACH:
                heapq.heappop(ranked)

    def save(self, path: Path, title: str) -> None:
        """Draw the sheet to ``path``.

        Raises:
            InputError: there is nothing to draw, or the file cannot be written.
        """
        if not self._counts:
            raise InputError("no image could be read; there is no sheet")
        rows = [SheetRow(f"{name} ({count})", self._images(name)) for name, count in self._counts.most_common(ROWS)]
        hidden = len(self._counts) - len(rows)
        heading = f"{title}; surest, then least sure{f'; {hidden} further classes' if hidden else ''}"
        try:
            draw_sheet(heading, rows, (), TILE).save(path)
        except OSError as error:
            raise InputError(f"the sheet {path} cannot be written: {error.strerror or error}") from error

    def _images(self, name: str) -> list[Image.Image | str]:
        surest = [path for _, path in sorted(self._surest[name], reverse=True)]
        least = [path for _, path in sorted(self._least[name]) if path not in surest]
        return [_opened(path) for path in (*surest, *least)]


def _opened(path: str) -> Image.Image | str:
    try:
        image = open_rgb(Path(path))
    except InputError as error:  # it has gone since
        return str(error)
    image.thumbnail((4 * TILE, 4 * TILE))  # a sheet of camera pictures need not hold them whole
    return image
