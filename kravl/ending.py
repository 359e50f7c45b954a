"""How a run ends that cannot go on: in one line and with an exit code."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities.exceptions import SIGTERMException

from kravl.checkpoint import CheckpointError
from kravl.interruption import EXIT_RESUMABLE, Interrupted, listening
from kravl.learner import DivergedError
from kravl.pieces import OutOfMemory

log = logging.getLogger(__name__)


@contextmanager
def ending_well() -> Iterator[None]:
    """Within the block a request to end is heard, and every known reason to stop is one line and an exit code.

    Raises:
        SystemExit: see `train`.
    """
    with listening():
        try:
            yield
        except (Interrupted, SIGTERMException) as stop:
            log.warning("stopped as asked (%s); the same command goes on", stop or "SIGTERM")
            sys.exit(EXIT_RESUMABLE)
        except (DivergedError, CheckpointError, OutOfMemory, FloatingPointError) as error:
            sys.exit(f"error: {error}")
