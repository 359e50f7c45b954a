"""A grid is what train.py would run, and its runs can be told apart."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from kravl.config.compose import as_written
from kravl.config.quoting import as_overrides
from kravl.config.schema import CONFIGS
from kravl.run import build
from kravl.runtime.errors import InputError
from kravl.study.checks import check_cells
from kravl.study.grid import commands, plan_runs
from kravl.study.schema import Study, read_study
from kravl.tracking.run_folder import folder_of
from kravl.tracking.settings import place_of

STUDIES = Path(__file__).parents[2] / "experiments/studies"


def study(**changes: object) -> Study:
    base = {
        "name": "s",
        "backbones": {"vit_s14": []},
        "datasets": {"dtd": ["optim.epochs=3"], "pets": ["data=oxford_pets"]},
        "methods": {"kra": [], "lora_r4": ["method=lora", "adapter.rank=4"]},
        "shots": [4, None],
        "seeds": [1, 2],
        "settings": ["tracking=none"],
        "runs": "runs/s",
    }
    return Study(**{**base, **changes})  # type: ignore[arg-type]


def swept(command: str) -> list[list[str]]:
    """The settings of each run that Hydra's basic sweeper makes of a ``python train.py -m`` line."""
    runs: list[list[str]] = [[]]
    for override in OverridesParser.create().parse_overrides(
        as_overrides(shlex.split(command)[3:], "train", multirun=True)
    ):
        key = override.get_key_element()
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [None]
        settings = [str(override.input_line) if value is None else f"{key}={value}" for value in values]
        runs = [[*run, setting] for run in runs for setting in settings]
    return runs


def test_what_the_runs_of_a_grid_would_refuse_is_said_of_all_cells_before_the_first_starts() -> None:
    methods = {"kra": [], "ncm": [], "coop": [], "zeroshot": []}
    grid = study(backbones={"clip_vitb16": []}, datasets={"dtd": [], "oxford_pets": []}, methods=methods)
    check_cells(plan_runs(grid, ["data_root=/data", "evaluation=in_domain"]))

    with pytest.raises(InputError) as refusal:
        check_cells(plan_runs(grid, ["data_root=/data", "alphas=3"]))

    said = str(refusal.value)
    refused = r"^1 of the 8 cells would be refused: zeroshot on dtd \(clip_vitb16\): nothing to train"
    with pytest.raises(InputError, match=refused):
        check_cells(plan_runs(study(backbones={"clip_vitb16": []}, methods=methods), ["data_root=/data"]))
    assert said.startswith("4 of the 8 cells would be refused: ncm (2 cells): alphas has 0.5, and NearestClassMean")
    assert "; coop (2 cells): alphas=3: a learned context" in said and "\n" not in said


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["method=lora", "adapter.rang=4"], "unknown setting of LoRA 'rang': did you mean 'rank'?"),
        (["method=lora", "sites=visoin"], "did you mean 'vision'?"),
        (["method=lora", "targets=[visual.nowhere.*]"], "'visual.nowhere.*'"),
        (["method=bitfit", "unfreeze=[visual.nowhere.*]"], "'visual.nowhere.*'"),
        (["method=lora", "stages=[{train:[nowhere]}]", "optim.steps=9"], "stages.0 trains 'nowhere'"),
        (["method=lora", "optim.steps=9", "optim.warmup_steps=10"], "optim.warmup_steps=10: the run has 9 steps"),
        (["method=coop", "context_init=so"], "context_init='so'"),
        (["method=lora", "train_statistics=true"], "no norm of kravl_tiny keeps running statistics"),
        (["method=lora", "backbone.build.logit_scael=fixed"], "did you mean 'logit_scale'?"),
        (["method=lora", "data.source.sise=32"], "did you mean 'size'?"),
        (["method=lora", "backbone.build.name=kravl-tniy"], "unknown open_clip model 'kravl-tniy'"),
    ],
)
def test_a_cell_whose_settings_do_not_fit_its_model_is_refused_before_the_first_run(
    settings: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kravl.backbones.clip.load_clip", lambda _: pytest.fail("weights were loaded"))
    methods = {"kra": [], "wrong": settings}
    grid = study(backbones={"kravl_tiny": []}, datasets={"openmoji": []}, methods=methods, shots=[1, 2])

    with pytest.raises(InputError) as refusal:
        check_cells(plan_runs(grid, ["data_root=/nowhere"]))

    said = str(refusal.value)
    assert said.startswith("1 of the 2 cells would be refused: wrong on openmoji (kravl_tiny): ") and reason in said


def test_a_setting_is_checked_once_however_many_seeds_and_shots_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    place = build.place
    placed: list[int] = []
    checked: list[int | None] = []
    monkeypatch.setattr(build, "place", lambda *given: (placed.append(1), place(*given))[1])
    grid = study(backbones={"kravl_tiny": []}, shots=[1, 2, 4, 8], seeds=list(range(50)), other_seeds=["alphas=1"])

    monkeypatch.setattr("kravl.run.train.check", lambda cfg: checked.append(cfg.shots))

    check_cells(plan_runs(grid, ["data_root=/nowhere"]))

    assert len(checked) == 8  # of two methods on two data sets, with the alphas of the first seed and of others
    assert len(placed) == 2  # of two methods on two data sets


def test_the_runs_of_a_grid_are_those_of_its_commands() -> None:
    folders = set()
    grid = study(other_seeds=["optim.epochs=2"])
    lines = commands(grid, ["data_root=/data"])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        for settings in [settings for line in lines for settings in swept(line)]:
            cfg = compose("train", overrides=settings)
            folders.add(folder_of(cfg.runs, cfg.name, cfg.seed, as_written(cfg)))

    runs = plan_runs(grid, ["data_root=/data"])

    assert all(line.startswith("python train.py -m ") for line in lines)
    assert len(runs) == 16
    assert {run.folder for run in runs} == folders
    assert all(run.config().data_root == "/data" for run in runs)
    assert all(run.config().optim.epochs == 2 for run in runs if run.seed == 2)
    assert {run.config().optim.epochs for run in runs if run.seed == 1} == {3, 30}


def test_the_folders_of_many_seeds_are_those_of_each() -> None:
    [run, *others] = [run for run in plan_runs(study(seeds=[1, 2, 7])) if run.shots == 4 and run.cell.method == "kra"]

    for each in (run, *others):
        settings = as_written(each.config())
        assert each.place == place_of(each.config().name, each.seed, settings)
        assert each.folder == folder_of("runs/s", each.config().name, each.seed, settings)


def test_a_run_has_the_names_and_settings_of_its_cell() -> None:
    runs = {(run.cell.method, run.cell.dataset, run.shots, run.seed): run for run in plan_runs(study())}

    cfg = runs["lora_r4", "pets", None, 2].config()

    assert (cfg.label, cfg.method, cfg.adapter.rank, cfg.data.name) == ("lora_r4", "lora", 4, "pets")
    assert (cfg.shots, cfg.seed, cfg.split_seed, cfg.study, cfg.optim.epochs) == (None, 2, 2, "s", 30)
    assert cfg.name == "vit_s14_lora_r4_all_pets"
    assert runs["kra", "dtd", 4, 1].config().optim.epochs == 3
    assert runs["kra", "dtd", 4, 1].title == "kra on dtd (vit_s14), 4-shot, seed 1"


def test_names_without_settings_share_a_command() -> None:
    grid = study(datasets={"dtd": [], "eurosat": []}, methods={"kra": [], "lora": [], "full": ["optim.lr=1e-5"]})

    lines = commands(grid, [])

    assert len(lines) == 2
    assert "backbone=vit_s14 data=dtd,eurosat method=kra,lora study=s runs=runs/s shots=4,null seed=1,2" in lines[0]


def test_a_change_comes_last_and_wins() -> None:
    [first, *_] = plan_runs(study(settings=["optim.lr=1", "tracking=none"]), ["optim.lr=2", "runs=/x"])

    assert first.base.optim.lr == 2
    assert first.folder.parent.parent == Path("/x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {"krra": []}}, r"krra on dtd \(vit_s14\): unknown method 'krra': did you mean 'kra'"),
        ({"datasets": {"dtt": []}}, "unknown data 'dtt': did you mean 'dtd'"),
        ({"settings": ["optim.lrr=1"]}, "unknown key 'optim.lrr': did you mean 'optim.lr'"),
        ({"methods": {"kra": ["adapter.scale=1,2"]}}, "means several runs"),
        ({"seeds": [1, 1]}, "two runs have the same name"),
        (
            {"datasets": {"dtd": [], "eurosat": ["data.name=dtd"]}},
            "same name .*: kra on dtd .*, and kra on eurosat",
        ),
    ],
)
def test_a_grid_that_cannot_be_run_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan_runs(study(**changes))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method=lora", "method=lora of every run: the study decides method"),
        ("backbone=kravl_tiny", "the study decides backbone"),
        ("++label=x", "the study decides label"),
        ("name=x", "the study decides name"),
        ("seeds=1,2", "unknown setting 'seeds': did you mean 'seed'?"),
        ("hydra.run.dir=x", "add it to a line of --print-commands"),
    ],
)
def test_no_change_of_every_run_makes_a_name_say_something_else(change: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        plan_runs(study(), [change])


def test_a_grid_without_end_is_refused_before_it_is_laid_out() -> None:
    with pytest.raises(InputError, match=r"has 36,000,000 runs; at most 200,000"):
        plan_runs(study(shots=list(range(1, 3001)), seeds=list(range(3000))))


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_study_composes(path: Path) -> None:
    shipped = read_study(path)
    [cell] = [{axis: dict([max(getattr(shipped, axis).items(), key=lambda item: len(item[1]))]) for axis in
               ("backbones", "datasets", "methods")}]  # fmt: skip

    runs = plan_runs(Study(**{**vars(shipped), **cell}))

    assert len(runs) == len(shipped.shots) * len(shipped.seeds)
