"""Every shipped config of a data set or an evaluation builds what it says, on the layout that it names."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from kravl.config.instantiate import build
from kravl.config.schema import CONFIGS
from kravl.data import catalog
from kravl.data.classes import match_classes
from kravl.data.source import Source
from kravl.data.sources.imagenet import wordnet_classes
from kravl.runtime.errors import InputError

SPLIT_FILES = {
    "dtd": ("dtd/images", 47),
    "eurosat": ("eurosat/2750", 10),
    "oxford_flowers": ("oxford_flowers/jpg", 102),
    "oxford_pets": ("oxford_pets/images", 37),
}


def sources(
    group: str, name: str, data_root: Path, trained: Source | None = None, **settings: str
) -> dict[str, Source]:
    """The sources of one config file, by set name; that of a data config is called ``source``."""
    node = OmegaConf.merge(OmegaConf.load(CONFIGS / group / f"{name}.yaml"), settings)
    whole = OmegaConf.create({"data_root": str(data_root), group: node})
    plain = OmegaConf.to_container(whole, resolve=True)[group]
    assert plain["name"] == name or "own_set" in str(OmegaConf.to_container(node)["name"])
    nodes = {"source": plain["source"]} if group == "data" else plain["sets"]
    return {set_name: build(n, Source, source=trained)() for set_name, n in nodes.items()}


@pytest.mark.assets
@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_split_file_config_finds_coops_layout(name: str, assets: Path, tmp_path: Path) -> None:
    images, num_classes = SPLIT_FILES[name]
    (tmp_path / images).mkdir(parents=True)
    for path in (assets / "coop").glob("split_zhou_*.json"):
        (tmp_path / images).parent.joinpath(path.name).symlink_to(path)

    source = sources("data", name, tmp_path)["source"]

    card = catalog.card(name)
    assert len(source.class_names) == num_classes == card["classes"]
    assert {split: len(source.split(split)) for split in source.splits} == card["images"]
    assert source.templates != ("a photo of a {}.",)


@pytest.mark.assets
def test_caltech101_and_the_domains_of_pacs_are_found(assets: Path) -> None:
    caltech = sources("data", "caltech101", assets)["source"]
    photo = sources("data", "pacs", assets)["source"]
    domains = sources("evaluation", "pacs_domains", assets)

    assert {split: len(caltech.split(split)) for split in caltech.splits} == catalog.card("caltech101")["images"]
    assert {name: len(domain.split("test")) for name, domain in domains.items()} == catalog.card("pacs")["images"]
    assert [name for name, domain in domains.items() if domain.identity == photo.identity] == ["photo"]


def test_a_folder_is_named_on_the_command_line(make_tree: Callable[..., Path]) -> None:
    root = make_tree("train", {"cat": 10})
    make_tree("test", {"cat": 1})

    named = sources("data", "folder", root, root=str(root), train="train", test="test")["source"]
    found = sources("data", "folder", root, root=str(root))["source"]
    held_out = sources("data", "folder", root, root=str(root / "train"))["source"]

    sizes = [[len(source.split(split)) for split in ("train", "test")] for source in (named, found, held_out)]
    assert sizes == [[10, 1], [10, 1], [8, 2]]


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist"])
def test_a_torchvision_config_says_how_to_fetch_what_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name}: torchvision cannot open {name.upper()} under .*download=true"):
        sources("data", name, tmp_path)


def test_imagenet_and_its_shifts_have_1000_or_200_of_the_same_classes(tmp_path: Path) -> None:
    for folder in (
        *("imagenet/images/train", "imagenet/images/val"),
        *(f"imagenetv2-matched-frequency-format-val/{label}" for label in (0, 999)),
        *("imagenet-sketch/images/n01440764", "imagenet-a/n01498041", "imagenet-rendition/imagenet-r/n01443537"),
    ):
        (tmp_path / folder).mkdir(parents=True)

    trained = sources("data", "imagenet", tmp_path)["source"]
    shifts = sources("evaluation", "imagenet_ood", tmp_path)

    classes = {name: len(shift.class_ids) for name, shift in shifts.items()}
    assert classes == {"imagenet_v2": 1000, "imagenet_sketch": 1000, "imagenet_a": 200, "imagenet_r": 200}
    assert classes == {name: catalog.card(name)["classes"] for name in shifts}
    assert all(set(shift.class_ids) <= set(trained.class_ids) for shift in shifts.values())


def test_corruptions_are_of_the_set_that_is_trained_on(make_tree: Callable[..., Path]) -> None:
    root = make_tree("test", {"cat": 2})
    trained = sources("data", "folder", root, root=str(root), train="test", test="test")["source"]

    sets = sources("evaluation", "corruptions", root, trained)

    assert len(sets) == 14
    assert len({noisy.split("test").image(0).tobytes() for noisy in sets.values()}) == 14


def test_a_thousand_ways_change_the_labels_of_imagenet_a_and_not_its_folders(tmp_path: Path) -> None:
    ids, _ = wordnet_classes("imagenet_a")
    for wnid in ids:
        (tmp_path / "imagenet-a" / wnid).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "imagenet-a" / wnid / "1.png")

    node = OmegaConf.load(CONFIGS / "evaluation/imagenet_ood_1000way.yaml").sets.imagenet_a
    source = build({**OmegaConf.to_container(node), "root": str(tmp_path)}, Source)()

    thousand = wordnet_classes("imagenet")[0]
    assert match_classes(source, thousand) is None
    assert [thousand[label] for label in source.split("test").labels] == ids


def test_all_fifteen_corruptions_ask_for_the_photographs_of_frost(make_tree: Callable[..., Path]) -> None:
    root = make_tree("test", {"cat": 1})
    trained = sources("data", "folder", root, root=str(root), train="test", test="test")["source"]

    with pytest.raises(InputError, match=rf"missing in {root}/frost: frost1\.png"):
        sources("evaluation", "imagenet_c", root, trained)
    assert len(OmegaConf.load(CONFIGS / "evaluation/imagenet_c.yaml").sets) == 75


def test_a_package_that_torchvision_needs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("scipy", "scipy.io"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("torchvision.datasets.SVHN._check_integrity", lambda self: True)

    with pytest.raises(InputError, match=r"svhn: torchvision reads SVHN with scipy.*, which is not installed"):
        sources("data", "svhn", tmp_path)


def test_in_domain_adds_no_set(tmp_path: Path) -> None:
    assert sources("evaluation", "in_domain", tmp_path) == {}
