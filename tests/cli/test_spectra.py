"""Singular values of what a run added, read back from its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from tiny_run import TINY, VIT

from kravl.analysis.spectra import locate, mean_decay
from kravl.cli.spectra import spectra, trace_of
from kravl.config.schema import CONFIGS
from kravl.run.finished.saved import saved_config
from kravl.run.train import train
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import find_run
from kravl.training.spectrum_monitor import read_trace


def config(run: str | list[str], out: str) -> Any:
    listed = run if isinstance(run, str) else f"[{','.join(run)}]"
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("spectra", [f"run={listed}", f"out={out}"])


@pytest.fixture(scope="module")
def trained(glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a finished LoRA of rank 2 and of a KRAdapter, recorded at every second step."""
    runs = tmp_path_factory.mktemp("runs")
    for overrides in (("method=lora", "adapter.rank=2"), ("method=kra",)):
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            overrides = (*TINY, *VIT, f"data_root={glyphs}", f"runs={runs}", "spectrum_every=2", *overrides)
            train(compose("train", list(overrides)))
    folders = [path.parent for path in runs.glob("*/seed*/metrics.json")]
    return {json.loads((folder / "metrics.json").read_text())["method"]: folder for folder in folders}


def test_the_values_are_those_of_the_update_that_was_trained(trained: dict[str, Path]) -> None:
    values = trace_of(find_run(str(trained["lora"])), exact=True).singular_values

    assert values
    for found in values.values():
        assert found.dtype == torch.float64
        assert found[0] > 0
        assert found[2:].max() < 1e-6 * found[0]


def test_a_run_without_matrices_is_refused_before_another_is_loaded(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kravl.run.finished.restore.load_run", lambda *_, **__: pytest.fail("a run was loaded"))
    probe = shutil.copytree(trained["kra"], tmp_path / "probe/seed1-0")
    metrics = json.loads((probe / "metrics.json").read_text())
    (probe / "metrics.json").write_text(json.dumps({**metrics, "sites": {}}))
    (probe / "spectra.safetensors").unlink()

    with pytest.raises(InputError, match=r"probe/seed1-0 adapts no matrix"):
        spectra(config([str(trained["lora"]), str(probe)], str(tmp_path / "out")))


def test_the_decay_compares_matrices_of_different_sizes_by_share_of_their_rank() -> None:
    short, long = torch.tensor([4.0, 3.0, 1.0]), torch.tensor([2.0, 2.0, 1.0, 0.5, 0.5])

    assert mean_decay({"a": short, "b": long}, points=3) == pytest.approx([1.0, (0.75 + 0.5) / 2, 0.25])


def test_what_did_not_change_has_no_part_in_the_decay() -> None:
    assert mean_decay({"a": torch.zeros(3), "b": torch.tensor([2.0, 1.0])}, points=2) == [1.0, 0.5]
    assert mean_decay({"a": torch.zeros(3)}) == []


def test_two_runs_are_drawn_side_by_side(trained: dict[str, Path], tmp_path: Path) -> None:
    spectra(config(run=[str(trained["kra"]), str(trained["lora"])], out=str(tmp_path)))

    for name in ("layers", "steps", "decay"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert sum(image.convert("L").histogram()[:250]) > 3000
    assert (tmp_path / "index.html").read_text().count("data:image/svg+xml") == 3
    rows = [[cell.strip() for cell in row.split("|")] for row in (tmp_path / "table.md").read_text().splitlines()[2:]]
    assert [row[1] for row in rows] == ["KRAdapter, seed 1", "LoRA, seed 1"]
    assert float(rows[0][4]) > 10 > 2.1 > float(rows[1][4]) > 1  # effective ranks


def test_what_was_recorded_while_training_is_what_the_finished_weights_have(trained: dict[str, Path]) -> None:
    recorded = read_trace(trained["kra"] / "spectra.safetensors")

    exact = trace_of(find_run(str(trained["kra"])), exact=True)

    assert list(recorded.steps) == [2, 4, 6]
    assert recorded.end.keys() == exact.end.keys()
    for site, values in recorded.end.items():
        for name in ("effective_rank", "stable_rank", "norm", "spectral_norm", "cosine"):
            assert values[name] == pytest.approx(exact.end[site][name], rel=1e-3, abs=1e-6), (site, name)
        assert values["overlap"] == pytest.approx(exact.end[site]["overlap"], abs=0.05)
        torch.testing.assert_close(recorded.singular_values[site], exact.singular_values[site], rtol=1e-4, atol=1e-7)
        assert "intruders" in exact.end[site]
    assert json.loads((trained["kra"] / "cost.json").read_text())["spectrum_seconds"] > 0


def test_a_run_that_recorded_nothing_is_measured_from_its_adapter(trained: dict[str, Path], tmp_path: Path) -> None:
    older = shutil.copytree(trained["lora"], tmp_path / "seed1")
    (older / "spectra.safetensors").unlink()

    measured = trace_of(find_run(str(older)), exact=False).end

    recorded = read_trace(trained["lora"] / "spectra.safetensors").end
    assert measured.keys() == recorded.keys()
    assert all(measured[site]["norm"] == pytest.approx(values["norm"]) for site, values in recorded.items())


def test_a_run_without_adapted_matrices_has_no_spectrum_and_mistakes_are_one_line(tiny_run, tmp_path: Path) -> None:
    train(tiny_run("method=linear_probe"))
    (folder,) = (tmp_path / "runs").glob("*/seed*")

    assert not (folder / "spectra.safetensors").exists()
    with pytest.raises(InputError, match=f"the run {folder} adapts no matrix"):
        spectra(config(run=str(folder), out=f"{tmp_path}/out"))
    with pytest.raises(InputError, match=r"no run .*nowhere"):
        spectra(config(run=f"{tmp_path}/runs/nowhere/seed1", out=f"{tmp_path}/out"))
    with pytest.raises(InputError, match="names no run"):
        spectra(config(run=[], out=f"{tmp_path}/out"))
    (folder / "config.yaml").write_text("optim: {speed: 3}\n")
    with pytest.raises(InputError, match=r"config.yaml does not fit: .*speed"):
        saved_config(find_run(str(folder)), {})


@pytest.mark.parametrize(
    ("site", "expected"),
    [
        ("visual.transformer.resblocks.3.mlp.c_fc", ("image", 3, "mlp.c_fc")),
        ("transformer.resblocks.11.attn.q", ("text", 11, "attn.q")),
        ("text.transformer.resblocks.0.attn.qkv", ("text", 0, "attn.qkv")),
        ("visual.trunk.blocks.2.attn.qkv", ("image", 2, "attn.qkv")),
        ("blocks.7.mlp.fc1", ("image", 7, "mlp.fc1")),
        ("visual.proj", ("image", None, "visual.proj")),
        ("text_projection", ("text", None, "text_projection")),
    ],
)
def test_a_site_has_a_tower_a_layer_and_a_kind(site: str, expected: tuple[str, int | None, str]) -> None:
    assert locate(site) == expected
