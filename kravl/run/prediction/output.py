"""Predictions as lines of CSV or JSON: whole lines only, so that a stopped command resumes where it was."""

import csv
import fcntl
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from kravl.run.prediction.scorer import Scored
from kravl.runtime.errors import InputError
from kravl.runtime.files import csv_text, json_object, parse_json, read_text, refuse_endless, write_atomic

DIGITS = 6
SHOWN = 80  # characters of a value
FORMATS = (".csv", ".jsonl")


class Prediction(NamedTuple):
    """The likeliest classes of one file, or the reason why there are none.

    ``energy`` is -log sum exp of the logits (Liu et al., NeurIPS 2020, https://arxiv.org/abs/2010.03759): the higher,
    the less an image resembles any of the classes. The first of ``probabilities`` is the other usual score.
    """

    path: str
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    energy: float | None = None
    error: str | None = None

    @classmethod
    def of(cls, scored: Scored, class_names: Sequence[str], top: int, temperature: float = 1.0) -> "Prediction":
        """The ``top`` classes by softmax of the logits, divided by ``temperature``; the energy is of the logits."""
        if scored.logits is None:
            return cls(scored.path, error=scored.error)
        values, columns = (scored.logits / temperature).softmax(dim=0).topk(top)
        names = tuple(class_names[column] for column in columns.tolist())
        probabilities = tuple(round(value, DIGITS) for value in values.tolist())
        return cls(scored.path, names, probabilities, round(-scored.logits.logsumexp(dim=0).item(), DIGITS))


class Format(Protocol):
    """Lines of a file, and what they say."""

    header: str

    def line(self, prediction: Prediction) -> str: ...
    def parse(self, line: str) -> Prediction: ...
    def read_back(self, text: str) -> str: ...
    def whole(self, line: bytes) -> bool: ...


class CsvLines(Format):
    """path, class_1, probability_1, ..., energy, error; a field with a line break is in quotes."""

    def __init__(self, top: int) -> None:
        pairs = [f"{name}_{i}" for i in range(1, top + 1) for name in ("class", "probability")]
        self._columns, self._top = ["path", *pairs, "energy", "error"], top
        self.header = csv_text([self._columns], "\n")

    def line(self, prediction: Prediction) -> str:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        cells = [cell for pair in pairs for cell in pair] or [""] * (2 * self._top)
        energy = "" if prediction.energy is None else prediction.energy
        return csv_text([[prediction.path, *cells, energy, prediction.error or ""]], "\n")

    def parse(self, line: str) -> Prediction:
        (cells,) = csv.reader(io.StringIO(line, newline=""))
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} fields")
        path, *pairs, energy, error = cells
        if error:
            return Prediction(path, error=error)
        return Prediction(path, tuple(pairs[::2]), tuple(map(float, pairs[1::2])), float(energy))

    def read_back(self, text: str) -> str:
        """``text`` as it is read of a file where it was written: a formula is quoted."""
        ((cell,),) = csv.reader(io.StringIO(csv_text([[text]], "\n"), newline=""))
        return cell

    def whole(self, line: bytes) -> bool:
        return line.endswith(b"\n") and line.count(b'"') % 2 == 0


class JsonLines(Format):
    """An object a line with the fields of `Prediction`."""

    header = ""

    def line(self, prediction: Prediction) -> str:
        return json.dumps(prediction._asdict()) + "\n"

    def parse(self, line: str) -> Prediction:
        values = json_object(line, "the line")
        if set(values) != set(Prediction._fields) or not isinstance(values["path"], str):
            raise ValueError("other fields")
        return Prediction(**{**values, **{key: tuple(values[key]) for key in ("classes", "probabilities")}})

    def read_back(self, text: str) -> str:
        return text

    def whole(self, line: bytes) -> bool:
        return line.endswith(b"\n")


def format_of(name: str, top: int) -> Format:
    """The format ``csv`` or ``jsonl``."""
    return CsvLines(top) if name == "csv" else JsonLines()


def _state_of(path: Path) -> Path:
    """The file that says with what settings an unfinished one was begun."""
    return path.with_name(f"{path.name}.unfinished.json")


def require_resumable(path: Path, settings: Mapping[str, Any], force: bool) -> None:
    """Raise InputError for a pipe; unless ``force`` for a file that is finished, or was begun with other settings."""
    state = _state_of(path)
    refuse_endless(path)
    if force:
        return
    if not path.exists():
        state.unlink(missing_ok=True)
    elif not state.is_file():
        raise InputError(f"{path} is there already; --force writes it anew, --out FILE another one")
    else:
        begun = parse_json(read_text(state), str(state))
        known = begun if isinstance(begun, dict) else {}
        changed = [(key, known.get(key), now) for key, now in settings.items() if known.get(key) != now]
        if changes := [f"{key} {str(before)[:SHOWN]} -> {str(now)[:SHOWN]}" for key, before, now in changed]:
            raise InputError(f"{path} was begun with {'; '.join(changes)}; --force writes it anew")


class PredictionFile:
    """A file of predictions that is written, or resumed.

    While it is unfinished a file beside it says with what settings. Use it in a ``with`` block, which closes it.

    Args:
        settings: what the predictions depend on; a file that was begun with others is not resumed.
        class_names: of the model; a row that names another is no prediction of it. None: any.

    Raises:
        InputError: the file is there and finished, was begun with other settings, is not one of predictions, is
            written by another process, or cannot be written; unless ``force``, which begins anew.
    """

    def __init__(
        self,
        path: Path,
        lines: Format,
        settings: Mapping[str, Any],
        force: bool,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.path, self._lines = path, lines
        self._names = None if class_names is None else {lines.read_back(name): name for name in class_names}
        self._state = _state_of(path)
        require_resumable(path, settings, force)
        try:
            self._file: BinaryIO = path.open("r+b" if path.exists() else "x+b")
            self._lock()
            if force or not self._state.is_file():
                self._file.truncate(0)
                write_atomic(self._state, json.dumps(dict(settings)) + "\n")
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; pass --out FILE") from error
        if not self._file.seek(0, os.SEEK_END):
            self._write(lines.header)

    def written(self, paths: Iterator[str], batch_size: int = 1) -> Iterator[Prediction]:
        """The predictions that are there, which must be of the next of ``paths``; what follows them is cut off.

        They are a multiple of ``batch_size``: a prediction depends in its last digit on what it is computed with.

        Raises:
            InputError: they are of others.
        """
        headers = 1 if self._lines.header else 0
        whole = sum(1 for _ in self._rows()) - headers
        end = 0
        for row in islice(self._rows(), headers + max(whole, 0) // batch_size * batch_size):
            if headers and not end:
                self._require(row == self._lines.header.encode(), f"begins with {row[:SHOWN]!r}")
            else:
                yield self._matched(row, next(paths, None))
            end += len(row)
        self._file.truncate(end)
        self._file.seek(0, os.SEEK_END)
        if not end:
            self._write(self._lines.header)

    def _rows(self) -> Iterator[bytes]:
        """The whole rows of the file, the header among them."""
        self._file.seek(0)
        row = b""
        for part in self._file:
            row += part
            if self._lines.whole(row):
                yield row
                row = b""

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Append a line for each, and hand them to the system."""
        self._write("".join(map(self._lines.line, predictions)))

    def finish(self) -> None:
        """Say that nothing is missing."""
        self._state.unlink(missing_ok=True)

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *reason: object) -> None:
        self._file.close()

    def _write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))  # a file name need not be UTF-8
        self._file.flush()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(f"{self.path} is written by another process") from error

    def _matched(self, row: bytes, path: str | None) -> Prediction:
        text = row.decode("utf-8", "backslashreplace")
        try:
            prediction = self._known(self._lines.parse(text))
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{self.path} holds {text[:SHOWN]!r}; --force writes it anew") from error
        expected = path and self._lines.read_back(path)
        shown = expected and expected.encode("utf-8", "backslashreplace").decode()
        self._require(prediction.path in (expected, shown), f"has {prediction.path!r} where {path!r} is now")
        return prediction if path is None else prediction._replace(path=path)

    def _known(self, read: Prediction) -> Prediction:
        """A prediction that was read, with the model's own class names. Raises ValueError or TypeError for others."""
        if read.error is not None:
            if not isinstance(read.error, str) or read.classes or read.probabilities:
                raise ValueError("a reason and classes")
            return read
        numbers = (*read.probabilities, read.energy)
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("not a number")
        if not all(0 <= probability <= 1 for probability in read.probabilities):
            raise ValueError("not a probability")
        names = self._names or {name: name for name in read.classes if isinstance(name, str)}
        if not read.classes or len(read.classes) != len(read.probabilities) or not names.keys() >= {*read.classes}:
            raise ValueError("other classes")
        return read._replace(classes=tuple(names[name] for name in read.classes))

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise InputError(f"{self.path} {what}; --force writes it anew")
