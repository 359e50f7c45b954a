"""One domain is trained on and the others are evaluated whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kravl.data.sources.domains import Domains
from kravl.runtime.errors import InputError


def test_every_fifth_image_of_a_class_is_held_out(make_tree: Callable[..., Path]) -> None:
    root = make_tree("photo", {"cat": 10, "dog": 6})

    source = Domains("pets", str(root), "photo", holdout=5)

    assert source.split("test").names == ("cat/4.png", "cat/9.png", "dog/4.png")
    assert source.split("test").labels == (0, 0, 1)
    assert len(source.split("train")) == 13
    assert not set(source.split("train").names) & set(source.split("test").names)
    assert (
        source.split("test").image(2).tobytes() == Domains("pets", str(root), "photo").split("test").image(14).tobytes()
    )


def test_a_domain_that_is_not_trained_on_is_test_as_a_whole(make_tree: Callable[..., Path]) -> None:
    source = Domains("pets", str(make_tree("photo", {"cat": 3, "dog": 2})), "photo")

    assert len(source.split("test")) == 5
    with pytest.raises(InputError, match=r"unknown split of pets 'train'"):
        source.split("train")


def test_identity_is_that_of_the_domain_whatever_is_held_out(make_tree: Callable[..., Path]) -> None:
    root = make_tree("photo", {"cat": 3})
    make_tree("sketch", {"cat": 3})

    trained = Domains("pets", str(root), "photo", holdout=2)

    assert trained.identity == Domains("pets", str(root / "photo/.."), "photo").identity
    assert trained.identity != Domains("pets", str(root), "sketch").identity


def test_an_unknown_domain_is_named_with_the_nearest(make_tree: Callable[..., Path]) -> None:
    root = make_tree("photo", {"cat": 1})
    make_tree("sketch", {"cat": 1})

    with pytest.raises(InputError, match="unknown domain of pets 'skech': did you mean 'sketch'"):
        Domains("pets", str(root), "skech")


def test_a_holdout_that_leaves_nothing_to_train_on_is_refused(make_tree: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="holdout is 1; one image in how many is test: at least 2"):
        Domains("pets", str(make_tree("photo", {"cat": 3})), "photo", holdout=1)


@pytest.mark.assets
def test_pacs_has_four_domains_of_seven_classes_and_opens_its_images(assets: Path) -> None:
    root = str(assets / "PACS")
    sizes = {d: len(Domains("pacs", root, d).split("test")) for d in ("photo", "art_painting", "cartoon", "sketch")}
    photo = Domains("pacs", root, "photo", holdout=5)

    assert sizes == {"photo": 1670, "art_painting": 2048, "cartoon": 2344, "sketch": 3929}
    assert photo.class_names == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    held_out = sum(len(list(folder.iterdir())) // 5 for folder in Path(root, "photo").iterdir())
    assert (len(photo.split("train")), len(photo.split("test"))) == (1670 - held_out, held_out) == (1339, 331)
    assert photo.split("train").image(0).mode == "RGB"


def test_all_domains_but_one_are_trained_on_together(make_tree: Callable[..., Path]) -> None:
    for domain, classes in (("photo", {"cat": 4, "dog": 2}), ("sketch", {"cat": 2}), ("art", {"dog": 2})):
        root = make_tree(domain, classes)

    source = Domains("pets", str(root), left_out="photo", holdout=2)

    assert source.class_ids == ("cat", "dog")
    assert source.split("train").names == ("art/dog/0.png", "sketch/cat/0.png")
    assert source.split("train").labels == (1, 0)
    assert source.split("test").names == ("art/dog/1.png", "sketch/cat/1.png")
    assert (
        source.split("test").image(1).tobytes() == Domains("pets", str(root), "sketch").split("test").image(1).tobytes()
    )


def test_domains_overlap_if_they_share_one_and_lie_in_one_folder(make_tree: Callable[..., Path]) -> None:
    for domain in ("photo", "sketch", "art"):
        root = str(make_tree(domain, {"cat": 2}))

    trained = Domains("pets", root, left_out="photo", holdout=2)

    overlapping = [d for d in ("photo", "sketch", "art") if Domains("pets", root, d).overlaps(trained)]
    assert overlapping == ["sketch", "art"]


def test_one_domain_or_all_but_one_must_be_said(make_tree: Callable[..., Path]) -> None:
    root = str(make_tree("photo", {"cat": 2}))

    for settings in ({}, {"domain": "photo", "left_out": "photo"}):
        with pytest.raises(InputError, match="pets: give either domain or left_out, one of photo"):
            Domains("pets", root, **settings)
