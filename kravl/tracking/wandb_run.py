"""A W&B run that never blocks training or prompts the user: online if W&B answers, else offline."""

import logging
import netrc
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import wandb
from wandb.sdk.lib.service.service_token import WandbServiceConnectionError
from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

from kravl.runtime.errors import first_line
from kravl.tracking.server import answers
from kravl.tracking.trackers.tracker import SITES, kept_id

KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
QUESTION = b'{"query": "{ __typename }"}'  # a server may be up and its API fail: wandb.init would wait for long
MODES: tuple[Literal["online", "offline"], ...] = ("online", "offline")
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
    return None if answers(f"{host}/graphql", QUESTION) else f"{host} does not answer"


def _key_in_netrc(machine: str) -> bool:
    for file in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        try:
            if file and netrc.netrc(Path(file).expanduser()).authenticators(machine):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def start_wandb(folder: Path, labels: Mapping[str, Any]) -> wandb.Run | None:
    """A run in ``folder``/wandb, the same one whenever that folder is resumed; None if W&B cannot start.

    Online with a key and a host that answers, else offline, logging how to sync.

    Args:
        labels: arguments of ``wandb.init``: config, name, group, job_type and tags.
    """
    for mode in MODES:
        try:
            reason = obstacle() if mode == "online" else None
            if reason is None:
                return _begin(mode, folder, labels)
            log.info("W&B stays offline: %s", reason)
        except FAILURES as error:
            log.warning("W&B does not start %s (%s: %s)", mode, type(error).__name__, first_line(error))
            tear_down()  # else the id counts as in use
    return None


def _begin(mode: Literal["online", "offline"], folder: Path, labels: Mapping[str, Any]) -> wandb.Run:
    # what a sync uploads stays with the run: a folder in the user's home would put its path into the record
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb").absolute())
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "kravl"),
        dir=folder,
        id=kept_id(folder / "wandb_id"),
        mode=mode,
        resume="allow" if mode == "online" else None,  # offline, the sync appends
        settings=wandb.Settings(**SETTINGS),
        **labels,
    )
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    run.define_metric(f"{SITES}/*", step_metric="trainer/global_step", step_sync=True, hidden=True)
    if mode == "online":
        log.info("W&B shows this run at %s", run.url)
    else:
        log.info("to upload this run to W&B: wandb sync %s/offline-run-*-%s", shlex.quote(f"{folder}/wandb"), run.id)
    return run


def tear_down() -> None:
    """End a W&B that has failed, its process included, and forget one that only the environment names."""
    os.environ.pop("WANDB_SERVICE", None)
    try:
        wandb.teardown()
    except FAILURES as error:
        log.debug("tearing down W&B failed: %s", error)
