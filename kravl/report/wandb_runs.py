"""Finished runs of a W&B project, read through W&B's API (https://docs.wandb.ai/models/ref/python/public-api)."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from kravl.report.runs import FinishedRun, with_start
from kravl.runtime.errors import InputError, first_line
from kravl.tracking.records import RUN_FIELDS, record_problem
from kravl.tracking.settings import CELL

if TYPE_CHECKING:
    import wandb

PREFIX = "wandb:"
TIMEOUT = 60  # seconds per page of runs
NO_FILES = (
    "W&B has the results of these runs but not their files: index.html leaves out reliability, recall by class, "
    "learning curves and pictures, and later evaluations are not in W&B"
)


def read_wandb(address: str) -> tuple[list[FinishedRun], list[str]]:
    """Every finished run of a W&B project, and a line for each that cannot be used; with a progress bar on a terminal.

    Args:
        address: ``wandb:ENTITY/PROJECT``; ``wandb:PROJECT`` is one of $WANDB_ENTITY, else of the key's default entity.

    Raises:
        InputError: not an address, no key, no answer, or no such project that the key may read.
    """
    parts = address.removeprefix(PREFIX).split("/")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise InputError(f"{address} is not a W&B project: {PREFIX}ENTITY/PROJECT, or {PREFIX}PROJECT for your own")
    from kravl.tracking.wandb_run import KEYS, obstacle  # W&B and torch take seconds to import

    if reason := obstacle():
        needs = f"this needs WANDB_MODE=online, a key ({KEYS[0]} or `wandb login`) and a network"
        raise InputError(f"{address} cannot be read: {reason}; {needs}")
    runs: list[FinishedRun] = []
    problems: list[str] = []
    for path, state, summary, config in _query(address, parts):
        record, cost = summary.get("record"), summary.get("cost")
        config = {key: value for key, value in config.items() if key != CELL}
        if not isinstance(record, dict):
            problems.append(f"skipped {path}: no result ({state}; unfinished, or logged by an earlier kravl)")
        elif problem := record_problem(complete := {**record, "config": config}, RUN_FIELDS):
            problems.append(f"skipped {path}: {problem}")
        else:
            # not a path named by W&B, as a run's folder is searched for files
            runs.append(FinishedRun(Path(address), with_start(complete), cost if isinstance(cost, dict) else {}))
    return runs, [*problems, NO_FILES] if runs else problems or ["no run in it"]


def _query(address: str, parts: list[str]) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Address, state, summary and config of each run, oldest first. Raises InputError as `read_wandb`."""
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    from kravl.tracking.wandb_run import FAILURES

    try:
        api = wandb.Api(timeout=TIMEOUT)
        entity = parts[0] if len(parts) == 2 else api.settings["entity"] or api.default_entity
        if not entity:
            raise InputError(f"W&B names no default entity for this key; write {PREFIX}ENTITY/{parts[-1]}")
        path = f"{entity}/{parts[-1]}"
        return [(f"{PREFIX}{path}/{run.id}", run.state, run.summary_metrics, run.config) for run in _runs(api, path)]
    # the last three: no such project, or a malformed answer
    except (*FAILURES, WandbApiFailedError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{address} cannot be read: {first_line(error)}") from error


def _runs(api: "wandb.Api", path: str) -> Iterator["wandb.apis.public.Run"]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        # whole runs page by page; lazily it would be one request per run
        yield from progress.track(api.runs(path, lazy=False), description=f"{PREFIX}{path}")
