"""The file of finished fits: one JSON object a line, appended as each ends; a torn last line is dropped."""

import json
import os
from pathlib import Path
from typing import Any

from kravl.runtime.errors import InputError


class Ledger:
    """``path`` with the records that it holds by ``key``.

    Raises:
        InputError: a line that is not the last cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, dict[str, Any]] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is no file of fits: {error.reason} at byte {error.start}") from error
        whole, _, torn = text.rpartition("\n")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
                self.records[record["key"]] = record
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is no record of a fit; delete that line: {error}") from error
        if torn:  # what an interrupted process had not finished writing
            os.truncate(path, len(whole.encode()) + (1 if whole else 0))

    def append(self, record: dict[str, Any]) -> None:
        """Add one record and make sure that it is on the disk."""
        with self.path.open("a") as file:
            file.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.records[record["key"]] = record
