"""``kravl dashboard --project P --entity E``: a W&B workspace that compares methods.

By wandb-workspaces (https://docs.wandb.ai/ref/wandb_workspaces); its charts are those of the page of a report.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kravl.cli.main import framed
from kravl.runtime.errors import InputError, first_line, printable
from kravl.runtime.files import write_atomic

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

INSTALL = "pip install 'kravl[dashboard]'"


@framed
def main(arguments: Sequence[str]) -> int:
    """Create the workspace and print its address, or write its document; 0, or 2 where that cannot be done."""
    parser = argparse.ArgumentParser(prog="kravl dashboard", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT", "kravl"), help="default: %(default)s")
    parser.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="user or team; default: the key's own")
    parser.add_argument("--study", help="only the runs of this study, which is their W&B group")
    parser.add_argument("--sets", nargs="+", default=[], metavar="SET", help="a chart for each, such as imagenet_a")
    parser.add_argument("--out", type=Path, help="write the workspace's document to this file and send nothing")
    options = parser.parse_args(arguments)
    from kravl.tracking.wandb_run import KEYS, obstacle  # with torch

    if options.out is None and (reason := obstacle()):
        raise InputError(
            f"W&B cannot be reached: {reason}; set {KEYS[0]} on a machine with a network, or pass --out FILE"
        )
    entity = options.entity or ("entity" if options.out else _own_entity())
    board = _workspace(entity, options.project, options.study, options.sets)
    if options.out:
        # the library's only way to its document without a network
        document = board._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1)
        write_atomic(options.out, document + "\n")
        print(printable(options.out))
    else:
        print(printable(_save(board)))
    return 0


def _workspace(entity: str, project: str, study: str | None, sets: Sequence[str]) -> "Workspace":
    try:
        from kravl.tracking.wandb_workspace import workspace
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        raise InputError(f"a dashboard needs the package wandb-workspaces: {INSTALL}") from error
    try:
        return workspace(entity, project, study, sets)
    except ValueError as error:  # names that W&B does not take
        raise InputError(first_line(error)) from error


def _own_entity() -> str:
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        if entity := wandb.Api(timeout=20).default_entity:
            return entity
    except (wandb.Error, WandbApiFailedError) as error:
        raise InputError(f"W&B refuses: {first_line(error)}") from error
    raise InputError("W&B names no default entity for this key; pass --entity")


def _save(board: "Workspace") -> str:
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        return str(board.save().url)
    except (wandb.Error, WandbApiFailedError, ValueError, TypeError, KeyError) as error:  # the last: no proper answer
        raise InputError(f"W&B did not take the workspace: {type(error).__name__} {first_line(error)}") from error
