"""A page of a finished run that the tests of a file share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def page(finished_run: Path) -> Iterator[Any]:
    from served_demo import served

    with served(finished_run) as it:
        yield it
