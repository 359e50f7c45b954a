"""How a run ends that cannot go on: in one line and with an exit code."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities.exceptions import SIGTERMException

from kravl.runtime.errors import first_line
from kravl.runtime.microbatch import OutOfMemory, ran_out
from kravl.runtime.signals import EXIT_RESUMABLE, Interrupted, listening
from kravl.training.checkpoint import CheckpointError
from kravl.training.learner import DivergedError

log = logging.getLogger(__name__)
KEPT = "what has been trained is kept: run the same command again"


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
        except OSError as error:
            file = f"{error.filename}: " if error.filename else ""
            sys.exit(f"error: {file}{error.strerror or error}; {KEPT}")
        except (RuntimeError, MemoryError) as error:
            if not ran_out(error):
                raise
            sys.exit(f"error: out of memory: {first_line(error)}; {KEPT}")
