"""A text setting is what was typed, whatever Hydra's grammar makes of it."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from odd_names import ODD
from omegaconf import OmegaConf

from kravl.config.compose import check_command_line
from kravl.config.quoting import as_overrides, quoted
from kravl.config.schema import CONFIGS, SCHEMAS, Backbone, Config, Data, EvaluateConfig, Evaluation
from kravl.runtime.errors import InputError
from kravl.study.grid import commands, plan_runs
from kravl.study.schema import Study

# of each verb, what takes a path: typed in the schema, or by the class that the setting goes to
PATHS = {
    "train": ("runs data_root cache_root resume data.root data.test data.train data.val data.file data.class_names "
              "data.source.root backbone.build.pretrained backbone.build.name"),
    "evaluate": "run data_root cache_root evaluation.sets.mine.root",
    "spectra": "out run",
    "approximate": "out variants.mine.run variants.mine.path",
}  # fmt: skip
# a list of one run, and the weights of timm's own
MEANT = {("run", "[1]"), ("backbone.build.pretrained", "true")}
WHOLE: dict[str, Any] = {
    "train": Config(backbone=Backbone("x"), data=Data("x"), evaluation=Evaluation("x")),
    "evaluate": EvaluateConfig(evaluation=Evaluation("x")),
}


def read(config_name: str, argument: str, multirun: bool = False) -> list[Any]:
    """The values that Hydra gives the setting, one for each run."""
    (line,) = as_overrides([argument], config_name, multirun)
    override = OverridesParser.create().parse_override(line)
    lines = [line]
    if override.is_sweep_override():
        lines = [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    values = []
    for each in OverridesParser.create().parse_overrides(lines):
        assert not each.is_sweep_override()
        config = OmegaConf.structured(WHOLE.get(config_name, SCHEMAS[config_name]))
        OmegaConf.update(config, each.key_or_group, each.value(), force_add=True)
        value = OmegaConf.select(config, each.key_or_group)
        values.append(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
    return values


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_what_was_typed(name: str) -> None:
    (line,) = as_overrides([f"runs={name}"], "train")

    assert read("train", f"runs={name}") == [name]
    for verb, keys in PATHS.items():
        for key in keys.split():
            if (key, name) not in MEANT:
                assert as_overrides([f"{key}={name}"], verb)[0].lstrip("+") == f"{key}={line.partition('=')[2]}"


def test_what_kravl_writes_itself_is_read_as_it_is() -> None:
    names = (*ODD, "null", "'q'", '"q"', "~/x", "a${b}", "\\${b}", "\\\\${b}", "${b}/${c}")

    assert {name: read("train", quoted("runs", name)) for name in names} == {name: [name] for name in names}


def test_hydra_composes_the_same() -> None:
    names = [name for name in ODD if name]
    typed = [f"++evaluation.sets.n{i}.root={name}" for i, name in enumerate(names)]

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        sets = compose("train", as_overrides([*typed, "runs=a, [b"], "train")).evaluation.sets

    assert [sets[f"n{i}"].root for i in range(len(names))] == names


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("data.root='/a b'", "/a b"),
        ('data.root="/a, b"', "/a, b"),
        (r'data.root="a \"b\""', 'a "b"'),
        ("data.root=${runs}/x", "runs/x"),
        ("data.root=null", None),
        ("data.root='null'", "null"),
        ("runs=null", "null"),
        ("runs=", ""),
        ("sites=null", None),
        ("backbone.build.pretrained=true", True),
        ("backbone.build.pretrained=null", None),
        ("data.source.train=2012", "2012"),
        ("adapter.split=32", 32),
        ("adapter.rank=4", 4),
        ("shots=4", 4),
        ("alphas=[0,0.5]", [0, 0.5]),
        ("targets=[blocks.*.attn.[qkv],*.fc1]", ["blocks.*.attn.[qkv]", "*.fc1"]),
        ("targets=[]", []),
        ("unfreeze=[ 'a, b' , 1e3,\"c\",it's]", ["a, b", "1e3", "c", "it's"]),
    ],
)
def test_quotes_null_lists_and_references_keep_their_meaning(argument: str, value: object) -> None:
    assert read("train", argument) == [value]


def test_several_runs_are_compared_as_one_list() -> None:
    assert read("spectra", "run=[runs/été 1,/b=c, '/d, e']") == [["runs/été 1", "/b=c", "/d, e"]]


def test_the_home_folder_may_be_written_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/josé")

    assert read("train", "data.root=~/图片") == ["/home/josé/图片"]
    assert read("spectra", "run=[~/a,~b]") == [["/home/josé/a", "~b"]]
    assert read("train", "data.root='~/a'") == ["~/a"]


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("data.root=/été,/b=c", ["/été", "/b=c"]),
        ("data.root='/a, b',/c", ["/a, b", "/c"]),
        ("data.root=choice('a',b)", ["a", "b"]),
        ("label=1e3,2012_2013", ["1e3", "2012_2013"]),
        ("targets=[a.*,b],[c]", [["a.*", "b"], ["c"]]),
        ("seed=1,2", [1, 2]),
        ("seed=range(1,3)", [1, 2]),
        ("runs=a b", ["a b"]),
        ("runs='a,b'", ["a,b"]),
    ],
)
def test_commas_list_the_values_of_several_runs(argument: str, values: list[object]) -> None:
    assert read("train", argument, multirun=True) == values


def test_groups_and_what_hydra_sets_are_left_alone() -> None:
    typed = ["experiment=quickstart_kra", "method=kra,lora", "+experiment=x", "~evaluation", "hydra.job.name=a,b",
             "hydra/launcher=local", "data@evaluation.sets.dtd=dtd", "optim.lr=1,2"]  # fmt: skip

    assert as_overrides(typed, "train") == typed
    assert as_overrides(["trainer.devices=2", "++trainer.x=1"], "train") == ["++trainer.devices=2", "++trainer.x=1"]


@pytest.mark.parametrize(
    ("verb", "argument", "said"),
    [
        ("train", "overwrite", "'overwrite' sets nothing; a setting is key=value: overwrite=true"),
        ("train", "runs", "runs=..."),
        ("evaluate", "runs/x/seed1", "run=runs/x/seed1"),
        ("train", "data=été", "unknown data 'été': did you mean"),
        ("train", "höhe=1", "unknown key 'höhe': did you mean"),
        ("train", "shots=много", "shots='много': it must be a whole number or null"),
        ("train", "optim.lr=[1", "cannot read 'optim.lr=[1': a list is optim.lr=[a,b]"),
        ("train", "runs=a${oc.env:KEY}", "a config may refer to its own settings"),
    ],
)
def test_what_is_no_setting_is_one_line(verb: str, argument: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_command_line(as_overrides([argument], verb), verb)

    assert said in str(caught.value)
    assert "Lexer" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mes résultats", "a,b", "Kopie (1)", "true", "1e3", "'q'", "it's, [1]"])
def test_the_folder_of_a_study_is_what_its_file_says(name: str) -> None:
    axes = {"backbones": {"vit_s14": []}, "datasets": {"dtd": [f"data_root={name}/d"]}, "methods": {"kra": []}}
    study = Study(**axes, name="s", shots=[4], seeds=[1], runs=name)

    (run,) = plan_runs(study)

    assert (run.folder.parts[0], run.base.data_root) == (str(Path(name)), f"{name}/d")
    (line,) = commands(study, [])
    settings = {key: value for key, _, value in (a.partition("=") for a in shlex.split(line)[3:])}
    assert read("train", f"runs={settings['runs']}", multirun=True) == [name]
    assert read("train", f"data_root={settings['data_root']}", multirun=True) == [f"{name}/d"]
