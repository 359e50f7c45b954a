"""Fixtures: the real images and weights, unpacked once a session; small image folders; a server of files."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # tests run in as many processes as there are cores: one thread each
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is loaded, here and in processes that a test starts

import fcntl
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import letters
import numpy as np
import pytest
import torch
from file_server import Shelf, serve
from hydra import compose, initialize_config_dir
from PIL import Image
from tiny_run import TINY, VIT

from kravl.config.compose import register_configs
from kravl.config.schema import CONFIGS

MakeTree = Callable[[str, Mapping[str, int]], Path]
ARCHIVES = ("caltech101_128", "pacs128", "cifar10_15k")
LONGEST = ("test_train.py", "test_runs.py", "test_quickstart.py", "test_study.py", "test_adaptation.py")
LONGEST += ("test_benchmarks.py", "test_two_processes.py", "test_scheduler.py", "test_contract.py", "test_spectra.py")
LONGEST += ("test_wheel.py", "test_main.py", "test_rehearsal.py", "test_earlier_release.py")


@pytest.fixture(scope="session", autouse=True)
def _schemas() -> None:
    register_configs()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the user's cache folder, nor does a process that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))  # read when it is imported
        yield


# what PyTorch says of a GPU's kernels, whatever is asked of them; none is about kravl
ON_A_GPU = (
    "ignore:.*(does not have a|non-)deterministic:UserWarning",
    "ignore:Deterministic behavior was enabled:UserWarning",
    "ignore:.*TensorFloat32:UserWarning",
    "ignore:.*(barrier|No device id is provided|device used by this process).*:UserWarning",
    "ignore:The AccumulateGrad node's stream:UserWarning",
    "ignore:.*cusolver:UserWarning",
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """A test that takes it runs on the CPU, and once more on a GPU where there is one."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: a file is run by one process, and one that starts last would be waited for.

    Tests on a GPU are skipped without one, and do not take PyTorch's notes on its kernels for errors.
    """
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu"))
            for warning in ON_A_GPU:
                item.add_marker(pytest.mark.filterwarnings(warning))
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with caltech101/, PACS/, cifar10/, coop/ and vit_small_patch14.safetensors."""
    shared = Path(__file__).parents[2] / "shared/assets"
    source = Path(os.environ.get("KRAVL_ASSETS", shared))
    if not source.is_dir():
        pytest.skip(f"no folder {source}; set KRAVL_ASSETS to the folder of real images and weights")
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one copy for all processes
    folder = root / "assets"
    with (root / "assets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unpack(source, folder)
    return folder


def unpack(source: Path, folder: Path) -> None:
    """Fill a new ``folder`` from the archives of ``source``; it gets its name once it is whole."""
    partial = folder.with_suffix(".partial")
    for archive in ARCHIVES:
        with tarfile.open(source / f"{archive}.tar.gz") as tar:
            tar.extractall(partial, filter="data")
    for name in ("coop", "vit_small_patch14.safetensors"):
        (partial / name).symlink_to(source / name)
    partial.rename(folder)


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with four letters in the fonts of matplotlib: train, test and a set in another family."""
    root = tmp_path_factory.mktemp("data")
    letters.write(root / "glyphs", "ABCD")
    return root


@pytest.fixture
def tiny_run(glyphs: Path, tmp_path: Path) -> Callable[..., Any]:
    """Composes a run of a small random model on the glyphs, six steps in two epochs, with further overrides."""

    def composed(*overrides: str, backbone: Sequence[str] = VIT) -> Any:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose("train", [*TINY, *backbone, f"data_root={glyphs}", f"runs={tmp_path}/runs", *overrides])

    return composed


def finish(glyphs: Path, runs: Path, *overrides: str) -> Path:
    """The folder of a run on the glyphs, six steps, that has been trained and evaluated."""
    from kravl.run.train import train

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        train(compose("train", [*TINY, *overrides, f"data_root={glyphs}", f"runs={runs}", "optim.lr=3e-3"]))
    (folder,) = runs.glob("*/*")
    return folder


@pytest.fixture(scope="session")
def finished_run(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a KRAdapter run of kravl-tiny; copy it before anything is changed."""
    return finish(glyphs, tmp_path_factory.mktemp("finished"), "backbone=kravl_tiny")


@pytest.fixture(scope="session")
def finished_lora(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise with LoRA."""
    return finish(glyphs, tmp_path_factory.mktemp("lora"), "backbone=kravl_tiny", "method=lora")


@pytest.fixture(scope="session")
def finished_vit(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise of a small random ViT."""
    return finish(glyphs, tmp_path_factory.mktemp("vit"), *VIT)


@pytest.fixture
def compose_evaluation() -> Callable[..., Any]:
    """Composes the evaluation of a finished run."""

    def composed(*overrides: str) -> Any:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return compose("evaluate", list(overrides))

    return composed


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Write ``count`` random 10 x 12 images to ``<tmp>/<folder>/<class>/<i>.png`` for each class; returns ``<tmp>``."""

    def make(folder: str, counts: Mapping[str, int]) -> Path:
        rng = np.random.default_rng(len(folder))
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{i}.png")
        return tmp_path

    return make


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    """An HTTP server on this machine."""
    with serve() as it:
        yield it
