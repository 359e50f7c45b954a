"""MLflow, by its own client: at $MLFLOW_TRACKING_URI, else in a database of the run's folder.

A folder of files is no longer MLflow's own choice: since 3.7 it is SQLite
(https://mlflow.org/docs/latest/self-hosting/architecture/backend-store).
"""

import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from kravl.runtime.errors import first_line
from kravl.runtime.own_files import open_own
from kravl.tracking.server import MLFLOW_URI, mlflow_obstacle, without_login
from kravl.tracking.settings import dotted
from kravl.tracking.trackers.sheet import contact_sheet
from kravl.tracking.trackers.tracker import ID, OOD, Numbers, RunLabels, Sample, Tracker, wise_ft_curve

EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
FOLDER, DATABASE, IDS = "mlflow", "mlflow.db", "mlflow_id"
MOST_PARAMS, MOST_METRICS = 100, 1000  # in one request
LONGEST_WAIT = 60  # seconds, for other runs to make the tables of a database
LONGEST = 6000  # characters of a parameter's value
UNNAMABLE = re.compile(r"[^/\w.\- ]")
PERCENT = 100  # of alpha: a step is a whole number
FAILURES = (MlflowException, SQLAlchemyError, OSError, ValueError)
log = logging.getLogger(__name__)


class MLflow(Tracker):
    """Settings as parameters, metrics by step, and a sheet of test images; elsewhere than here the adapter too."""

    kind = "mlflow"
    title = "MLflow"
    failures = FAILURES

    def __init__(self, folder: Path, uri: str, labels: RunLabels, config: Mapping[str, Any]) -> None:
        super().__init__(folder)
        self._client = MlflowClient(uri)
        self._local = uri == local_store(folder)
        run = self._begin(uri, labels)
        self.run_id = str(run.info.run_id)
        self._log_settings(run, {key: str(value)[:LONGEST] for key, value in dotted(config)})
        shown = without_login(uri)
        log.info("MLflow: %s", shown if shown.startswith("http") else f"mlflow ui --backend-store-uri {quote(shown)}")

    @property
    def version(self) -> str:
        return self.run_id

    def _begin(self, uri: str, labels: RunLabels) -> Run:
        """The run of this folder at ``uri``, made where there is none."""
        file = self.folder / IDS
        ids = dict(line.split("\t", 1) for line in file.read_text().splitlines()) if file.is_file() else {}
        store = hashlib.sha256(uri.encode()).hexdigest()[:16]  # not its address, which may hold a password
        if (known := ids.get(store)) is not None:
            self._client.update_run(known, status="RUNNING")
            return self._client.get_run(known)
        tags = {"study": labels.study or labels.setting, "method": labels.method, "backbone": labels.backbone,
                "dataset": labels.dataset, "shots": labels.amount, "seed": str(labels.seed)}  # fmt: skip
        run = self._client.create_run(self._experiment(), run_name=labels.title, tags=tags)
        with os.fdopen(open_own(file, os.O_WRONLY | os.O_APPEND), "a") as content:
            content.write(f"{store}\t{run.info.run_id}\n")
        return run

    def _experiment(self) -> str:
        name = os.environ.get(EXPERIMENT, "kravl")
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        place = (self.folder / FOLDER).absolute().as_uri() if self._local else None
        try:
            return str(self._client.create_experiment(name, artifact_location=place))
        except MlflowException:  # of several runs that begin at once another made it
            if found := self._client.get_experiment_by_name(name):
                return str(found.experiment_id)
            raise

    def _log_settings(self, run: Run, settings: Mapping[str, str]) -> None:
        """Parameters cannot be changed; of a run that is resumed with others, those are tags."""
        known = run.data.params
        new = [Param(_name(key), value) for key, value in settings.items() if _name(key) not in known]
        for chunk in _chunks(new, MOST_PARAMS):
            self._client.log_batch(self.run_id, params=chunk)
        for key, value in settings.items():
            if known.get(_name(key), value) != value:
                self._client.set_tag(self.run_id, f"resumed with {_name(key)}", value)

    def write(self, metrics: Numbers, step: int | None) -> None:
        now = time.time_ns() // 10**6
        self._log([Metric(_name(key), float(value), now, step or 0) for key, value in metrics.items()])

    def _log(self, metrics: Sequence[Metric]) -> None:
        for chunk in _chunks(metrics, MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=chunk)

    def final(self, metrics: Numbers) -> None:
        self.write(metrics, self.marks.last)

    def result(self, record: Mapping[str, Any], cost: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        now = time.time_ns() // 10**6
        self._log(
            [
                Metric(f"wise_ft_percent/{name}", float(point[name]), now, round(PERCENT * point["alpha"]))
                for point in wise_ft_curve(record)
                for name in (ID, OOD)
                if point.get(name) is not None
            ]
        )

    def samples(self, name: str, rows: Sequence[Sample]) -> None:
        self._client.log_image(self.run_id, contact_sheet(rows), artifact_file=f"samples_{name}.png")

    def adapter(self, files: Mapping[str, Path | str], metadata: Mapping[str, Any]) -> None:
        for name, content in files.items():
            if isinstance(content, str):
                self._client.log_text(self.run_id, content, f"adapter/{name}")
            elif not self._local:  # here they lie beside it
                with tempfile.TemporaryDirectory() as folder:
                    (link := Path(folder, name)).symlink_to(content.absolute())
                    self._client.log_artifact(self.run_id, str(link), "adapter")

    def finalize(self, status: str) -> None:
        if status != "success":
            self.attempt(lambda: self._client.set_terminated(self.run_id, "FAILED"))

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")


def _name(key: str) -> str:
    """``key`` with the characters alone that MLflow takes; others by their number, so that two keys have two names."""
    return UNNAMABLE.sub(lambda found: f":{ord(found[0]):x}:", key)


def _chunks(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    yield from (entries[i : i + size] for i in range(0, len(entries), size))


def local_store(folder: Path) -> str:
    """The URI of the database in a run's ``folder``."""
    return f"sqlite:///{(folder / FOLDER / DATABASE).absolute()}"


def places(folder: Path) -> Iterable[str]:
    """Where the run may be tracked: what the user says, and where that fails its own folder."""
    if uri := os.environ.get(MLFLOW_URI):
        if reason := mlflow_obstacle():
            log.warning("MLflow: %s; the run is tracked in %s", reason, folder / FOLDER)
        else:
            yield uri
    yield local_store(folder)


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Within the block no other run opens the same file: of two that make its tables at once, one fails."""
    if not uri.startswith("sqlite") or not (file := make_url(uri).database):
        yield
        return
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=LONGEST_WAIT):
        yield


def _connect(uri: str) -> None:
    """Open a database once, where MLflow would try for minutes. Raises SQLAlchemyError, ImportError or OSError."""
    if uri.partition("+")[0].partition(":")[0] not in DATABASE_ENGINES:
        return
    with create_engine(uri, poolclass=NullPool).connect():
        pass


def start(folder: Path, labels: RunLabels, config: Mapping[str, Any]) -> Tracker | None:
    """A run at $MLFLOW_TRACKING_URI, else in ``folder``/mlflow, the same one whenever the folder is resumed."""
    for uri in places(folder):
        try:
            with _alone(uri):
                _connect(uri)
                return MLflow(folder, uri, labels, config)
        except (*FAILURES, ImportError) as error:  # a database's own driver may be missing
            log.warning(
                "MLflow does not start at %s (%s: %s)", without_login(uri), type(error).__name__, first_line(error)
            )
    return None
