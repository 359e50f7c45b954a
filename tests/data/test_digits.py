"""Handwritten digits as a data set: the package's own images, divided by writers."""

import importlib.util
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from kravl.data import catalog
from kravl.data.sources import digits
from kravl.data.sources.digits import Digits
from kravl.runtime.errors import InputError


def test_the_images_are_those_that_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    source = Digits()
    train, test = source.split("train"), source.split("test")
    loaded = load_digits()

    assert train.labels + test.labels == tuple(loaded.target)
    for samples, expected in ((train, loaded.images[:898]), (test, loaded.images[898:])):
        ink = np.stack([np.asarray(samples.image(i))[..., 0] for i in range(len(samples))])
        np.testing.assert_array_equal(np.round(ink / 255 * 16), expected)
    assert (len(train), len(test)) == tuple(catalog.card("digits")["images"].values())


def test_every_digit_can_be_drawn_from_and_tested_on_and_has_a_name() -> None:
    source = Digits()

    assert source.class_names[:3] == ("zero", "one", "two")
    for split, least in (("train", 86), ("test", 86)):
        assert min(Counter(source.split(split).labels).values()) >= least


def test_styles_are_the_same_digits_in_another_look() -> None:
    ink, inverted, rotated = (Digits(style).split("test") for style in ("ink", "inverted", "rotated"))

    assert ink.labels == inverted.labels == rotated.labels
    pixels = np.asarray(ink.image(3)).astype(int)
    np.testing.assert_array_equal(np.asarray(inverted.image(3)), 255 - pixels)
    back = np.asarray(rotated.image(3).rotate(-20, Image.Resampling.BICUBIC).resize((8, 8), Image.Resampling.BOX))
    assert np.corrcoef(back.ravel(), pixels.ravel())[0, 1] > 0.9
    assert np.corrcoef(np.asarray(rotated.image(3).resize((8, 8))).ravel(), pixels.ravel())[0, 1] < 0.9
    assert not Digits().overlaps(Digits("inverted"))
    with pytest.raises(InputError, match="unknown style of digits 'inkk': did you mean 'ink'"):
        Digits("inkk")


def test_samples_can_be_sent_to_a_worker() -> None:
    samples = Digits().split("test").subset([5, 0])

    again = pickle.loads(pickle.dumps(samples))

    assert again.image(1).tobytes() == Digits().split("test").image(0).tobytes()


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    digits._rows.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"scikit-learn: pip install 'kravl\[quickstart\]'"):
        Digits()
