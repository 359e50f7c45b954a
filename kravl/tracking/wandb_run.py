"""A W&B run that never blocks training, nor asks anything: online where W&B answers, else offline."""

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
# the last three: its process has died
FAILURES = (wandb.Error, OSError, HandleAbandonedError, MailboxClosedError, WandbServiceConnectionError)
SETTINGS: dict[str, Any] = {
    "console": "off",
    "disable_git": True,  # a remote's URL may hold a token
    "finish_timeout": 60,  # seconds; by default a lost network holds up the end of a run for ever
    "init_timeout": 3,  # seconds; after that the run is offline, and a sync brings all of it
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
    # a key saved for the API's own name serves the default host, whatever that is called in this release
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
    """Whether W&B's API answers below status 500 in time; in a thread, as name resolution knows no timeout."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            # of a server whose pages are there and whose API fails, wandb.init would wait for its whole timeout
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
    """Lightning's W&B logger; its first failure is one warning. The metrics are also in CSV in the run's folder.

    They are written when W&B has failed, and at the end of every run: a process of W&B that dies takes with it what it
    was given last, and may be missed by nobody before the end.
    """

    lost = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._files = CSVLogger(self.save_dir or ".", name="csv")
        self._unwritten: list[tuple[dict[str, Tensor | float], int | None]] = []

    def attempt(self, action: Callable[[], object]) -> None:
        """``action``, unless W&B has failed before."""
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
        """End the run, so that the next one of this process is its own."""
        self.attempt(lambda: self.experiment.finish(exit_code=int(failed)))
        self._write()
        if self.lost:
            _forget()

    def _write(self) -> None:
        if not self._unwritten:
            return
        try:
            for row, step in self._unwritten:
                self._files.log_metrics(row, step)
            self._files.save()
            self._unwritten = []
        except OSError as error:
            log.warning("the metrics are not kept in %s/csv: %s", self.save_dir, error)


@rank_zero_only
def start_wandb(
    folder: Path, config: Mapping[str, Any], name: str, group: str, job_type: str, tags: Sequence[str]
) -> SafeWandbLogger | None:
    """A run in ``folder``/wandb, the same one whenever that folder is resumed; None where W&B cannot start.

    Online with a key and a host that answers, else offline, with a line that says how to sync. Under several processes
    the first has the run and the others None.
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
            _forget()  # else the id counts as in use
    return None


def _begin(mode: Literal["online", "offline"], folder: Path, labels: Mapping[str, Any]) -> wandb.Run:
    # what a sync uploads lies with the run, not in the user's home, whose name the record would hold
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "kravl"),
        dir=folder,
        id=_run_id(folder),
        mode=mode,
        resume="allow" if mode == "online" else None,  # offline it is the sync that appends
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


def _forget() -> None:
    """Leave a W&B that has failed behind, its process included, and one that the environment still names."""
    os.environ.pop("WANDB_SERVICE", None)
    try:
        wandb.teardown()
    except FAILURES as error:
        log.debug("W&B did not end well: %s", error)


def _run_id(folder: Path) -> str:
    """Made once and kept in the folder: a path would not survive a move and may repeat on another machine."""
    file = folder / "wandb_id"
    if not (file.exists() and re.fullmatch(r"\w[\w-]{0,63}", file.read_text(errors="replace"))):
        file.write_text(secrets.token_hex(4))  # the id is part of a path of W&B's
    return file.read_text()
