"""One image before and after adaptation: the likeliest classes of both models, and where they look."""

import base64
from collections.abc import Sequence
from contextlib import ExitStack
from io import BytesIO
from typing import Any

from PIL import Image
from torch import Tensor

from kravl.backbones.attention_map import attention_map
from kravl.data.images import decode_rgb
from kravl.data.loading.transforms import CentreCrop, Normalization, Pixels
from kravl.data.loading.unlabelled import Decoded
from kravl.run.finished.restore import LoadedRun, load_run
from kravl.run.prediction.output import DIGITS, Prediction
from kravl.run.prediction.scorer import Scorer, check_alpha, evaluated_in
from kravl.runtime.errors import InputError
from kravl.tracking.run_folder import RunFolder

MOST_SHOWN = 20  # classes of an image
QUALITY = 90  # of the JPEG that shows what the model sees


class Comparison:
    """The model of a finished run in its pretrained state and at a point of its WiSE-FT curve: two models in memory.

    Args:
        alpha: share of the update to begin with.
        settings: those of `load_run`.

    Raises:
        InputError: as `load_run` and `Scorer.of_run`.
    """

    def __init__(self, folder: RunFolder, alpha: float = 1.0, **settings: Any) -> None:
        self._run = load_run(folder, **settings)
        self._adapted = Scorer.of_run(self._run, alpha)
        self._alpha: float | None = alpha
        classifier = self._run.classifier
        self._crop = CentreCrop.of(classifier.preprocess)
        self._normalize = Normalization(classifier.preprocess.mean, classifier.preprocess.std)
        self._pretrained: Scorer | None = None
        if classifier.zero_shot or attention_map(classifier.image_tower()):
            self._pretrained = _pretrained(load_run(folder, **settings))

    def described(self) -> dict[str, Any]:
        """What the page says of the run, as JSON values."""
        cfg, classifier, path = self._run.cfg, self._run.classifier, self._run.folder.path.resolve()
        shots = "all images" if cfg.shots is None else f"{cfg.shots} images"
        known = self._run.calibration
        calibrated = f"; adapted side at a share of 1 calibrated: {known.describe()}" if known else ""
        return {
            "run": f"{path.parent.name}/{path.name}",
            "model": f"{cfg.backbone.name}, {cfg.label} on {cfg.data.name}, {shots} a class{calibrated}",
            "class_names": list(self._run.class_names),
            "zero_shot": classifier.zero_shot,
            "curve": self._has_curve(),
            "alpha": self._alpha,
            "attention": attention_map(classifier.image_tower()) is not None,
            "tower": type(classifier.image_tower()).__name__,
        }

    def score(self, data: bytes, name: str, alpha: float) -> dict[str, Any]:
        """What the page shows of the image that is the bytes of a file, as JSON values.

        Args:
            name: what errors call it.
            alpha: share of the update.

        Raises:
            InputError: no image that is read, or no point of the run's curve.
            OutOfMemory: memory does not suffice for one image.
        """
        check_alpha(self._run.cfg, alpha)
        pixels = self._crop(decode_rgb(data, name))
        batch = Decoded(self._normalize([pixels.transpose(2, 0, 1)]), (name,), (None,))
        if alpha != self._alpha:
            self._alpha = None  # until the weights are those of alpha: memory may run out before
            if self._run.adapters.merged:
                self._run.adapters.unmerge()
            self._adapted, self._alpha = Scorer.of_run(self._run, alpha), alpha
        adapted = self._said(self._adapted, batch, self._run.temperature(alpha))
        before = self._said(self._pretrained, batch) if self._pretrained else None
        if before and not self._run.classifier.zero_shot:
            before = {"attention": before["attention"]}  # its head knows no class
        return {"image": _data_url(pixels), "zero_shot": before, "adapted": adapted, "alpha": alpha}

    def _said(self, scorer: Scorer, batch: Decoded, temperature: float = 1.0) -> dict[str, Any]:
        found = attention_map(scorer.classifier.image_tower())
        with ExitStack() as stack:
            maps: Sequence[Tensor] = stack.enter_context(found.recorded()) if found else ()
            (scored,) = scorer.scored(batch)
        names = self._run.class_names
        prediction = Prediction.of(scored, names, min(MOST_SHOWN, len(names)), temperature)
        shown = maps[-1][0] if maps and maps[-1].isfinite().all() else None
        rows = None if shown is None else [[round(value, DIGITS) for value in row] for row in shown.tolist()]
        return {**prediction._asdict(), "attention": rows}

    def _has_curve(self) -> bool:
        try:
            check_alpha(self._run.cfg, 0.5)
        except InputError:
            return False
        return True


def _pretrained(run: LoadedRun) -> Scorer:
    """The scorer of the weights before adaptation, those of a model that knows no class too."""
    run.adapters.merge(0.0)
    return Scorer(run.classifier, evaluated_in(run))


def _data_url(pixels: Pixels) -> str:
    """Pixels (height, width, 3) as the address of an image."""
    written = BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
