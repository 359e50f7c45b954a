"""Row 20: keys of the user are in no file of a run, in no report and in nothing that is printed."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import wandb
from faults.campaign import Outcome, Row
from hydra.core.global_hydra import GlobalHydra
from letters import write
from tiny_run import TINY, VIT
from wandb_records import isolate

from kravl.cli.report import main as report
from kravl.cli.train import main as train_command
from kravl.config.schema import EvaluateConfig
from kravl.run.evaluate import evaluate_run

# made up, and unlike any service's
SECRETS = {
    "WANDB_API_KEY": "planted-in-wandb-key-" + "0" * 20,
    "HF_TOKEN": "planted-in-hub-token",
    "an argument": "planted-in-an-argument",
    "an interpolation": "planted-in-an-interpolation",
    "a remote of git": "planted-in-a-remote",
    "the home": "planted-name-of-a-user",
}
NOTHING_TRAINS = ("optim.epochs=1", "loading.min_batches=1")


@contextmanager
def home_of_a_user(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with a remote, a home with images, and keys in the environment; leads into the checkout."""
    home, checkout = folder / SECRETS["the home"], folder / "checkout"
    checkout.mkdir(parents=True)
    isolate(home, patch)
    write(home / "data/glyphs", "AB")
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        patch.setenv(name, SECRETS[name])
    patch.setenv("PLANTED_KEY", SECRETS["an interpolation"])
    patch.setenv("WANDB_MODE", "offline")
    remote = f"http://user:{SECRETS['a remote of git']}@localhost/a.git"
    for command in (["init", "-q"], ["remote", "add", "origin", remote]):
        subprocess.run(["git", *command], cwd=checkout, check=True)
    patch.chdir(checkout)
    yield checkout
    wandb.teardown()


def _command(patch: pytest.MonkeyPatch, *changes: str) -> int | str | None:
    arguments = [*TINY, *VIT, "runs=runs", "name=mine", *NOTHING_TRAINS, *changes]
    home_root = f"data_root={Path.home()}/data"
    shown = f"+hydra.job.env_set.PLANTED={SECRETS['an argument']}"
    patch.setattr(sys, "argv", ["train.py", *(a.removeprefix("++") for a in arguments), home_root, shown])
    GlobalHydra.instance().clear()
    try:
        return train_command()
    except SystemExit as end:
        return end.code


def leaks(folder: Path) -> list[str]:
    """Run, be refused, evaluate and report as a user with keys; where each planted secret was found."""
    with pytest.MonkeyPatch.context() as patch, home_of_a_user(folder, patch) as checkout:
        said = StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            assert _command(patch, "tracking=wandb") == 0
            assert _command(patch, "'data.templates=a {} ${oc.env:PLANTED_KEY}'", "name=refused") == 2
            (run,) = Path("runs/mine").glob("seed*")
            evaluation = {"name": "again", "sets": {}, "classes": "trained"}
            evaluate_run(_evaluate(str(run), evaluation))
            assert report(["runs"]) == 0
        wandb.teardown()
        shutil.rmtree(checkout / ".git")
        found = []
        for what, secret in SECRETS.items():
            found += [f"{what} in what is printed"] if secret in said.getvalue() else []
            files = [path for path in checkout.rglob("*") if path.is_file()]
            found += [
                f"{what} in {path.relative_to(checkout)}" for path in files if secret.encode() in path.read_bytes()
            ]
        assert len(files) > 8
        return found


def _evaluate(run: str, evaluation: dict[str, object]) -> EvaluateConfig:
    from omegaconf import OmegaConf

    cfg = OmegaConf.merge(OmegaConf.structured(EvaluateConfig), {"run": run, "evaluation": evaluation})
    return cfg  # type: ignore[return-value]


def run(count: int, folder: Path) -> Outcome:
    """All of the secrets in one go, whatever ``count`` is."""
    found = leaks(folder)
    return Outcome(len(SECRETS), f"{len(found)} hits", found)


ROW = Row(20, "secrets", "6 planted, 0 hits", len(SECRETS), len(SECRETS), run)


def test_no_secret_of_a_user_is_in_any_file_or_in_what_is_printed(tmp_path: Path) -> None:
    assert leaks(tmp_path) == []
