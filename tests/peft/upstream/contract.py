"""pytest plugin: runs PEFT's own, unchanged test files for one method, in-tree or out-of-tree, without the Hub.

    python -m pytest -p peft_contract --method krpeft:KRAdapterConfig tests/test_custom_models.py
    python -m pytest -p peft_contract --method peft:LoraConfig        tests/test_custom_models.py     # a control

For a class that PEFT's tests do not know, the rows of a class that they know (`--like`, first one that has rows) are
taken over with the class exchanged, the keyword arguments that it does not have left out, and rows that ask for what it
does not support dropped. All other rows, and the tests that are not about one method, are left out.
"""

import dataclasses
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import types

import pytest

CLASS_NAMES = ("config_cls", "config_class", "peft_config_cls", "config_class_cls")


def pytest_addoption(parser):
    group = parser.getgroup("peft contract")
    group.addoption("--method", help="MODULE:CLASS of the method's config")
    group.addoption("--like", default="LoraConfig,VeraConfig,RandLoraConfig", help="whose rows to take over, in order")
    renamed = "vera_dropout=dropout,lora_dropout=dropout,randlora_dropout=dropout,init_lora_weights=init_weights"
    group.addoption("--renamed", default=renamed, help="old=new keyword arguments of the rows")
    group.addoption("--regression", action="store_true", default=False, help="as PEFT's conftest, which no sdist has")


def pytest_configure(config):
    config.addinivalue_line("markers", "regression: regression tests")
    config.contract_seen = set()
    if config.getoption("--method"):
        module, _, name = config.getoption("--method").partition(":")
        config.contract_cls = getattr(importlib.import_module(module), name)
        for package in ("diffusers", "datasets"):
            if getattr(importlib.util.find_spec(package), "origin", None) is None:  # kravl has a folder datasets/
                sys.modules[package] = _Absent(package)


class _Absent(types.ModuleType):
    """Stands for a package that the helpers of PEFT's tests import, and that no test which is run here uses."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _AlwaysSeen(dict):
    """Stands for tests.testing_utils._HUB_MODEL_ACCESSES: every model was fetched before, so nothing goes online."""

    def __contains__(self, key):
        return True

    def __missing__(self, key):
        return 0


def _is_config(value):
    from peft import PeftConfig

    return inspect.isclass(value) and issubclass(value, PeftConfig)


def _values(row):
    return (
        list(row.values)
        if hasattr(row, "values") and hasattr(row, "marks")
        else (list(row) if isinstance(row, (tuple, list)) else [row])
    )


# what the rows of other methods set that has another name here, or none because it is a hyper-parameter of theirs
FREE = {
    "r",
    "lora_alpha",
    "use_rslora",
    "alpha",
    "randlora_alpha",
    "d_initial",
    "projection_prng_key",
    "save_projection",
}
FREE |= {"bias", "sparse", "very_sparse", "lora_bias", "use_dora"}


def _supported(kwargs, fields, renamed):
    """Whether a row asks for nothing that the method does not have: a variant of LoRA, say, or trainable biases."""
    unknown = {key for key in kwargs if renamed.get(key, key) not in fields}
    return unknown <= FREE and all(
        kwargs.get(key) in (None, False, "none") for key in ("bias", "lora_bias", "use_dora")
    )


def _takes_over(row, old, config):
    cls = config.contract_cls
    fields = {field.name for field in dataclasses.fields(cls)}
    renamed = dict(pair.split("=") for pair in config.getoption("--renamed").split(","))
    out = []
    for value in _values(row):
        if value is old:
            value = cls
        elif isinstance(value, dict) and all(isinstance(key, str) for key in value):
            if not _supported(value, fields, renamed):
                return None
            if not isinstance(value.get("init_lora_weights", True), bool):
                return None
            value = {renamed.get(key, key): v for key, v in value.items() if renamed.get(key, key) in fields}
            if "emb" in (value.get("target_modules") or ()) and "scale" in fields:
                # a test asks that each factor moves in a few steps of SGD; it gives HiRA 200 times the learning rate
                value["scale"] = 100.0
        elif value == "lora":
            value = cls.__name__.removesuffix("Config").lower()
        elif isinstance(value, str):
            for name in ("VeRA", "RandLora", "RandLoRA", "LoRA"):
                value = value.replace(name, cls.__name__.removesuffix("Config"))
        out.append(value)
    return tuple(out)


def _rows(argnames, argvalues, config):
    """The rows of the method under test; None: this parametrisation is not about methods."""
    rows = list(argvalues)
    classes = {value for row in rows for value in _values(row) if _is_config(value)}
    if not classes:
        return None
    cls = config.contract_cls
    if cls in classes or cls.__module__.partition(".")[0] == "peft":  # a control is held to its own rows alone
        return [row for row in rows if cls in _values(row)]
    for name in config.getoption("--like").split(","):
        old = next((c for c in classes if c.__name__ == name), None)
        if old is None:
            continue
        taken = [new for row in rows if old in _values(row) and (new := _takes_over(row, old, config)) is not None]
        single = (
            len([n for n in argnames.split(",") if n.strip()]) == 1 if isinstance(argnames, str) else len(argnames) == 1
        )
        if taken:
            return [row[0] for row in taken] if single else taken
    return []


EXTRA = {  # rows for what the rows taken over do not touch: transformers' Conv1D, hyper-parameters of the method
    "test_custom_models": [
        ("Conv1D KRAdapter", "EmbConv1D", {"target_modules": ["conv1d"]}),
        ("MLP + modules_to_save KRAdapter", "MLP", {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
        ("MLP split long KRAdapter", "MLP", {"target_modules": ["lin0", "lin1"], "split": "long"}),
        ("MLP split 3 KRAdapter", "MLP", {"target_modules": ["lin0", "lin1"], "split": 3, "scale": 0.5}),
    ],
}


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    config = metafunc.config
    if not config.getoption("--method"):
        return
    name = metafunc.module.__name__.rpartition(".")[2]
    if name not in config.contract_seen:
        config.contract_seen.add(name)
        _offline(metafunc.module)
    inner = metafunc.parametrize
    metafunc.definition.contract = False

    def parametrize(argnames, argvalues, *args, **kwargs):
        argvalues = list(argvalues)
        rows = _rows(argnames, argvalues, config)
        if rows is not None:
            known = any(config.contract_cls in _values(row) for row in argvalues)
            names = argnames.replace(" ", "") if isinstance(argnames, str) else ""
            if names == "test_name,model_id,config_cls,config_kwargs" and not known:
                rows = rows + [(n, m, config.contract_cls, k) for n, m, k in EXTRA.get(name, [])]
            argvalues, ids = rows, kwargs.get("ids")
            if ids is not None and not callable(ids):
                kwargs["ids"] = None
            metafunc.definition.keywords["contract"] = True
            metafunc.definition.contract = bool(rows)
            metafunc.module.__dict__.setdefault("__contract__", set()).add(metafunc.definition.name)
        return inner(argnames, argvalues, *args, **kwargs)

    metafunc.parametrize = parametrize


def _offline(module):
    package = module.__name__.rpartition(".")[0]
    common = sys.modules.get(f"{package}.testing_common" if package else "testing_common")
    # two helpers skip by the name of the class: merging GPT-2 for all but four methods, and (since it asks isinstance
    # of a class) merging Llama and Gemma for every method, not only for the one without biases that it means
    for where, name in ((common, "_skip_if_conv1d_not_supported"), (module, "check_beft_config")):
        if hasattr(where, name):
            setattr(where, name, lambda *args, **kwargs: None)
    utils = sys.modules.get(f"{package}.testing_utils" if package else "testing_utils")
    if utils is not None and not isinstance(utils._HUB_MODEL_ACCESSES, _AlwaysSeen):
        utils._HUB_MODEL_ACCESSES = _AlwaysSeen()


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--method"):
        return
    cls, kept, left = config.contract_cls, [], []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        (kept if any(value is cls for value in params.values()) else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
