"""A study's file is read whole, or refused in one line that names the nearest."""

from pathlib import Path

import pytest

from kravl.runtime.errors import InputError
from kravl.study.grid import plan_runs
from kravl.study.schema import read_study

SHIPPED = sorted((Path(__file__).parents[2] / "experiments/studies").glob("*.yaml"))
WHOLE = "name: s\nbackbones: [vit_s14]\ndatasets: [dtd]\nmethods: [kra, lora]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(text)
    return path


def test_a_name_has_settings_of_its_own_or_none(tmp_path: Path) -> None:
    text = WHOLE.replace("[kra, lora]", '{kra: null, lora_r4: [method=lora, "adapter.rank=${backbone.lora.rank}"]}')

    study = read_study(written(tmp_path, text + "shots: [4, null]\n"))

    assert study.methods == {"kra": [], "lora_r4": ["method=lora", "adapter.rank=${backbone.lora.rank}"]}
    assert (study.datasets, study.shots, study.seeds, study.folder) == ({"dtd": []}, [4, None], [1, 2, 3], "runs/s")


def test_lists_from_outside_replace_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE + "shots: [4]\n")

    study = read_study(path, ["optim.lr=1", "shots=1,null", "seed=7", "seed=8,9"])

    assert (study.shots, study.seeds) == ([1, None], [8, 9])
    assert len(plan_runs(study, ["shots=1,null", "seed=8,9"])) == 2 * 2 * 2
    assert read_study(path, ["seed=[3, 4]"]).seeds == [3, 4]
    with pytest.raises(InputError, match="shots is empty"):
        read_study(path, ["shots="])


@pytest.mark.parametrize(
    "change", ["shots=four", "shots=]", "seed=[1", "seed=1,,2", "seed=*x", "seed=!!python/name:os.system", "seed=1e3",
               "seed=" + "[" * 500, "seed=${oc.env:HOME}", "seed={a: 1}", "seed=1\n2", "shots=true", "seed=1.0"],
)  # fmt: skip
def test_a_list_from_outside_is_numbers_and_nothing_else(tmp_path: Path, change: str) -> None:
    with pytest.raises(InputError, match="is no whole number; a list is") as caught:
        read_study(written(tmp_path, WHOLE), [change])

    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("methods", "mehtods"), "unknown key in FILE 'mehtods': did you mean 'methods'?"),
        (("[kra, lora]", "[kra, lora, kra]"), "FILE: methods names 'kra' twice"),
        (("[kra, lora]", "{kra: [], kra: [optim.lr=1]}"), "FILE is not readable as YAML: .*duplicate key kra"),
        (("[kra, lora]", "[]"), "FILE: methods is empty"),
        (("[kra, lora]", "{a/b: [method=kra]}"), "FILE: methods 'a/b' is not a folder name"),
        (("[kra, lora]", "{<b>&: [method=kra]}"), "FILE: methods '<b>&' is not a folder name"),
        (("[kra, lora]", "{zero-shot: [method=kra]}"), "methods: 'zero-shot' is what tables call"),
        (("[kra, lora]", "{kra: [optim.lr]}"), "'kra' of methods sets 'optim.lr', which is not key=value"),
        (("[kra, lora]", "{kra: [seed=4]}"), "'kra' of methods sets seed, which the study itself decides"),
        (("name: ", "settings: [method=lora]\nname: "), "sets method, which the study itself decides"),
        (("[kra, lora]", "{kra: optim.lr=1}"), "FILE: .*optim.lr=1"),
        (("[kra, lora]", "[[kra]]"), "FILE: methods has ['kra'], which is list; write it as text"),
        (("[kra, lora]", "[{kra: []}]"), "FILE: methods has {'kra': []}, which is dict"),
        (("[kra, lora]", "{1: [method=kra]}"), "FILE: methods has 1, which is int; write it as text"),
        (("[kra, lora]", "kra"), "FILE: methods is kra; it must be a list of names"),
        (("[kra, lora]", "{kra: [optim.lr=1, optim.lr=2]}"), "'kra' of methods sets optim.lr twice"),
        (("name: s", "settings: {}\nname: s"), "FILE: settings is {}; it must be a list, such as [optim.lr=1e-3]"),
        (("name: s", "shots: 2\nname: s"), "FILE: shots is 2; it must be a list, such as [1, 2, 3]"),
        (("name: s", "seeds: [true]\nname: s"), "FILE: seeds has True; each must be a whole number"),
        (("name: s", "seeds: [null]\nname: s"), "FILE: seeds has null; each must be a whole number"),
        (("name: s", "runs: [a]\nname: s"), "FILE: runs is ['a']; it must be text"),
        (("name: s", "seeds: !!bool abc\nname: s"), "FILE is not readable as YAML: a value is not what its tag says"),
        (("name: s", "name: ../s"), "FILE: name '../s' is not a folder name"),
        (("name: s", "shots: [four]"), "FILE: .*four"),
        (("name: s", "baseline: lroa\nname: s"), "unknown baseline in FILE 'lroa': did you mean 'lora'?"),
        (("name: s\n", ""), "FILE has no name"),
        ((WHOLE, "- a\n"), "FILE is not a mapping"),
        ((WHOLE, "a: [b\n"), "FILE is not readable as YAML"),
    ],
)
def test_what_is_wrong_in_a_study_is_one_line(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = written(tmp_path, WHOLE.replace(*change))

    with pytest.raises(InputError, match=message.replace("FILE", str(path)).replace("[", r"\[")) as caught:
        read_study(path)

    assert "\n" not in str(caught.value)


def test_zero_shot_may_be_the_baseline(tmp_path: Path) -> None:
    assert (
        read_study(written(tmp_path, WHOLE.replace("name: s", "baseline: zero-shot\nname: s"))).baseline == "zero-shot"
    )


def test_a_file_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path, WHOLE)

    with pytest.raises(InputError, match=r"no study '.*z\.yaml': did you mean '.*s\.yaml'"):
        read_study(tmp_path / "z.yaml")
    with pytest.raises(InputError, match=r"no study '.*tiny': did you mean '.*studies/tiny\.yaml'"):
        read_study(tmp_path / "tiny")
    with pytest.raises(InputError, match=r"is a folder; name one of its studies: .*/s\.yaml"):
        read_study(tmp_path)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_study_is_named_like_its_file_and_says_what_it_asks(path: Path) -> None:
    study = read_study(path)

    assert study.name == path.stem
    assert study.question
    assert study.baseline is not None or path.stem.endswith("_rates")  # which compares settings, not methods
