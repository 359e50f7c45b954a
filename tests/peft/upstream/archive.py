"""PEFT's tests of the installed release, from the package index's source archive, and the models that they name."""

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent


def fetch(folder: Path) -> Path:
    """The source archive of the installed release in ``folder``, from the package index unless it is there."""
    version = importlib.metadata.version("peft")
    archive = folder / f"peft-{version}.tar.gz"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-deps", "--no-binary", "peft", "--no-build-isolation", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, f"peft=={version}"], check=True)
    return archive


def prepare(folder: Path, archive: Path) -> None:
    """Fill ``folder`` with ``tests/`` of the archive and ``hub/``, unless they are there for the installed release."""
    version = importlib.metadata.version("peft")
    tests = folder / "tests"
    if not (tests / f".{version}").exists():
        with tarfile.open(archive) as tar:
            members = [m for m in tar if m.name.startswith(f"peft-{version}/tests/")]
            for member in members:
                member.name = member.name.partition("/")[2]
            tar.extractall(folder, members, filter="data")
        (tests / "__init__.py").touch()  # the archive has none, and the tests import each other relatively
        (folder / "pytest.ini").write_text("[pytest]\naddopts =\n")
        (tests / f".{version}").touch()
    if not (folder / "hub/complete").exists():
        subprocess.run([sys.executable, HERE / "tiny_hub.py", folder / "hub"], check=True)
        (folder / "hub/complete").touch()


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
