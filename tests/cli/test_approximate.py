"""The study from the command's config to its files: a small grid, resumed, and every mistake in one line."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from kravl.analysis.approximation.study import plan_fits
from kravl.cli.approximate import approximate, fit_settings, make_grid
from kravl.config.compose import check_command_line
from kravl.config.schema import CONFIGS
from kravl.runtime.errors import InputError

GRID = ("targets=[gaussian,rank_one]", "methods=[kra,lora,full]", "shape=[20,16]", "budgets=[1,2]", "seeds=[1,2]")


def composed(*overrides: str):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("approximate", [*overrides])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of 16 fits."""
    out = tmp_path_factory.mktemp("study")
    approximate(composed(*GRID, "fit.steps=200", f"out={out}"))
    return out


def table(study: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((study / "results.csv").read_text().splitlines()))


def test_every_fit_has_a_record_and_every_row_its_seeds(study: Path):
    records = [json.loads(line) for line in (study / "results.jsonl").read_text().splitlines()]
    rows = table(study)

    assert len(records) == 2 * 2 * 2 * 2
    assert {(row["target"], row["method"], row["budget"]) for row in rows} == {
        (target, method, budget)
        for target in ("gaussian", "rank_one")
        for method in ("kra", "lora")
        for budget in ("1.0", "2.0")
    }
    assert all(row["n"] == "2" for row in rows)


def test_a_rank_one_update_is_what_lora_can_and_kradapter_cannot_express(study: Path):
    rows = {(row["target"], row["method"], row["budget"]): row for row in table(study)}

    kra, lora = (rows["rank_one", method, "1.0"] for method in ("kra", "lora"))

    assert float(lora["frobenius_error"]) < 0.01
    assert float(kra["optimum_error"]) > 0.5
    assert float(kra["frobenius_error"]) == pytest.approx(float(kra["optimum_error"]), abs=0.01)


def test_figures_are_drawn_as_png_and_svg_and_stand_in_the_page(study: Path):
    page = (study / "index.html").read_text()

    for name in ("error_against_budget", "winners", "spectra", "singular_value_error"):
        with Image.open(study / f"{name}.png") as image:
            assert sum(image.convert("L").histogram()[:250]) > 3000
        assert ElementTree.parse(study / f"{name}.svg").getroot().tag.endswith("svg")
    assert page.count("data:image/svg+xml") == 4
    assert "left out: full trains at least 320 parameters" in page


def test_the_same_command_goes_on_where_it_stopped(study: Path, tmp_path: Path):
    lines = (study / "results.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_text("".join(lines[:14]) + lines[14][:40])

    approximate(composed(*GRID, "fit.steps=200", f"out={tmp_path}"))

    def results(folder: Path) -> dict[str, object]:
        records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
        return {record["key"]: record["metrics"] for record in records}

    assert results(tmp_path) == results(study)
    assert (tmp_path / "results.jsonl").read_text().startswith("".join(lines[:14]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("targets=[gausian]", "unknown target 'gausian': did you mean 'gaussian'"),
        ("methods=[lroa]", "unknown adapter 'lroa': did you mean 'lora'"),
        ("budgets=[0.01]", r"no method fits a budget: left out: kra trains at least .* budgets=\[0.02\]"),
        ("budgets=[-1]", "budgets hold -1"),
        ("shape=[1,9]", "1 x 9: both sides must be at least 2"),
        ("shape=[9]", r"shape=\[9\] is no matrix"),
        ("targets=[]", "nothing to fit"),
        ("targets=[delta]", "variants.delta.run=FOLDER"),
        ("device=quantum", "unknown device 'quantum'"),
        ("fit.schedule=cosin", "unknown fit.schedule 'cosin': did you mean 'cosine'"),
        ("fit.steps=0", "both must be positive"),
        ("++variants.kra.split=short", "the variant kra does not say of what"),
        ("++variants.kra={of: kra, spilt: long}", "unknown setting of KRAdapter 'spilt': did you mean 'split'"),
        ("++variants.kra={of: kra, split: 99}", "split must be short, long, 2x or a whole number from 1 to 20"),
        ("++variants.gaussian={of: power_law, exponent: -1}", "exponent must be at least 0"),
    ],
)
def test_a_mistake_is_one_line_before_any_fit(tmp_path: Path, override: str, message: str):
    out = tmp_path / "study"

    with pytest.raises(InputError, match=message):
        approximate(composed(*GRID, override, f"out={out}"))

    assert not out.exists()


def test_a_typo_in_a_setting_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown key 'fit.step': did you mean 'fit.steps'"):
        check_command_line(["fit.step=3"], "approximate")


def test_a_diverged_fit_is_told_at_the_end_and_the_others_are_kept(tmp_path: Path):
    one = ("targets=[rank_one]", "methods=[kra]", "budgets=[1]")

    with pytest.raises(SystemExit, match="2 of 2 fits diverged: rank_one, kra, seed 1: the loss is"):
        approximate(composed(*GRID, *one, "fit.lr=1e30", f"out={tmp_path}"))


@pytest.mark.parametrize("preset", sorted(path.stem for path in (CONFIGS / "preset").glob("*.yaml")))
def test_a_shipped_preset_plans(preset: str):
    cfg = composed(f"preset={preset}", "shape=[256,256]" if preset == "full" else f"name={preset}", "seeds=[1]")

    trials, _ = plan_fits(make_grid(cfg), fit_settings(cfg.fit))

    assert len({trial.key for trial, _ in trials}) == len(trials) > 1
    assert cfg.name == preset
