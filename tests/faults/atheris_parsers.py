"""Coverage-guided fuzzing of every parser, by Atheris: not among the tests, as it takes what time it is given.

    pip install atheris
    python tests/faults/atheris_parsers.py CORPUS --seconds 3600 [--only NAME ...]

Each parser has a folder in CORPUS, which grows, and its time. What is found is printed as it is, with the content in
CORPUS/found; the status is 1 where anything is.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "support")]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["kravl", "yaml", "omegaconf", "json", "csv"]):
    from faults.parsers import PARSERS, Parser

    from kravl.runtime.errors import InputError

SHARED = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
TOLD = 100  # calls between two notes of how many they are
LONGEST = 5000  # characters of a message


def _fuzz(name: str, parser: Parser, corpus: Path, seconds: float) -> None:
    """In a process of its own, which libFuzzer ends."""
    place = tempfile.mkdtemp(dir=SHARED)
    known: set[str] = set()
    told = corpus.with_suffix(".json")
    begun, count = time.process_time(), 0
    (corpus / "example").write_bytes(parser.example)

    def once(content: bytes) -> None:
        nonlocal count
        count += 1
        if not count % TOLD:  # libFuzzer ends the process itself
            told.write_text(json.dumps({"calls": count, "seconds": round(time.process_time() - begun, 1)}))
        with tempfile.TemporaryDirectory(dir=place) as made:
            folder = Path(made) / "seed1"
            (folder / parser.file).parent.mkdir(parents=True)
            (folder / parser.file).write_bytes(content)
            try:
                parser.read(folder)
            except InputError as error:
                if len(str(error)) < LONGEST:
                    return
                where = "a message without an end"
            except Exception as error:  # whatever else it is, is what is looked for
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{type(error).__name__} at {last.filename}:{last.lineno}"
            else:
                return
            if where not in known:
                known.add(where)
                found = corpus.parent / "found" / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
                found.parent.mkdir(exist_ok=True)
                found.write_bytes(content)
                print(f"FOUND {name}: {where} ({found})", flush=True)

    logging.disable()
    atheris.Setup([sys.argv[0], str(corpus), f"-max_total_time={seconds:.0f}", "-max_len=4096", "-verbosity=0"], once)
    atheris.Fuzz()


def main() -> int:
    """Fuzz the parsers one after the other, each for its share of the time."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("corpus", type=Path)
    arguments.add_argument("--seconds", type=float, default=3600, help="of all together (%(default)s)")
    arguments.add_argument("--only", nargs="+", default=list(PARSERS), metavar="NAME")
    options = arguments.parse_args()
    status = 0
    for name in options.only:
        corpus = options.corpus.absolute() / name.replace(" ", "_")
        corpus.mkdir(parents=True, exist_ok=True)
        if not (child := os.fork()):
            _fuzz(name, PARSERS[name], corpus, options.seconds / len(options.only))
            os._exit(0)
        status |= os.waitpid(child, 0)[1]
    return int(bool(status) or (options.corpus / "found").is_dir())


if __name__ == "__main__":
    sys.exit(main())
