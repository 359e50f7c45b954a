"""A W&B run that never blocks training or prompts the user: online if W&B answers, else offline."""

import http.client
import logging
import netrc
import os
import re
import secrets
import shlex
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from kravl.runtime.errors import first_line

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
PROBE_SECONDS = 2.0
QUESTION = b'{"query": "{ __typename }"}'
log = logging.getLogger(__name__)
# the last three: W&B's process has died
FAILURES = (wandb.Error, OSError, HandleAbandonedError, MailboxClosedError, WandbServiceConnectionError)
SETTINGS: dict[str, Any] = {
    "console": "off",
    "disable_git": True,  # a remote's URL may hold a token
    "finish_timeout": 60,  # seconds; by default a lost network delays the end of a run forever
    "init_timeout": 3,  # seconds; after that the run is offline, and a sync uploads all of it
    "reinit": "finish_previous",
    "save_code": False,
    "silent": True,
    "x_disable_meta": True,  # it would store the command line
}


def obstacle() -> str | None:
    """Why W&B cannot be online, or None."""
    if os.environ.get("WANDB_MODE", "online") != "online":
        return f"WANDB_MODE={os.environ['WANDB_MODE']}"
    host = wandb.setup().settings.base_url
    # a key saved for api.wandb.ai serves the default host, whatever this release calls it
    machines = [urlsplit(host).netloc, *(["api.wandb.ai"] if host == wandb.Settings().base_url else [])]
    if not (any(map(os.environ.get, KEYS)) or any(map(_key_in_netrc, machines))):
        return f"no API key for {host}"
    return None if _answers(host) else f"{host} does not answer"


def _key_in_netrc(machine: str) -> bool:
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and netrc.netrc(Path(file).expanduser()).authenticators(machine):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(url: str) -> bool:
    """Whether W&B's API answers in time, with a status below 500; in a thread, as name resolution has no timeout."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            # if a server is up but its API fails, wandb.init would wait for its whole timeout
            with urllib.request.urlopen(f"{url}/graphql", QUESTION, PROBE_SECONDS):
                answers.append(True)
        except urllib.error.HTTPError as error:
            answers.append(error.code < http.client.INTERNAL_SERVER_ERROR)
            error.close()
        except (OSError, http.client.HTTPException, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers == [True]


class SafeWandbLogger(WandbLogger):
    """Lightning's W&B logger; its first failure is one warning. Metrics also go to CSV in the run's folder.

    The CSV is written once W&B has failed, and at the end of every run: a W&B process that dies loses what it was
    given last, and nothing may notice before the end.
    """

    lost = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._files = CSVLogger(self.save_dir or ".", name="csv")
        self._unwritten: list[tuple[dict[str, Tensor | float], int | None]] = []

    def attempt(self, action: Callable[[], object]) -> None:
        """Run ``action``, unless W&B has failed before."""
        if self.lost:
            return
        try:
            action()
        except FAILURES as error:
            self.lost = True
            text = first_line(error)
            log.warning("W&B failed (%s: %s); the run continues without it, in csv/", type(error).__name__, text)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._unwritten.append((dict(metrics), step))
        self.attempt(lambda: super(SafeWandbLogger, self).log_metrics(metrics, step))
        if self.lost:
            self._write()

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self.attempt(lambda: super(SafeWandbLogger, self).log_hyperparams(params))

    @rank_zero_only
    def close(self, failed: bool) -> None:
        """End the run, so that the next one in this process is separate."""
        self.attempt(lambda: self.experiment.finish(exit_code=int(failed)))
        self._write()
        if self.lost:
            _tear_down()

    def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            for row, step in self._unwritten:
                self._files.log_metrics(row, step)
            self._files.save()
            self._unwritten = []
        except OSError as error:
            log.warning("the metrics could not be written to %s/csv: %s", self.save_dir, error)


@rank_zero_only
def start_wandb(
    folder: Path, config: Mapping[str, Any], name: str, group: str, job_type: str, tags: Sequence[str]
) -> SafeWandbLogger | None:
    """A run in ``folder``/wandb, the same one whenever that folder is resumed; None if W&B cannot start.

    Online with a key and a host that answers, else offline, logging how to sync. Of several processes the first gets
    the run and the others None.
    """
    labels: dict[str, Any] = {"config": config, "name": name, "group": group, "job_type": job_type, "tags": tags}
    for mode in ("online", "offline"):
        try:
            reason = obstacle() if mode == "online" else None
            if reason is None:
                run = _begin(mode, folder, labels)
                return SafeWandbLogger(experiment=run, save_dir=folder, project=run.project, name=name, id=run.id)
            log.info("W&B stays offline: %s", reason)
        except FAILURES as error:
            log.warning("W&B does not start %s (%s: %s)", mode, type(error).__name__, first_line(error))
            _tear_down()  # else the id counts as in use
    return None


def _begin(mode: Literal["online", "offline"], folder: Path, labels: Mapping[str, Any]) -> wandb.Run:
    # what a sync uploads stays with the run: a folder in the user's home would put its path into the record
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "kravl"),
        dir=folder,
        id=_run_id(folder),
        mode=mode,
        resume="allow" if mode == "online" else None,  # offline, the sync appends
        settings=wandb.Settings(**SETTINGS),
        **labels,
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    if mode == "online":
        log.info("W&B shows this run at %s", run.url)
    else:
        log.info("to upload this run to W&B: wandb sync %s/offline-run-*-%s", shlex.quote(f"{folder}/wandb"), run.id)
    return run


def _tear_down() -> None:
    """End a W&B that has failed, its process included, and forget one that only the environment names."""
    os.environ.pop("WANDB_SERVICE", None)
    try:
        wandb.teardown()
    except FAILURES as error:
        log.debug("tearing down W&B failed: %s", error)


def _run_id(folder: Path) -> str:
    """Created once and stored in the folder: a path would not survive a move and may recur on another machine."""
    file = folder / "wandb_id"
    if not (file.exists() and re.fullmatch(r"\w[\w-]{0,63}", file.read_text(errors="replace"))):
        file.write_text(secrets.token_hex(4))  # W&B makes a path of the id
    return file.read_text()
