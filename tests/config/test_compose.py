"""A mistyped command line is one line that names the nearest legal word."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kravl.cli.configured import as_methods
from kravl.config.compose import check_command_line, experiments, register_configs
from kravl.runtime.errors import InputError

ROOT = Path(__file__).parents[2]

TYPOS = {
    "a key": ("optim.lrr=1", "unknown key 'optim.lrr': did you mean 'optim.lr'?"),
    "a key at the top": ("shotz=4", "unknown key 'shotz': did you mean 'shots'?"),
    "a key that is added": ("+optim.lrr=1", "unknown key 'optim.lrr': did you mean 'optim.lr'?"),
    "a key at the top that is added": ("+shotz=1", "unknown key 'shotz': did you mean 'shots'?"),
    "a key that is there and added": (
        "+trainer.devices=1",
        "+trainer.devices: the setting exists already; write trainer.devices=... without +",
    ),
    "a group": ("adaptr=lora", "unknown key 'adaptr': did you mean 'adapter'?"),
    "an adapter": ("adapter=lroa", "unknown adapter 'lroa': did you mean 'lora'?"),
    "a method": ("method=linear_prob", "unknown method 'linear_prob': did you mean 'linear_probe'?"),
    "a data set": ("data=caltec101", "unknown data 'caltec101': did you mean 'caltech101'?"),
    "an experiment": (
        "experiment=clip_vitb16_kra_16shots",
        "unknown experiment 'clip_vitb16_kra_16shots': did you mean 'clip_vitb16_kra_16shot'?",
    ),
    "a key of another tool": ("optim.learning_rate=1", "unknown key 'optim.learning_rate': did you mean 'optim.lr'?"),
    "a key without its section": ("batch_size=1", "unknown key 'batch_size': did you mean 'loading.batch_size'?"),
    "a value": ("optim.lr=fast", "optim.lr=fast: it must be a number"),
    "a value that may be null": ("shots=all", "shots=all: it must be a whole number or null, which is all images"),
    "a switch": ("overwrite=yep", "overwrite=yep: it must be true or false"),
    "a list": ("targets=blocks", "targets=blocks: it must be a list such as [a,b]"),
    "a value in a stage": (
        "stages=[{train:adapters,share:1}]",
        "stages=[{train:adapters,share:1}]: train of a stage must be a list such as [a,b]",
    ),
    "a mapping for a list": ("stages={train:[head]}", "stages={train:[head]}: it must be a list such as [{train:"),
    "a value in a section": ("optim={lr:x}", "optim={lr:x}: optim.lr must be a number"),
    "a list for a section": ("optim=[1]", "optim=[1]: it must be settings by name, such as optim={NAME: VALUE}"),
    "a sweep without -m": ("seed=1,2", "seed=1,2 means several runs: add -m"),
    "a variable of a shell that names a folder": (
        "data_root='${HOME}/x'",
        "${HOME} is no setting; of the variable of that name write ${oc.env:HOME} or its value, or leave out",
    ),
    "a variable of a shell": (
        "name='${PYTEST_VERSION}'",
        "${PYTEST_VERSION} is no setting; of the variable of that name write its",
    ),
    "a folder that a resolver needs": (
        "evaluation=folder",
        "no value for 'evaluation.root'; give it as evaluation.root=...",
    ),
    "a variable that is not set": (
        "data_root='${oc.env:NOWHERE_DIR}'",
        "${oc.env:NOWHERE_DIR}: the variable NOWHERE_DIR is not set; export NOWHERE_DIR=..., or write its value",
    ),
    "a resolver without its argument": ("name='${images:1}'", "an interpolation ${...} cannot be resolved: "),
    "what is neither": ("runs='${NOWHERE}/x'", "${NOWHERE} is no setting; \\${NOWHERE} is this text itself"),
    "the grammar": ("optim.lr=[1", "cannot read 'optim.lr=[1'"),
}


@pytest.mark.parametrize("typo", TYPOS, ids=str)
def test_a_typo_names_the_nearest(typo):
    argument, message = TYPOS[typo]

    with pytest.raises(InputError) as caught:
        check_command_line([argument], "train")

    assert message in str(caught.value)
    assert "\n" not in str(caught.value) and "raised while" not in str(caught.value)


def test_an_adapter_alone_brings_its_method_so_that_its_name_and_rate_are_its_own():
    assert as_methods(["adapter=lora", "seed=2"]) == ["method=lora", "seed=2"]
    assert as_methods(["-m", "adapter=lora,kra"]) == ["-m", "method=lora,kra"]
    assert as_methods(["adapter=mine"]) == ["adapter=mine", "method=custom"]
    assert as_methods(["adapter=lora", "method=kra"]) == ["adapter=lora", "method=kra"]
    assert as_methods(["adapter.scale=1"]) == ["adapter.scale=1"]


def test_a_sweep_is_checked_by_its_first_value():
    check_command_line(["seed=1,2", "method=lora,kra"], "train", multirun=True)
    with pytest.raises(InputError, match="unknown method 'lroa'"):
        check_command_line(["method=lroa,kra"], "train", multirun=True)


def test_a_config_file_cannot_allow_another_package(tmp_path, monkeypatch):
    copy = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", copy)
    (copy / "experiment/other.yaml").write_text("# @package _global_\nplugins: [other]\nname: other\n")
    monkeypatch.setattr("kravl.config.compose.CONFIGS", copy)

    with pytest.raises(InputError, match=r"a config file sets plugins=\['other'\]; only the command line may"):
        check_command_line(["experiment=other"], "train")
    check_command_line(["plugins=[mine]"], "train")


def test_a_missing_value_is_asked_for():
    with pytest.raises(InputError, match=r"no value for 'run'; give it as run=\.\.\."):
        check_command_line([], "evaluate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shots: abc", "shots=abc: it must be a whole number or null, which is all images"),
        ("optim: {lr: fast}", "optim.lr=fast: it must be a number"),
        ("sites: [vision]", "sites=['vision']: it must be text or null"),
        ("optim: 3", "optim=3: it must be settings by name"),
        ("optim: null", "optim=null: it must be settings by name"),
        ("targets: x", "targets=...: it must be a list such as [a,b]"),
        ("stages: [{train: adapters}]", "train=...: it must be a list such as [a,b]"),
        ("stages: [{trian: [head]}]", "unknown key of a stage 'trian': did you mean 'train'?"),
        ("trainer: {1: 2}", "Key 1 (int) is incompatible with (str)"),
        ("data: {source: [1]}", "a list stands where settings by name are expected"),
        ("backbone: {lora: {rank: 1.5}}", "backbone.lora.rank=1.5: it must be a whole number or null"),
        ("optim.lr: 1", "in a file it is nested, optim: {lr: ...}"),
    ],
)
def test_a_wrong_value_in_a_file_is_named_with_what_it_may_be(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "configs"
    shutil.copytree(ROOT / "configs", copy)
    (copy / "experiment/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    monkeypatch.setattr("kravl.config.compose.CONFIGS", copy)

    with pytest.raises(InputError) as caught:
        check_command_line(["experiment=mine", "backbone=vit_s14", "data=digits"], "train")

    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "of a stage" in message or "configs/experiment/mine.yaml" in str(caught.value)


def test_every_combination_the_issue_names_is_an_experiment():
    names = experiments()
    for backbone in ("clip_vitb32", "clip_vitb16", "clip_vitl14"):
        for method in ("kra", "lora", "randlora", "full", "linear_probe", "zeroshot"):
            assert {f"{backbone}_{method}_{shots}shot" for shots in (1, 4, 16)} <= set(names)


def test_a_typo_on_the_command_line_exits_with_2_and_one_line():
    command = [sys.executable, "train.py", "method=kraa"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: unknown method 'kraa': did you mean 'kra'?")
    assert done.stderr.count("\n") == 1


def test_help_tells_what_to_type():
    command = [sys.executable, "train.py", "--help"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "kravl train experiment=NAME" in done.stdout and "data.source.root" not in done.stdout
    assert "\nadapter: " in done.stdout
    assert "full, gralora, hira, hra, kra, kra_lora" in done.stdout


def test_a_registered_experiment_composes_to_what_its_name_says():
    from hydra import compose, initialize_config_dir

    from kravl.config.schema import CONFIGS

    register_configs(["clip_vitl14_randlora_4shot"])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["experiment=clip_vitl14_randlora_4shot"])

    assert (cfg.backbone.name, cfg.method, cfg.shots, cfg.data.name) == ("clip_vitl14", "randlora", 4, "imagenet")
    assert cfg.adapter._target_ == "kravl.adapters.randlora.RandLoRA"
    assert cfg.evaluation.name == "imagenet_ood"
    assert cfg.name == "clip_vitl14_randlora_4shot"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["shots=4"], "clip_vitb16_kra_4shot_imagenet"),
        (["shots=null"], "clip_vitb16_kra_all_imagenet"),
        (["shots=null", "fraction=0.5"], "clip_vitb16_kra_fraction0.5_imagenet"),
    ],
)
def test_a_run_is_named_by_how_many_images_it_trains_on(overrides: list[str], name: str) -> None:
    from hydra import compose, initialize_config_dir

    from kravl.config.schema import CONFIGS

    register_configs()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        assert compose("train", overrides).name == name
