"""Row 15: configs from a stranger, wherever one is read: refused in one line before anything runs or is written."""

import os
import pickle
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.campaign import Outcome, Row
from faults.configs import CONFIGS as HOSTILE
from hydra import compose, initialize_config_dir
from letters import write
from omegaconf import OmegaConf
from tiny_run import TINY, VIT

from kravl.config.compose import check_command_line, register_configs, typed
from kravl.config.schema import CONFIGS
from kravl.data import catalog
from kravl.data.download.acquire import acquire
from kravl.data.download.fetch import remote_files
from kravl.run.build import build_run
from kravl.run.finished.restore import restore
from kravl.run.finished.saved import saved_config
from kravl.runtime.errors import InputError
from kravl.study.grid import commands
from kravl.study.schema import read_study
from kravl.tracking.run_folder import find_run


class Touch:
    """Once unpickled, it has made a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


FAKE = "obviously-fake-value-of-a-key"
SECONDS = 1.0


class Stranger:
    """Gives hostile configs at every place, each as a run would read it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        register_configs()
        self.folder = folder
        self.configs, self.cards = folder / "configs", folder / "cards"
        shutil.copytree(CONFIGS, self.configs)
        write(folder / "data/glyphs", "AB")
        (folder / "work").mkdir()
        patch.setattr("kravl.config.compose.CONFIGS", self.configs)
        patch.setattr(catalog, "folder", lambda: self.cards)
        patch.setenv("FAKE_API_KEY", FAKE)
        patch.chdir(folder / "work")
        self.base = self._plain()
        (folder / "MARKER.pt").write_bytes(pickle.dumps(Touch(folder / "MARKER"), protocol=2))
        (folder / "their_package.py").write_text(f"open({str(folder / 'MARKER')!r}, 'w')")
        patch.syspath_prepend(folder)

    def _plain(self) -> dict[str, Any]:
        with initialize_config_dir(str(self.configs), version_base="1.3"):
            cfg = compose("train", [*TINY, *VIT, f"data_root={self.folder}/data"])
        plain = OmegaConf.to_container(cfg)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def give(self, channel: str, text: str) -> None:
        text = text.replace("MARKER", str(self.folder / "MARKER"))
        getattr(self, f"_{channel}")(text)

    def _command(self, text: str) -> None:
        check_command_line([text], "train")

    def _card(self, text: str) -> None:
        (self.cards / "theirs").mkdir(parents=True, exist_ok=True)
        (self.cards / "theirs/card.yaml").write_text(text)
        remote_files(catalog.card("theirs"))
        acquire("theirs", self.folder / "data", keep_archives=True, say=print)

    def _experiment(self, text: str) -> None:
        self._file(text, header="# @package _global_\n")

    def _study(self, text: str) -> None:
        base = {"name": "s", "methods": "[kra]", "datasets": "[digits]", "backbones": "[vit_tiny_random]",
                "shots": "[1]", "seeds": "[1, 2]"}  # fmt: skip
        lines = [f"{key}: {value}" for key, value in base.items() if not text.startswith(f"{key}:")]
        (self.folder / "s.yaml").write_text("\n".join([*lines, text]))
        commands(read_study(self.folder / "s.yaml"))

    def _file(self, text: str, header: str = "") -> None:
        (self.configs / "experiment/theirs.yaml").write_text(f"{header}{text}\n", encoding="utf-8", newline="")
        arguments = [*TINY, *VIT, f"data_root={self.folder}/data", "experiment=theirs"]
        chosen = [a for a in arguments if not text.startswith(a.removeprefix("++").split(".")[0].split("=")[0])]
        check_command_line(chosen, "train")
        with initialize_config_dir(str(self.configs), version_base="1.3"):
            build_run(typed(compose("train", chosen)))

    def _saved(self, text: str) -> None:
        run = self.folder / "their_run"
        run.mkdir(exist_ok=True)
        base = {key: value for key, value in self.base.items() if not text.startswith(f"{key}:")}
        (run / "config.yaml").write_text(f"{yaml.safe_dump(base)}{text}\n")
        (run / "metrics.json").write_text("{}")
        folder = find_run(str(run))
        restore(saved_config(folder, {}), folder)


def attempts(stranger: Stranger, names: list[str]) -> Iterator[tuple[str, float]]:
    """Name -> a line where it was not refused, or left something behind (else empty), and its seconds."""
    for name in names:
        before, begin = set(stranger.folder.iterdir()), time.perf_counter()
        problem = "it was accepted"
        try:
            stranger.give(*HOSTILE[name])
        except InputError as error:
            text = str(error)
            problem = f"it says {text[:300]!r}" if "\n" in text or FAKE in text or len(text) > 2000 else ""
        seconds = time.perf_counter() - begin
        left = {p.name for p in set(stranger.folder.iterdir()) - before} - {"their_run", "cards", "s.yaml"}
        ran = "their_package" in sys.modules or (stranger.folder / "MARKER").exists()
        yield (
            (f"{name}: {problem or ('it ran' if ran else f'it left {left}')}" if problem or ran or left else ""),
            seconds,
        )


def run(count: int, folder: Path) -> Outcome:
    """The first ``count`` configs, each timed."""
    with pytest.MonkeyPatch.context() as patch:
        stranger = Stranger(folder / "home", patch)
        names = list(HOSTILE)[:count]
        found = list(attempts(stranger, names))
    failures = [line for line, _ in found if line]
    slow = [f"{name}: {taken:.2f} s" for name, (_, taken) in zip(names, found, strict=True) if taken > SECONDS]
    worst = max(taken for _, taken in found)
    return Outcome(len(names), f"0 marker files, slowest {worst:.2f} s" if not failures else "", failures + slow)


ROW = Row(15, "hostile configs", "60 configs, 0 marker files, < 1 s each", len(HOSTILE), 60, run)


def test_no_config_runs_reads_a_key_or_writes_elsewhere(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stranger = Stranger(tmp_path / "home", patch)

        found = [line for line, _ in attempts(stranger, list(HOSTILE)[::3]) if line]

    assert found == []
    assert len(HOSTILE) >= 60
    assert {channel for channel, _ in list(HOSTILE.values())[::3]} == {
        "experiment",
        "file",
        "saved",
        "card",
        "study",
        "command",
    }


def test_the_same_files_without_hostility_are_read(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stranger = Stranger(tmp_path / "home", patch)

        stranger.give("experiment", "name: mine\nshots: 4\nruns: my_runs\ndata_root: ${oc.env:DATA_ROOT,data}")
        with pytest.raises(InputError, match=r"adapter\.safetensors"):  # all but the adapter itself is there
            stranger.give("saved", "shots: 4")


def test_a_sweep_is_read_to_its_last_file(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stranger = Stranger(tmp_path / "home", patch)
        (stranger.configs / "experiment/theirs.yaml").write_text("# @package _global_\nplugins: [their_package]\n")

        with pytest.raises(InputError, match="a config file sets plugins"):
            check_command_line(["experiment=quickstart_kra,theirs"], "train", multirun=True)
