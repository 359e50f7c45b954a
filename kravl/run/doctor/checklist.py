"""What was checked, a line each: ok, warning or error, and what to do."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeVar

from kravl.runtime.errors import InputError

Level = Literal["ok", "warning", "error"]
T = TypeVar("T")


class Finding(NamedTuple):
    """One line; ``text`` says what is, and where something is to be done, what."""

    level: Level
    what: str
    text: str


class Checklist:
    """Findings in the order in which they were made.

    Args:
        tell: called with each of them, as soon as it is made.
    """

    def __init__(self, tell: Callable[[Finding], None] = lambda finding: None) -> None:
        self.findings: list[Finding] = []
        self._tell = tell

    @property
    def failed(self) -> bool:
        return any(finding.level == "error" for finding in self.findings)

    def add(self, level: Level, what: str, text: str) -> None:
        text = " ".join(text.split())
        if level != "ok" and any(known.level == level and known.text == text for known in self.findings):
            return  # of two checks that look at the same
        self.findings.append(Finding(level, what, text))
        self._tell(self.findings[-1])

    def attempt(self, what: str, action: Callable[[], T]) -> T | None:
        """What ``action`` returns; None where it raises InputError, which is an error. What it logs are warnings."""
        results: list[T] = []
        self.passes(what, lambda: results.append(action()))
        return results[0] if results else None

    def passes(self, what: str, action: Callable[[], object]) -> bool:
        """Whether ``action`` raises no InputError, as `attempt`."""
        with _warnings() as logged:
            try:
                action()
            except InputError as error:
                self.add("error", what, str(error))
                return False
            finally:
                for line in dict.fromkeys(logged):
                    self.add("warning", what, line)
        return True


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What kravl logs as a warning within the block, and does not go to the log."""
    logged: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] == "kravl" and record.levelno >= logging.WARNING:
            logged.append(record.getMessage())
        return False

    handler = logging.Handler()
    handler.addFilter(keep)
    logger = logging.getLogger("kravl")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield logged
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
