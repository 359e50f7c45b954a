"""Every setting has its bounds, and what lies beyond them is one line with the value and the legal ones, at once."""

import inspect
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError
from pytorch_lightning import Trainer

from kravl.config.bounds import LARGE, SEED, SHARE, whole
from kravl.config.checks import check_bounds
from kravl.config.compose import check_command_line, compose_checked, composing, register_configs
from kravl.config.quoting import TARGET, _parameters, as_overrides
from kravl.config.schema import CONFIGS, OF_CLASSES, OF_TRAINER, SCHEMAS, Config
from kravl.data.datamodule import EVALUATION_CLASSES
from kravl.data.fewshot import PROTOCOLS, SHORT_CLASSES
from kravl.data.loading.transforms import AUGMENTATIONS, ENGINES
from kravl.runtime.errors import InputError
from kravl.tracking.kinds import KINDS

NEVER = (float("nan"), float("inf"), float("-inf"), 1e300, True, "", "x", [1])
ODD = ("-1", "nan", "inf", "1e400", "9" * 20, "9" * 5000, "true", "", "[]", "{a: 1}", "0x10", "\0", "\udce9", "1.5")


def numbers(schema: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Dotted key and field of every setting that is a number."""
    hints = get_type_hints(schema)
    for each in fields(schema):
        if is_dataclass(hints[each.name]):
            yield from numbers(hints[each.name], f"{prefix}{each.name}.")
        elif {int, float} & {hints[each.name], *get_args(hints[each.name])} and "dict" not in str(hints[each.name]):
            yield f"{prefix}{each.name}", each


SETTINGS = {(verb, key): each for verb, schema in SCHEMAS.items() for key, each in numbers(schema)}


@pytest.fixture(scope="module")
def configs() -> dict[str, Any]:
    register_configs()
    with composing():
        return {
            "train": compose_checked(["data=digits"], "train"),
            "approximate": compose_checked([], "approximate"),
        }


@pytest.mark.parametrize(("verb", "key"), SETTINGS, ids=str)
def test_every_number_is_bounded_and_nothing_odd_is_one(verb: str, key: str, configs: dict[str, Any]) -> None:
    bounds = SETTINGS[verb, key].metadata.get("bounds") or SETTINGS[verb, key].metadata["each"]
    ends = (bounds.low, bounds.high) if bounds.whole else (float(bounds.low), float(bounds.high))
    in_list = "each" in SETTINGS[verb, key].metadata and not SETTINGS[verb, key].metadata.get("bounds")
    listed = {"shape": 2}.get(key, 1)

    for value in (*NEVER, ends[0] - 1 if bounds.whole else ends[0] * 2 - 1, ends[1] * 10 + 1):
        changed = configs[verb].copy()
        with pytest.raises((InputError, ValidationError)):
            OmegaConf.update(changed, key, [value] * listed if in_list else value)
            check_bounds(changed)
    for value, excluded in zip(ends, (bounds.low_open, bounds.high_open), strict=True):
        changed = configs[verb].copy()
        OmegaConf.update(changed, key, [value] * listed if in_list else value)
        if not excluded:
            check_bounds(changed)


@pytest.mark.parametrize("key", ["loading.batch_size", "adapter.dropout"])
def test_an_odd_value_is_one_line_of_the_command(key: str) -> None:
    for odd in ODD:
        with pytest.raises(InputError) as caught:
            check_command_line(as_overrides([f"{key}={odd}", "method=lora"], "train"), "train")

        assert "\n" not in str(caught.value)
        assert key in str(caught.value)
        assert len(str(caught.value)) < 300


def test_the_line_has_the_value_and_the_legal_ones() -> None:
    lines = {
        "seed=-1": "seed=-1: it must be a whole number of at least 0 and at most 4,294,967,295",
        "optim.min_lr_ratio=2": "optim.min_lr_ratio=2.0: it must be a number of at least 0 and at most 1",
        "fraction=0": "fraction=0.0: it must be a number above 0 and at most 1",
        "adapter.dropout=1": "adapter.dropout=1: it must be a number of at least 0 and below 1",
        "adapter.rank=1.5": "adapter.rank=1.5: it must be a whole number of at least 1 and at most 1,000,000,000",
        "split_protocol=cop": "unknown split_protocol 'cop': did you mean 'coop'? (cliplora, coop, lineage, official",
        "alphas=[0,0.5]": "alphas=[0, 0.5]: 1 must be among them",
        "checkpointing=-1": "checkpointing=-1: it must be true or false",
        "loading.min_batches=-1": "loading.min_batches=-1: it must be a whole number of at least 1",
        "alphas=[]": "alphas=[]: it must have a number, a number of at least 0 and at most 1",
        "runs=": "runs='' is no folder; give one, such as runs=runs",
        "study=": "study= is empty; leave it out, or give a value",
        "label=../x": "label '../x' is not a folder name",
    }
    for argument, line in lines.items():
        with pytest.raises(InputError) as caught:
            check_command_line(as_overrides([argument, "method=lora"], "train"), "train")
        assert str(caught.value).startswith(line)


def test_every_value_of_a_sweep_is_checked() -> None:
    for sweep, line in {
        "seed=1,2,-3": "seed=-3: it must be",
        "adapter.rank=4,0": "adapter.rank=0: it must be",
        "optim.lr=1e-3,fast": "optim.lr=fast: it must be a number",
        "seed=range(-2,4)": "seed=-2: it must be",
        "optim.lr=interval(-1,1)": "optim.lr=-1",
        "experiment=glob(nothing*)": "experiment=glob(nothing*) matches no file of configs/experiment",
    }.items():
        with pytest.raises(InputError) as caught:
            check_command_line([sweep, "method=lora"], "train", multirun=True)
        assert str(caught.value).startswith(line)
    check_command_line(["seed=1,2", "method=lora", "adapter.rank=4,8"], "train", multirun=True)


def test_a_choice_of_files_is_a_name() -> None:
    """Hydra fails at each of them with an error of its own."""
    choices = (
        "data=0",
        "data=nan",
        "data=null",
        "method=true",
        "data={a: 1}",
        "data=[1,digits]",
        "+data=5",
        "data@x=5",
    )
    swept = ("backbone=1,vit_s14", "evaluation=range(1,3)", "evaluation=interval(1,3)")
    for argument in (*choices, "data=a\ud800", "hydra/launcher=5", *swept):
        with pytest.raises(
            InputError, match=f"^unknown {argument.lstrip('+').partition('=')[0].partition('@')[0]} ['\"]"
        ):
            check_command_line(as_overrides([argument], "train", True), "train", multirun=True)


def test_every_number_that_a_class_or_the_trainer_takes_is_bounded_by_name() -> None:
    targets = {t for file in CONFIGS.glob("*/*.yaml") for t in TARGET.findall(file.read_text(encoding="utf-8"))}
    taken = {
        name
        for target in targets
        for name, types in _parameters(target).items()
        if types & {"int", "float", "Sequence[float]"} and name not in ("out_features", "in_features", "mean")
    }
    legal = inspect.signature(Trainer).parameters
    by_trainer = {
        name
        for name, parameter in legal.items()
        if "int" in str(parameter.annotation) or "float" in str(parameter.annotation)
    }

    assert taken <= set(OF_CLASSES)
    elsewhere = {"max_epochs", "min_epochs", "max_steps", "min_steps", "fast_dev_run", "precision", "max_time",
                 "plugins"}  # fmt: skip
    assert by_trainer - elsewhere == set(OF_TRAINER)


def test_the_words_of_the_schema_are_those_that_the_parts_know() -> None:
    words = {each.name: set(each.metadata["choices"]) for each in fields(Config) if each.metadata.get("choices")}
    hints = get_type_hints(Config)
    of_part = {
        f"{part}.{each.name}": set(each.metadata["choices"])
        for part in ("data", "evaluation", "loading")
        for each in fields(hints[part])
        if each.metadata.get("choices")
    }

    assert words["split_protocol"] == set(PROTOCOLS)
    assert words["short_classes"] == set(SHORT_CLASSES)
    assert words["tracking"] == set(KINDS)
    assert of_part["evaluation.classes"] == set(EVALUATION_CLASSES)
    assert of_part["data.transforms"] == set(ENGINES)
    assert of_part["loading.augmentation"] == set(AUGMENTATIONS)


def test_bounds_say_what_they_allow() -> None:
    assert SHARE.allow(0) and SHARE.allow(1.0) and not SHARE.allow(1.01)
    assert SEED.allow(2**32 - 1) and not SEED.allow(2**32) and not SEED.allow(1.0)
    assert not whole(1).allow(0) and not whole(1).allow(True)
    assert not SHARE.allow(float("nan"))
    assert float("inf") > LARGE
