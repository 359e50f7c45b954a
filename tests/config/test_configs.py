"""Every shipped config composes, names what exists, and builds."""

import itertools
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kravl.adapters.base import Adapter
from kravl.adapters.injection.sites import select_sites
from kravl.backbones.classifier import Classifier
from kravl.config.compose import check_command_line, register_configs
from kravl.config.instantiate import build, resolve
from kravl.config.quoting import as_overrides
from kravl.config.schema import CONFIGS, EvaluateConfig
from kravl.data.source import Source
from kravl.runtime.errors import InputError, require_name
from kravl.training.trainer import make_trainer

SHOTS = (1, 4, 16)
METHODS = ("kra", "lora", "randlora", "full", "linear_probe", "zeroshot")


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@cache
def composed(*overrides: str, config: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(config, list(overrides))


@cache
def encoder(backbone: str) -> torch.nn.Module:
    """The backbone's module without memory for its weights: names and shapes are all that is asked of it."""
    import open_clip

    from kravl.backbones import tiny

    build_node = composed(f"backbone={backbone}").backbone.build
    with torch.device("meta"):
        if build_node._target_.endswith("ClipClassifier"):
            tiny.register()
            return open_clip.model.CLIP(**open_clip.get_model_config(build_node.name))
        return timm.create_model(build_node.name, num_classes=3)


@pytest.mark.parametrize("name", names("adapter"))
def test_an_adapter_builds(name):
    adapter = build(OmegaConf.to_container(composed(f"adapter={name}").adapter, resolve=True), Adapter)(24, 16)
    assert adapter.delta_weight().shape == (24, 16)


@pytest.mark.parametrize("backbone", ["clip_vitb32", "vit_s14"])
@pytest.mark.parametrize("method", names("method"))
def test_a_method_is_named_like_its_file_and_asks_for_presets_that_backbones_have(method, backbone):
    cfg = composed(f"backbone={backbone}", f"method={method}")

    assert cfg.method == method
    assert cfg.sites is None or cfg.sites in cfg.backbone.sites
    assert list(cfg.unfreeze) in ([], ["*"], *cfg.backbone.parameters.values())
    resolve(OmegaConf.to_container(cfg.adapter, resolve=True), Adapter)


@pytest.mark.parametrize("backbone", names("backbone"))
def test_every_preset_of_a_backbone_matches_its_model(backbone):
    cfg = composed(f"backbone={backbone}")
    model = encoder(backbone)
    parameters = [name for name, _ in model.named_parameters()]

    assert {"vision", "both", "cliplora", "all"} <= cfg.backbone.sites.keys()
    assert {"norms", "biases", "last_two_blocks"} <= cfg.backbone.parameters.keys()
    for patterns in cfg.backbone.sites.values():
        assert select_sites(model, patterns)
    for pattern in itertools.chain(*cfg.backbone.parameters.values()):
        assert any(fnmatchcase(name, pattern) for name in parameters), pattern


@pytest.mark.parametrize("backbone", names("backbone"))
def test_the_comparable_lora_spends_what_kradapter_spends(backbone):
    def count(method: str) -> int:
        cfg = composed(f"backbone={backbone}", f"method={method}")
        make = build(OmegaConf.to_container(cfg.adapter, resolve=True), Adapter)
        sites = select_sites(encoder(backbone), cfg.backbone.sites.both)
        return sum(p.numel() for site in sites for p in make(*site.weight.shape).parameters())

    assert count("lora") == pytest.approx(count("kra"), rel=0.04)


@pytest.mark.parametrize("backbone", names("backbone"))
def test_a_backbones_settings_are_those_of_its_class(backbone):
    cfg = composed(f"backbone={backbone}")
    assert cfg.backbone.name == backbone
    build(OmegaConf.to_container(cfg.backbone.build, resolve=True), Classifier)


OWN = {  # a set of one's own -> where it is, and what it is called
    "folder": ("data.root=/photos/train", "photos"),
    "table": ("data.file=/photos/list.csv", "photos_list"),
    "hf": ("data.source.path=owner/pets", "owner_pets"),
}


@pytest.mark.parametrize("data", names("data"))
def test_a_data_set_is_named_like_its_file_and_its_settings_are_those_of_its_class(data):
    place, name = OWN.get(data, ("data.classes=all", data))
    cfg = composed(f"data={data}", place)
    assert cfg.data.name == name
    build(OmegaConf.to_container(cfg.data.source, resolve=True), Source, templates=cfg.data.templates)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (["folder", "data.root=/home/josé/my photos/"], "my_photos"),
        (["folder", "data.root=/home/jose\u0301"], "josé"),
        (["folder", "data.root=/a/pets/images"], "pets"),
        (["folder", "data.root=photos", "data.train=Train"], "photos"),
        (["folder", "data.root=photos", "data.train=train_small"], "photos_train_small"),
        (["folder", "data.root=/a/.hidden"], "hidden"),
        (["folder", "data.root=/"], "own"),
        (["folder", "data.root=/a/b", "data.name=mine"], "mine"),
        (["table", "data.file=/a/b/c.jsonl"], "b_c"),
        (["hf", "data.source.path=owner/pets", "data.source.config=small"], "owner_pets_small"),
    ],
)
def test_a_set_of_ones_own_is_named_after_its_place(settings, name):
    cfg = composed(*as_overrides([f"data={settings[0]}", *settings[1:]], "train"))
    assert cfg.data.name == require_name("data.name", name)
    assert cfg.name.endswith(f"_{name}")


def test_the_place_of_a_set_is_asked_for():
    with pytest.raises(InputError, match=r"^no value for 'data\.source\.path'; give it as data\.source\.path="):
        check_command_line(["data=hf"], "train")


@pytest.mark.parametrize("evaluation", names("evaluation"))
def test_an_evaluation_is_named_like_its_file_and_its_sets_build(evaluation):
    settings = (f"evaluation={evaluation}", f"evaluation.root=/{evaluation}")  # the folder of one's own
    cfg = composed(*settings)
    assert cfg.evaluation.name == evaluation
    for node in cfg.evaluation.sets.values():
        plain = OmegaConf.to_container(node, resolve=True)
        build(plain.get("source") or plain, Source)
    later = composed("run=x", *settings, config="evaluate")
    assert OmegaConf.to_container(later.evaluation) == OmegaConf.to_container(cfg.evaluation)


@pytest.mark.parametrize("trainer", names("trainer"))
def test_a_trainer_builds(trainer, tmp_path: Path):
    settings = composed(f"trainer={trainer}").trainer
    assert make_trainer(settings, {"max_epochs": 1}, tmp_path, logger=False).max_epochs == 1


@pytest.mark.parametrize("experiment", names("experiment"))
def test_a_shipped_experiment_composes(experiment):
    cfg = composed(f"experiment={experiment}")
    resolve(OmegaConf.to_container(cfg.adapter, resolve=True), Adapter)
    assert cfg.name


@pytest.mark.parametrize("backbone", ["clip_vitb32", "clip_vitb16", "clip_vitl14"])
def test_the_grid_of_experiments_composes(backbone):
    grid = [f"{backbone}_{method}_{shots}shot" for method, shots in zip(METHODS, SHOTS * 2, strict=True)]
    register_configs(grid)
    for name in grid:
        cfg = composed(f"experiment={name}")
        assert (cfg.backbone.name, cfg.name) == (backbone, name)
        assert name == f"{backbone}_{cfg.method}_{cfg.shots}shot"


def test_a_config_file_with_a_misspelt_key_is_refused():
    # without a schema Hydra would take the key and no line would ever read it
    with pytest.raises(Exception, match="Key 'lrr' not in 'Optim'"):
        OmegaConf.merge(composed(), {"optim": {"lrr": 1}})


def test_the_schema_of_an_evaluation_is_its_own():
    assert set(composed("run=x", config="evaluate")) == set(OmegaConf.structured(EvaluateConfig))
