"""The beginning of a file that is being downloaded, kept on disk and digested until it is whole."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

CHUNK = 2**20


class Digests:
    """Size and digests of the bytes that have been added."""

    def __init__(self) -> None:
        self.size = 0
        self._digests = {name: hashlib.new(name) for name in ("md5", "sha256")}

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for digest in self._digests.values():
            digest.update(chunk)

    def add_file(self, path: Path) -> "Digests":
        with path.open("rb") as file:
            for chunk in iter(partial(file.read, CHUNK), b""):
                self.add(chunk)
        return self

    @property
    def hex(self) -> Mapping[str, str]:
        """Hex digests by the name of their algorithm."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}


class PartialFile:
    """What there is at ``path``; ``facts`` say of which file on which server it is the beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._facts_path = path.with_name(f"{path.name}.json")
        self.digests = Digests()
        self.facts: dict[str, Any] = {}
        if path.is_file() and (facts := self._read_facts()):
            self.facts = facts
            self.digests.add_file(path)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.digests.size

    def restart(self, facts: dict[str, Any]) -> None:
        """Drop what there is; what is appended from now on belongs to the file that ``facts`` describe."""
        self.path.write_bytes(b"")
        self._facts_path.write_text(json.dumps(facts))
        self.digests, self.facts = Digests(), facts

    def append(self, chunks: Iterator[bytes]) -> Iterator[int]:
        """Give each chunk to the file system at once; yields the size so far."""
        with self.path.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)
                file.flush()  # whole: an unbuffered write may stop halfway on a disk that is full for a moment
                self.digests.add(chunk)
                yield self.size

    def finish(self, target: Path) -> None:
        """Give the file the name ``target``; this object is empty afterwards."""
        self.path.replace(target)
        self._facts_path.unlink()
        self.digests, self.facts = Digests(), {}

    def _read_facts(self) -> dict[str, Any]:
        try:
            facts = json.loads(self._facts_path.read_text())
        except (FileNotFoundError, ValueError, RecursionError):  # cut off in writing, or not ours
            return {}
        return facts if isinstance(facts, dict) else {}
