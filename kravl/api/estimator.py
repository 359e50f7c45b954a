"""kravl as an estimator of scikit-learn (https://scikit-learn.org/stable/developers/develop.html)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kravl.api.fit import fit
from kravl.api.given import NO_IMAGES, as_image, listed, listed_labels
from kravl.api.model import FewShotModel
from kravl.runtime.errors import InputError

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.validation import check_is_fitted
except ModuleNotFoundError as error:
    raise InputError("FewShotClassifier needs scikit-learn: pip install scikit-learn") from error


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """Adapts a pretrained model to images ``X`` with labels ``y``; all of them are trained on.

    ``X`` are arrays (n, h, w) or (n, h, w, c) of uint8, or a list of paths, PIL images or such arrays.

    Its parameters are those of `kravl.fit` with the same names; ``shots=None`` takes all images.

    Attributes:
        classes_: the labels, sorted.
        model_: the `FewShotModel`.
    """

    def __init__(  # noqa: PLR0913 (each is a parameter that scikit-learn searches over)
        self,
        model: str = "ViT-B-16",
        pretrained: str | bool | None = None,
        method: str = "kra",
        shots: int | None = None,
        seed: int = 1,
        settings: Mapping[str, Any] | None = None,
        quiet: bool = True,
    ) -> None:
        self.model = model
        self.pretrained = pretrained
        self.method = method
        self.shots = shots
        self.seed = seed
        self.settings = settings
        self.quiet = quiet

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":  # noqa: N803 (scikit-learn's name)
        """Train on every image. Raises InputError as `kravl.fit`."""
        images, labels = listed(X), listed_labels(y)
        if not len(images):
            raise InputError(NO_IMAGES)
        self.model_: FewShotModel = fit(
            images,
            labels,
            # a run tests on something, never on a file that it trains on; nothing is held out: its metrics say nothing
            test=([as_image(next(iter(images)))], labels[:1]),
            model=self.model,
            pretrained=self.pretrained,
            method=self.method,
            shots=self.shots,
            seed=self.seed,
            settings=self.settings,
            quiet=self.quiet,
        )
        self.classes_ = np.array(self.model_.classes)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """The label of the most probable class of each image."""
        check_is_fitted(self)
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Probabilities (images, classes) in the order of ``classes_``."""
        check_is_fitted(self)
        return self.model_.predict_proba(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
