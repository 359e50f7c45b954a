"""Fixtures: the real images and weights, unpacked once a session."""

import os
import tarfile
from pathlib import Path

import pytest

ARCHIVES = ("caltech101_128", "pacs128", "cifar10_15k")


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with caltech101/, PACS/, cifar10/, coop/ and vit_small_patch14.safetensors."""
    shared = Path(__file__).parents[2] / "shared/assets"
    source = Path(os.environ.get("KRAVL_ASSETS", shared))
    if not source.is_dir():
        pytest.skip(f"no folder {source}; set KRAVL_ASSETS to the folder of real images and weights")
    folder = tmp_path_factory.mktemp("assets")
    for archive in ARCHIVES:
        with tarfile.open(source / f"{archive}.tar.gz") as tar:
            tar.extractall(folder, filter="data")
    for name in ("coop", "vit_small_patch14.safetensors"):
        (folder / name).symlink_to(source / name)
    return folder
