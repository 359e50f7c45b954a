"""What is wrong is told in one line, before the model is changed."""

import copy
import json

import numpy as np
import peft_models
import pytest
import torch
from omegaconf import OmegaConf
from peft import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    LoraConfig,
    LoraModel,
    PeftConfig,
    PeftModel,
    get_peft_model,
)
from peft.utils.error import NoMatchingPeftModuleError
from torch import nn

import kravl.peft
from kravl.peft import KRAdapterConfig, KRAdapterModel, KronAConfig, SinLoRAConfig, hotswap_adapter
from kravl.peft.config import register
from kravl.runtime.errors import InputError


def model_of(**kwargs):
    return get_peft_model(nn.Sequential(nn.Linear(30, 20)), KRAdapterConfig(**{"target_modules": ["0"]} | kwargs))


@pytest.mark.parametrize(
    ("config", "settings", "told"),
    [
        (KRAdapterConfig, {"split": "shrt"}, "unknown split 'shrt': did you mean 'short'?"),
        (KRAdapterConfig, {"split": 0}, "split must be short, long, 2x or a whole number from 1"),
        (KRAdapterConfig, {"split": 2.5}, "split must be str | int, not 2.5"),
        (KRAdapterConfig, {"scale": "2"}, "scale must be a number, not '2'"),
        (KRAdapterConfig, {"scale": float("nan")}, "scale must be a finite number, not nan"),
        (KRAdapterConfig, {"dropout": 1.0}, r"dropout must be a fraction in \[0, 1\), not 1.0"),
        (KRAdapterConfig, {"weights": []}, "weights must be a list of finite numbers"),
        (KRAdapterConfig, {"init_weights": "gaussian"}, "init_weights must be True or False, not 'gaussian'"),
        (KRAdapterConfig, {"layers_pattern": "h"}, "layers_pattern 'h' needs layers_to_transform"),
        (KRAdapterConfig, {"target_modules": "q", "layers_to_transform": 0}, "needs target_modules as a list"),
        (
            KRAdapterConfig,
            {"target_modules": "*.q_proj"},
            r"target_modules '\*.q_proj' is no regular expression \(nothing",
        ),
        (KRAdapterConfig, {"target_modules": 5}, "target_modules must be names or one regular expression, not 5"),
        (KRAdapterConfig, {"exclude_modules": ["q", 1]}, "exclude_modules must be names or one regular expression"),
        (KRAdapterConfig, {"modules_to_save": "lm_head"}, "modules_to_save must be a list of names, not 'lm_head'"),
        (KRAdapterConfig, {"target_modules": ["q"], "layers_to_transform": "0"}, "must be whole numbers, not '0'"),
        (KRAdapterConfig, {"target_modules": ["q"], "layers_to_transform": [True]}, "must be whole numbers, not True"),
        (KRAdapterConfig, {"target_modules": ["q"], "layers_to_transform": np.ones(2)}, "must be whole numbers, not "),
        (KRAdapterConfig, {"target_modules": {"q": 1}}, "target_modules must be names or one regular expression"),
        (KRAdapterConfig, {"target_modules": b"q"}, "target_modules must be names or one regular expression"),
        (KRAdapterConfig, {"kravl_version": "new"}, "kravl_version 'new' is not a version"),
        (SinLoRAConfig, {"rank": 0}, "rank must be a whole number of at least 1, not 0"),
        (SinLoRAConfig, {"rank": "4"}, "rank must be a whole number, not '4'"),
        (KronAConfig, {"factor": 0}, "factor must be a whole number of at least 1, .*, not 0"),
    ],
)
def test_a_wrong_setting_is_told_by_the_config(config, settings, told):
    with pytest.raises(InputError, match=told) as error:
        config(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [OmegaConf.create(["0"]), frozenset({"0"}), ("0",), {"0": 1}.keys(), np.array(["0"])])
@pytest.mark.parametrize("layers", [OmegaConf.create([0]), range(1), np.arange(1), torch.arange(1), {0}, np.int64(0)])
def test_any_collection_of_names_or_layers_is_taken_and_saved(names, layers, tmp_path):
    base = nn.ModuleDict({"h": nn.ModuleList([nn.Sequential(nn.Linear(6, 6)), nn.Sequential(nn.Linear(6, 6))])})
    config = KRAdapterConfig(target_modules=names, layers_to_transform=layers, layers_pattern=OmegaConf.create(["h"]))

    model = get_peft_model(base, config)
    model.save_pretrained(tmp_path)

    assert model.targeted_module_names == ["h.0.0"]
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["target_modules"], saved["layers_pattern"]) == (["0"], ["h"])
    assert saved["layers_to_transform"] == (0 if isinstance(layers, np.int64) else [0])


def test_targets_that_match_nothing_are_told_with_the_nearest():
    base = peft_models.llama()
    names = [name for name, _ in base.named_parameters()]
    with pytest.raises(NoMatchingPeftModuleError, match=r"nearest names to 'qproj' in the model are 'q_proj'"):
        get_peft_model(base, KRAdapterConfig(target_modules=["qproj"]))
    assert [name for name, _ in base.named_parameters()] == names
    with pytest.raises(NoMatchingPeftModuleError, match=r"nearest names to 'all_linear' in the model are 'all-linear'"):
        get_peft_model(base, KRAdapterConfig(target_modules="all_linear"))
    with pytest.raises(NoMatchingPeftModuleError, match="'layers_to_transform': \\[7\\]") as error:
        get_peft_model(base, KRAdapterConfig(target_modules=["q_proj"], layers_to_transform=[7]))
    assert "nearest names" not in str(error.value)


def test_a_target_that_matches_nothing_beside_others_is_told():
    with pytest.warns(UserWarning, match="target_modules: no module of the model is named kproj, qproj"):
        get_peft_model(peft_models.llama(), KRAdapterConfig(target_modules=["qproj", "v_proj", "kproj"]))
    with pytest.warns(UserWarning, match="modules_to_save: no module of the model is named lmhead"):
        get_peft_model(peft_models.llama(), KRAdapterConfig(target_modules=["v_proj"], modules_to_save=["lmhead"]))


@pytest.mark.parametrize("name", ["half", "parameters", "a.b"])
def test_a_name_that_no_module_can_have_is_refused_before_anything_is_changed(name):
    model = model_of()
    before = [key for key, _ in model.named_parameters()]
    with pytest.raises(InputError, match=f"named? .*'{name}'"):
        model.add_adapter(name, KRAdapterConfig(target_modules=["0"]))
    with pytest.raises(InputError, match=f"named? .*'{name}'"):
        model.add_weighted_adapter(["default"], [1.0], name)
    assert [key for key, _ in model.named_parameters()] == before
    assert set(model.peft_config) == {"default"}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: nn.LayerNorm(4), "target module '0' is a LayerNorm; KRADAPTER adapts nn.Linear"),
        (lambda: nn.Embedding(4, 4, max_norm=1.0), "max_norm rewrites its weight"),
        (lambda: nn.MultiheadAttention(4, 1, kdim=3), "no packed weight to adapt"),
        (lambda: nn.Linear(0, 4), "Linear.weight is 4 x 0: there is nothing to adapt"),
    ],
)
@pytest.mark.filterwarnings("ignore:Unsupported layer type", "ignore:Initializing zero-element")
def test_a_layer_that_cannot_be_adapted_is_refused(make, told):
    with pytest.raises(InputError, match=told):
        get_peft_model(nn.Sequential(make()), KRAdapterConfig(target_modules=["0"]))


def test_more_parameters_than_the_weight_are_told():
    with pytest.warns(UserWarning, match="adapters with more parameters than the weight that they adapt: 0"):
        get_peft_model(nn.Sequential(nn.Linear(1, 1)), KRAdapterConfig(target_modules=["0"]))


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_of_another_base_is_refused(tmp_path):
    model_of().save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=r"belongs to another base .* is \(20, 4\) in the file and \(24, 4\) here, on a"
    ):
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(30, 24)), tmp_path)
    with pytest.warns(UserWarning, match="found shape"):
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(30, 24)), tmp_path, ignore_mismatched_sizes=True)


def test_updates_of_layers_that_the_base_lacks_are_told(tmp_path):
    base, config = peft_models.llama(), KRAdapterConfig(target_modules=["q_proj"])
    shallow = copy.deepcopy(base)
    del shallow.model.layers[1]
    get_peft_model(base, config).save_pretrained(tmp_path)
    told = r"belongs to another base: the model has no base_model.model.model.layers.1.self_attn.q_proj$"
    with pytest.warns(UserWarning, match=told):
        PeftModel.from_pretrained(shallow, tmp_path)


def test_a_config_of_a_later_release_is_told(tmp_path):
    model_of().save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kravl_version": "99.0", "twist": 3}))

    with pytest.warns(UserWarning) as told:
        PeftModel.from_pretrained(nn.Sequential(nn.Linear(30, 20)), tmp_path)

    messages = [str(warning.message) for warning in told]
    assert any("'twist'" in message for message in messages)  # PEFT's
    assert any("saved by kravl 99.0" in message and "pip install -U kravl" in message for message in messages)


def test_mixed_batches_are_checked():
    model, x = model_of(init_weights=False), torch.randn(2, 30)
    with pytest.raises(InputError, match="cannot be used in training mode"):
        model.train()(x, adapter_names=["default", "default"])
    model.eval()
    with pytest.raises(InputError, match="unknown adapter in adapter_names 'defalt': did you mean 'default'"):
        model(x, adapter_names=["default", "defalt"])
    with pytest.raises(InputError, match="has 1 entries for a batch of 2"):
        model(x, adapter_names=["default"])
    with pytest.raises(InputError, match="must be a list with a name for each sample, not 'default'"):
        model(x, adapter_names="default")
    model.merge_adapter()
    with pytest.raises(InputError, match=r"call unmerge_adapter\(\) first"):
        model(x, adapter_names=["default", "__base__"])


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_an_update_that_is_not_finite_is_not_merged_and_nothing_else_is(merge):
    base = nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 30))
    model = get_peft_model(base, KRAdapterConfig(target_modules=["0", "1"], init_weights=False))
    before = copy.deepcopy(model.state_dict())
    bad = model.base_model.model[1].adapters("default")["weight"].u
    bad.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="The adapter default seems to be broken"):
        getattr(model, merge)(safe_merge=True)
    bad.data.copy_(before["base_model.model.1.kradapter_factors.default.u"])
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer.merged for layer in model.base_model.model)


def test_merging_an_unknown_adapter_is_told():
    model = model_of()
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(InputError, match="unknown adapter 'defalt': did you mean 'default'"):
            merge(adapter_names=["defalt"])
    assert not model.base_model.model[0].merged


def test_merging_into_a_weight_that_another_module_shares_is_told():
    model = get_peft_model(peft_models.gpt2(), KRAdapterConfig(target_modules=["wte"], init_weights=False))
    with pytest.warns(UserWarning, match=r"^transformer.wte and lm_head share one weight: merging adds each update to"):
        model.merge_adapter()


def test_sums_of_adapters_that_do_not_fit_are_refused():
    model = model_of()
    model.add_adapter("long", KRAdapterConfig(target_modules=["0"], split="long"))
    for arguments, told in [
        ((["default", "lng"], [1, 1], "s"), "unknown adapter 'lng': did you mean 'long'"),
        ((["default", "long"], [1, 1], "s"), "adapters with split 'short' and 'long' cannot be summed"),
        ((["default"], [1, 1], "s"), "1 adapters and 2 weights"),
        ((["default"], [1], "long"), "there is an adapter 'long' already"),
        ((["default"], ["1"], "s"), r"weights must be finite numbers, not \['1'\]"),
        ((["default"], [1], "s", "svd"), "unknown combination_type 'svd'"),
    ]:
        with pytest.raises(InputError, match=told):
            model.add_weighted_adapter(*arguments)
        assert set(model.peft_config) == {"default", "long"}


def test_an_exchange_for_another_kind_is_refused(tmp_path):
    model = model_of(init_weights=False)
    before = copy.deepcopy(model.state_dict())
    plain = nn.Sequential(nn.Linear(30, 20))
    others = {
        "lora": (LoraConfig(target_modules=["0"]), "is a LORA adapter, the model's is KRADAPTER"),
        "scale": (KRAdapterConfig(target_modules=["0"], scale=1.0), "has scale 1.0, the adapter in the model 2.0"),
    }
    for name, (config, told) in others.items():
        get_peft_model(copy.deepcopy(plain), config).save_pretrained(tmp_path / name)
        with pytest.raises(InputError, match=told):
            hotswap_adapter(model, str(tmp_path / name))
    get_peft_model(nn.Sequential(nn.Linear(30, 24)), KRAdapterConfig(target_modules=["0"])).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is \(24, 4\) in .* and \(20, 4\) here"):
        hotswap_adapter(model, str(tmp_path))
    with pytest.raises(InputError, match="unknown adapter 'defalt'"):
        hotswap_adapter(model, str(tmp_path), "defalt")
    with pytest.raises(InputError, match="in a PeftModel, not in a Sequential"):
        hotswap_adapter(plain, str(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.merge_adapter()
    with pytest.raises(InputError, match="is merged"):
        hotswap_adapter(model, str(tmp_path))


def test_loading_before_the_import_is_the_key_error_that_the_docs_explain(tmp_path, monkeypatch):
    model_of().save_pretrained(tmp_path)
    monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, "KRADAPTER")
    with pytest.raises(KeyError, match=r"^'KRADAPTER'$"):
        PeftConfig.from_pretrained(tmp_path)

    register(KRAdapterModel)  # as the import does

    assert PeftConfig.from_pretrained(tmp_path).split == "short"


def test_a_peft_that_has_the_method_itself_keeps_it(monkeypatch, caplog):
    for name, mapping in (("config", PEFT_TYPE_TO_CONFIG_MAPPING), ("tuner", PEFT_TYPE_TO_TUNER_MAPPING)):
        monkeypatch.setitem(mapping, "KRADAPTER", LoraConfig if name == "config" else LoraModel)

    register(KRAdapterModel)

    assert PEFT_TYPE_TO_CONFIG_MAPPING["KRADAPTER"] is LoraConfig
    assert PEFT_TYPE_TO_TUNER_MAPPING["KRADAPTER"] is LoraModel
    assert "PEFT has a method KRADAPTER of its own" in caplog.text
    with pytest.raises(InputError, match=r"peft [\d.]+ has a method KRADAPTER of its own, .*: use peft's"):
        KRAdapterConfig()
    SinLoRAConfig()


def test_the_registered_methods_are_found_by_name():
    for name in ("KRADAPTER", "SINLORA", "KRONA", "KRALORA"):
        config = PeftConfig.from_peft_type(peft_type=name, task_type=None)
        assert type(config).__module__.startswith("kravl.peft.")
        assert config.peft_type.value == name
    assert kravl.peft.KRAdapterConfig().peft_type == "KRADAPTER"
