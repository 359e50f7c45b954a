"""kravl as an estimator: scikit-learn's own checks where they fit images, and their like for those that fit tables."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.utils import estimator_checks

from kravl import FewShotClassifier, InputError

SETTINGS = {
    "optim.epochs": 1,
    "optim.lr": 3e-3,
    "loading.batch_size": 8,
    "loading.min_batches": 1,
    "cache_root": None,
    "trainer.accelerator": "cpu",
}
CHECKS = [
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_mixin_order,
    estimator_checks.check_do_not_raise_errors_in_init_or_set_params,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learns_checks_of_an_estimator_hold(check: Callable[..., None]) -> None:
    check("FewShotClassifier", FewShotClassifier())
    assert is_classifier(FewShotClassifier())


@pytest.fixture(scope="module")
def drawings(glyphs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Grey arrays (n, h, w) of uint8 of two letters, and what they show, in mixed order."""
    from PIL import Image

    files = sorted(file for letter in "AB" for file in (glyphs / "glyphs/train" / letter).glob("*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("L").resize((64, 64))) for file in files])
    labels = np.array([file.parent.name for file in files])
    order = np.random.default_rng(0).permutation(len(files))
    return images[order][:12], labels[order][:12]


@pytest.fixture(scope="module")
def estimator() -> FewShotClassifier:
    return FewShotClassifier(model="kravl-tiny", method="layernorm", settings=SETTINGS)


@pytest.fixture(scope="module")
def fitted(estimator: FewShotClassifier, drawings: Any) -> FewShotClassifier:
    return clone(estimator).fit(*drawings)


def test_fit_predict_and_score_keep_the_protocol(fitted: FewShotClassifier, estimator: Any, drawings: Any) -> None:
    images, labels = drawings
    before = estimator.get_params()

    probabilities, predicted = fitted.predict_proba(images), fitted.predict(images)

    assert fitted.get_params() == before  # fit changes no parameter
    assert fitted.classes_.tolist() == ["A", "B"]
    assert probabilities.shape == (12, 2)
    assert np.array_equal(fitted.classes_[probabilities.argmax(axis=1)], predicted)
    assert fitted.score(images, labels) == np.mean(predicted == labels)
    assert fitted.model_.predict(images) == predicted.tolist()
    parts = np.concatenate([fitted.predict_proba(images[i : i + 5]) for i in range(0, 12, 5)])
    assert parts == pytest.approx(probabilities, abs=1e-5)  # whatever is predicted beside
    assert fitted.predict_proba(images[::-1])[::-1] == pytest.approx(probabilities, abs=1e-5)


def test_every_image_is_trained_on(fitted: FewShotClassifier) -> None:
    import json

    record = json.loads((fitted.model_.folder / "metrics.json").read_text())
    images = fitted.model_.folder.parents[1] / "images/train"
    assert record["shots"] is None
    assert len(list(images.rglob("*.png"))) == 12


def test_a_pickle_predicts_the_same(fitted: FewShotClassifier, drawings: Any) -> None:
    images = drawings[0]
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(images), fitted.predict_proba(images))


def test_an_estimator_that_is_not_fitted_says_so(estimator: FewShotClassifier, drawings: Any) -> None:
    with pytest.raises(NotFittedError):
        estimator.predict(drawings[0])


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        ([], [], "no images are given"),
        ({}.keys(), {}.values(), "no images are given"),
        (np.zeros((2, 8, 8), np.uint8), {"A", "B"}, "labels are a set; they must have an order"),
        (np.zeros((2, 8, 8), np.uint8), None, "labels='None' is NoneType; labels are a list"),
        (np.zeros((2, 8, 8), np.uint8), np.eye(2), r"the label '\[1\. 0\.\]' is not one value"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(estimator: FewShotClassifier, images: Any, labels: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        clone(estimator).fit(images, labels)


def test_cross_validation_runs_on_paths(estimator: FewShotClassifier, glyphs: Any) -> None:
    files = [file for letter in "AB" for file in sorted((glyphs / "glyphs/train" / letter).glob("*.png"))[:4]]
    probe = clone(estimator).set_params(method="linear_probe")
    scores = cross_val_score(probe, files, [file.parent.name for file in files], cv=2, error_score="raise")
    assert len(scores) == 2
    assert all(score in (0, 0.25, 0.5, 0.75, 1) for score in scores)  # of four pictures each
