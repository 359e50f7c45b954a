"""Unsafe releases of libraries are refused before anything is read."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from kravl.config.compose import check_command_line
from kravl.config.schema import Config
from kravl.run.build import build_run
from kravl.runtime.errors import SAFE, InputError, require_safe_versions


def pretend(monkeypatch: pytest.MonkeyPatch, package: str, version: str) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version if name == package else real(name))


@pytest.mark.parametrize(
    ("package", "version"),
    [("torch", "2.9.1+cpu"), ("torch", "1.13"), ("pytorch-lightning", "2.6.5"), ("hydra-core", "1.3")],
)
def test_an_unsafe_release_is_refused_with_the_reason_and_what_to_install(
    package: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, package, version)
    expected = rf"{package} {re.escape(version)} is not safe: .*; pip install '{package}>={SAFE[package][0]}'$"

    with pytest.raises(InputError, match=expected):
        check_command_line([], "train")
    with pytest.raises(InputError, match=expected):
        build_run(Config())


@pytest.mark.parametrize("version", ["2.10", "2.10.0a1+cpu", "2.15.0", "3"])
def test_a_safe_release_passes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "torch", version)

    require_safe_versions()


def test_what_is_installed_by_pip_is_no_older_than_what_starts() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()

    for package, (first, _) in SAFE.items():
        least = re.search(rf'"{package}>=([\d.]+)', text)
        assert least is not None
        assert [int(n) for n in least[1].split(".")] >= [int(n) for n in first.split(".")]
