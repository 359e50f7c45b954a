"""PEFT's own tests, unchanged, for KRAdapter and, as controls, for methods of PEFT's: `make peft-tests`.

    python -m tests.peft.upstream                       all files and methods; goes on where it was interrupted
    python -m tests.peft.upstream --files test_config   some files
    python -m tests.peft.upstream --methods kravl.peft:KRAdapterConfig

The tests are those of the installed release, from its source archive on the package index; the models are small and
random (tiny_hub.py). Results are kept in --folder as JUnit files, one for each method and file; the table of all that
are there is written to experiments/peft.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.peft.upstream import archive, table

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
METHODS = ("kravl.peft:KRAdapterConfig", "peft:LoraConfig", "peft:VeraConfig", "peft:RandLoraConfig")
# the files whose cases are drawn up by method; the others are about one method of PEFT's, or need a GPU or the Hub
FILES = ("test_config", "test_token_classification_qa", "test_seq_classifier", "test_feature_extraction_models")
FILES += ("test_custom_models", "test_encoder_decoder_models", "test_decoder_models")
FINISHED = (0, 1, 5)  # of pytest: all passed, some failed, none there


def run(folder: Path, method: str, file: str, options: Sequence[str]) -> bool:
    """Run one file for one method, unless its results are there; says whether it ended by itself."""
    results = folder / "results" / method.rpartition(":")[2].removesuffix("Config") / f"{file}.xml"
    if results.exists():
        return True
    results.parent.mkdir(parents=True, exist_ok=True)
    unfinished = results.with_suffix(".part")
    offline = {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    paths = os.pathsep.join([str(HERE), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-p", "contract", "--method", method, "-q", "--tb=short"]
    # fetches a file into a fresh cache folder, so that it fails offline for every method
    command += ["--deselect", "tests/test_config.py::TestPeftConfig::test_from_pretrained_cache_dir"]
    command += [f"--junitxml={unfinished}", f"tests/{file}.py", *options]
    status = subprocess.run(
        command, cwd=folder, env=os.environ | offline | {"PYTHONPATH": paths}, check=False
    ).returncode
    if status in FINISHED:
        unfinished.replace(results)
    return status in FINISHED


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="MODULE:CLASS")
    parser.add_argument("--files", nargs="+", default=FILES, metavar="FILE")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build/peft-tests", help="where tests and results are kept"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "experiments/peft", help="where the table is written")
    options, others = parser.parse_known_args(arguments)
    folder = options.folder.resolve()
    archive.prepare(folder, archive.fetch(folder))
    ended = [run(folder, method, file, others) for method in options.methods for file in options.files]
    table.write(folder / "results", options.out)
    return 0 if all(ended) else 1


if __name__ == "__main__":
    sys.exit(main())
