"""Handwritten digits as a data set: the package's own images, divided by writers."""

import importlib.util
import pickle
from collections import Counter

import numpy as np
import pytest

from kravl.data import catalog, digits
from kravl.data.digits import Digits
from kravl.errors import InputError


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


def test_samples_can_be_sent_to_a_worker() -> None:
    samples = Digits().split("test").subset([5, 0])

    again = pickle.loads(pickle.dumps(samples))

    assert again.image(1).tobytes() == Digits().split("test").image(0).tobytes()


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    digits._rows.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"scikit-learn: pip install 'kravl\[quickstart\]'"):
        Digits()
