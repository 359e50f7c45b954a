"""Every shipped config composes, names what exists, and builds."""

import re
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from kravl.adapters.base import Adapter
from kravl.adapters.injection.sites import select_sites
from kravl.adapters.kra import KRAdapter
from kravl.adapters.lora import LoRA
from kravl.backbones.classifier import Classifier
from kravl.backbones.clip import ClipClassifier
from kravl.backbones.structure.presets import KINDS_OF, PARAMETERS, TOWERS_OF, select, select_parameters, select_roles
from kravl.backbones.structure.roles import roles
from kravl.backbones.weights.clip_weights import untrained_clip
from kravl.config.compose import as_written, check_command_line, register_configs
from kravl.config.instantiate import build, resolve
from kravl.config.quoting import as_overrides
from kravl.config.schema import CONFIGS, EvaluateConfig
from kravl.data.source import Source
from kravl.run.placement import comparable_lora
from kravl.runtime.errors import InputError, require_name
from kravl.tracking.former_presets import PARAMETERS as FORMER_PARAMETERS
from kravl.tracking.former_presets import RANKS, SITES
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
    node = OmegaConf.to_container(composed(f"backbone={backbone}").backbone.build, resolve=True)
    cls = resolve(node, Classifier)
    # a tokenizer, which may need an extra, says nothing of matrices
    model = untrained_clip(node["name"]) if cls is ClipClassifier else cls.skeleton(3, node)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    return model


@pytest.mark.parametrize("name", names("adapter"))
def test_an_adapter_builds(name):
    adapter = build(OmegaConf.to_container(composed(f"adapter={name}").adapter, resolve=True), Adapter)(24, 16)
    assert adapter.delta_weight().shape == (24, 16)


@pytest.mark.parametrize("method", names("method"))
def test_a_method_is_named_like_its_file_and_asks_for_presets_that_there_are(method):
    cfg = composed(f"method={method}")

    assert cfg.method == method
    assert cfg.sites is None or cfg.sites in KINDS_OF
    assert list(cfg.unfreeze) in ([], ["*"], *([preset] for preset in PARAMETERS))
    resolve(OmegaConf.to_container(cfg.adapter, resolve=True), Adapter)


SIZE = re.compile(r"_?(?:vit)?(tiny|[sbl]|so400m|h|g|e|bigg|7b)\d+(?:_\d+)?")
SIZES = ("tiny", "s", "b", "l", "so400m", "h", "g", "e", "bigg", "7b")


def families() -> list[str]:
    """The smallest of the shipped backbones of each family: its sizes differ in numbers alone."""
    found: dict[str, tuple[int, str]] = {}
    for name in names("backbone"):
        size = SIZE.search(name)
        ranked = (SIZES.index(size[1]) if size else 0, name)
        family = SIZE.sub("", name)
        found[family] = min(found.get(family, ranked), ranked)
    return [name for _, name in found.values()]


@pytest.mark.parametrize("backbone", families())
def test_every_preset_finds_its_sites_and_parameters_in_a_shipped_backbone(backbone):
    model = encoder(backbone)
    of_model = ("image", "text") if hasattr(model, "encode_text") else ("image",)
    all_roles = roles(model)
    chosen = {preset: select_roles(all_roles, preset) for preset in KINDS_OF if preset != "text" or len(of_model) > 1}

    for preset, of_preset in chosen.items():
        assert {role.tower for role in of_preset} == set(TOWERS_OF.get(preset, of_model))
    for preset in ("all", "cliplora"):
        assert len(select_sites(model, [role.name for role in chosen[preset]])) == len(chosen[preset])
    assert all(select_parameters(model, preset) for preset in PARAMETERS)
    lora = partial(LoRA, **comparable_lora([role.shape for role in chosen["both"]]))
    assert parameters_of(lora, chosen["both"]) == pytest.approx(parameters_of(KRAdapter, chosen["both"]), rel=0.04)


def parameters_of(make, chosen) -> int:
    with torch.device("meta"):
        sizes = {shape: sum(p.numel() for p in make(*shape).parameters()) for shape in {r.shape for r in chosen}}
    return sum(sizes[role.shape] for role in chosen)


@pytest.mark.parametrize("backbone", RANKS)
def test_presets_choose_what_the_patterns_of_earlier_releases_chose(backbone):
    model = encoder(backbone)
    family = 0 if hasattr(model, "encode_text") else 1  # of patterns: OpenAI's names, timm's names
    parameters = [name for name, _ in model.named_parameters()]

    for preset, former in SITES.items():
        if family < len(former):
            assert select(model, preset) == [site.name for site in select_sites(model, former[family])]
    matched = {
        preset: [[n for n in parameters if any(fnmatchcase(n, p) for p in patterns)] for patterns in former]
        for preset, former in FORMER_PARAMETERS.items()
    }
    assert all(select_parameters(model, preset) in lists for preset, lists in matched.items())


@pytest.mark.parametrize("backbone", RANKS)
def test_the_comparable_lora_is_that_of_earlier_releases(backbone):
    whole = [role.shape for role in select_roles(roles(encoder(backbone)), "both")]
    assert comparable_lora(whole) == {"rank": RANKS[backbone], "alpha": 2 * RANKS[backbone]}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (["backbone=clip_vitb16"], "clip_vitb16"),
        (["backbone=clip_vitb16", "+backbone.build.quick_gelu=true"], "clip_vitb16"),
        (["backbone=clip_vitb16", "backbone.build.name=RN50"], "rn50_openai"),
        (["backbone=clip_vitb16", "backbone.build.pretrained=laion400m_e32"], "vit_b_16_laion400m_e32"),
        (["backbone=clip_vitb16", "backbone.build.pretrained=null"], "vit_b_16_random"),
        (["backbone=clip_vitb16", "backbone.build.pretrained=/a/b/my weights.pth.tar"], "vit_b_16_my_weights"),
        (["backbone=clip_vitb16", "backbone.build.name=hf-hub:org/Some-CLIP"], "org_some_clip"),
        (["backbone=vit_b16", "backbone.build.name=local-dir:/models/été"], "été"),
        (["backbone=vit_b16", "backbone.build.name=resnet50"], "resnet50"),
        (["backbone=vit_b16", "backbone.build.name=vit_base_patch16_224.mae"], "vit_base_patch16_224_mae"),
        (["backbone=vit_s14", "backbone.build.pretrained=/a/model.safetensors"], "vit_small_patch14_dinov2_model"),
        (["backbone=clip_vitb16", "backbone.build.name=RN50", "backbone.name=mine"], "mine"),
    ],
)
def test_a_run_is_named_after_the_model_that_it_has(settings, name):
    cfg = composed(*as_overrides(settings, "train"))

    assert cfg.backbone.name == require_name("backbone.name", name)
    assert cfg.name == f"{name}_kra_16shot_imagenet"
    assert as_written(cfg)["backbone"]["name"] == name


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


@pytest.mark.parametrize("backbone", ["clip_vitb16", "siglip2_so400m16_384", "dinov3_7b16", "dinov2_s14_reg"])
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
