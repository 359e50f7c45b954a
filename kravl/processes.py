"""Which process of a run keeps its record, known before the processes have found each other."""

import os
from collections.abc import Mapping
from typing import Any

ALONE = (1, "1")


def is_first_process(settings: Mapping[str, Any]) -> bool:
    """Whether this process has the number 0 of its run; ``settings`` are Trainer's arguments.

    torchrun numbers processes in RANK; Lightning those that it starts itself in NODE_RANK and LOCAL_RANK; SLURM its
    tasks in SLURM_PROCID, which are one run only where that has several processes: a job may have runs side by side.
    """
    if "RANK" in os.environ:
        numbers = [os.environ["RANK"]]
    elif "LOCAL_RANK" in os.environ:
        numbers = [os.environ["LOCAL_RANK"], os.environ.get("NODE_RANK", "0")]
    elif settings.get("num_nodes", 1) in ALONE and settings.get("devices", 1) in ALONE:
        return True
    else:
        numbers = [os.environ.get("SLURM_PROCID", os.environ.get("NODE_RANK", "0"))]
    return all(number == "0" for number in numbers)
