"""ImageNet's folders give the labels that everyone means by them."""

from pathlib import Path

import open_clip
import pytest
from PIL import Image

from kravl.data.classes import match_classes
from kravl.data.sources.imagenet import ImageNet, ImageNetShift, ImageNetV2, wordnet_classes
from kravl.runtime.errors import InputError


def write(root: Path, folders: list[str]) -> Path:
    for i, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (2, 2), (i % 256, i // 256, 0)).save(root / folder / "image.png")
    return root


def test_a_label_is_the_rank_of_the_sorted_wordnet_id(tmp_path: Path) -> None:
    ids, names = wordnet_classes("imagenet")
    write(tmp_path / "train", ids[::-1])
    write(tmp_path / "val", ids)

    source = ImageNet(str(tmp_path))

    assert ids == sorted(ids)
    assert dict(zip(ids, names, strict=True))["n01440764"] == "tench"
    assert source.class_names[:2] == ("tench", "goldfish")
    assert source.split("train").names[:2] == ("n01440764/image.png", "n01443537/image.png")
    assert source.split("test").labels == tuple(range(1000))
    assert source.splits == ("train", "test")


@pytest.mark.parametrize("subset", ["imagenet_a", "imagenet_r"])
def test_a_shift_of_200_classes_is_matched_to_its_places_among_the_1000(subset: str, tmp_path: Path) -> None:
    ids, names = wordnet_classes(subset)
    source = ImageNetShift(subset, str(write(tmp_path, ids)), subset)

    positions = match_classes(source, wordnet_classes("imagenet")[0])

    assert positions is not None
    assert len(set(positions)) == 200
    assert [open_clip.IMAGENET_CLASSNAMES[p] for p in positions] == names
    assert source.split("test").labels == tuple(range(200))


def test_a_folder_of_v2_is_a_number_and_not_a_text(tmp_path: Path) -> None:
    source = ImageNetV2(str(write(tmp_path, [str(label) for label in range(1000)])))
    samples = source.split("test")

    assert samples.labels == tuple(range(1000))
    assert samples.names[10] == "10/image.png"
    assert samples.image(10).getpixel((0, 0)) == (10, 0, 0)
    assert match_classes(source, wordnet_classes("imagenet")[0]) is None


def test_missing_class_folders_are_counted_and_named(tmp_path: Path) -> None:
    ids, _ = wordnet_classes("imagenet_a")
    source = ImageNetShift("imagenet_a", str(write(tmp_path, ids[:198])), "imagenet_a")

    with pytest.raises(InputError, match=f"2 class folders are missing or hold no image: {ids[198]}, {ids[199]}"):
        source.split("test")


def test_an_unknown_subset_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown ImageNet subset 'imagenet-a': did you mean 'imagenet_a'"):
        ImageNetShift("imagenet_a", str(tmp_path), "imagenet-a")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"imagenet: no folder .*absent; set data_root.*image-net\.org"):
        ImageNet(str(tmp_path / "absent"))
