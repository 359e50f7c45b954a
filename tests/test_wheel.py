"""The wheel alone, away from the checkout: its command trains, evaluates and reports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
SMALL = ("shots=1", "optim.epochs=1", "loading.min_batches=1", "data.source.size=32", "evaluation=in_domain")
SMALL += ("trainer.accelerator=cpu", "tracking=none", "cache_root=null", "loading.num_workers=0")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel that is built from the checkout installs, to go in front of this environment's packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", *offline, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def python(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python with ``arguments``, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, check=False)


def kravl(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return python(site, str(site / "bin/kravl"), *arguments)


def test_it_is_the_wheel_that_runs_and_it_is_typed(site: Path) -> None:
    done = python(site, "-c", "import kravl, pathlib; print(pathlib.Path(kravl.__file__).parent)")

    assert done.stdout.strip() == str(site / "kravl")
    assert (site / "kravl/py.typed").is_file() and (site / "kravl/demo/page.js").is_file()
    assert (site / "kravl/experiments/studies/quickstart.yaml").is_file()
    assert (site / "kravl/experiments/breadth/models.jsonl").is_file()
    printed = kravl(site, "report", "--published", "cliplora")
    assert printed.returncode == 0, printed.stderr
    assert "few_shot.png" in printed.stdout


def test_the_command_trains_and_reports(site: Path) -> None:
    trained = kravl(site, "train", "experiment=quickstart_zs_lp", *SMALL)
    assert trained.returncode == 0, trained.stderr

    reported = kravl(site, "report", "runs", "--no-figures")
    assert reported.returncode == 0, reported.stderr
    assert "ZS-LP" in reported.stdout
