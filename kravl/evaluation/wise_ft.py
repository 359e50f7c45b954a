"""WiSE-FT: models on the curve from the pretrained to the adapted weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from kravl.evaluation.predict import Batches, Classes, ClassifierLike, EvaluationLoaders, Predictions, encode, predict
from kravl.runtime.errors import InputError

PRETRAINED, ADAPTED = 0.0, 1.0  # shares of the update
MAX_IN_MEMORY = 1_000_000  # images whose features, a few kilobytes each, are kept in memory between alphas


class Adapters(Protocol):
    """Weights W + alpha * update until `unmerge`: alpha 0 is the pretrained model, 1 the adapted one."""

    def merge(self, alpha: float = 1.0) -> None: ...
    def unmerge(self) -> None: ...


def wise_ft(
    trainer: Trainer,
    classifier: ClassifierLike,
    adapters: Adapters,
    loaders: EvaluationLoaders | Mapping[str, Batches],
    classes: Classes,
    alphas: Iterable[float],
) -> dict[float, dict[str, Predictions]]:
    """Each set's predictions for weights between pretrained (alpha 0) and adapted (1), without training.

    Where alpha changes no image feature, as in a linear probe, the image tower runs once for all of them; not at all
    where ``loaders`` hold features.

    Raises:
        InputError: an alpha lies outside [0, 1], or as `predict`; the weights are restored in any case.
    """
    chosen = list(alphas)
    for alpha in chosen:
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha {alpha} of the WiSE-FT curve is outside 0 (pretrained) to 1 (adapted)")
    curve: dict[float, dict[str, Predictions]] = {}
    batches: EvaluationLoaders | Mapping[str, Batches] = loaders
    if len(chosen) > 1 and classifier.features_are_fixed():
        images = {name: loader for name, loader in loaders.items() if isinstance(loader, DataLoader)}
        num_images = sum(len(loader.dataset) for loader in images.values())  # type: ignore[arg-type, misc]
        if len(images) == len(loaders) and num_images <= MAX_IN_MEMORY:
            batches = encode(trainer, classifier, images)
    for alpha in chosen:
        adapters.merge(alpha)
        try:
            curve[alpha] = predict(trainer, classifier, batches, classes)
        finally:
            adapters.unmerge()
    return curve


def curve_points(points: int | Sequence[float], zero_shot: bool) -> list[float]:
    """Shares of the update, from 0 to 1, at which a run is evaluated; 0 only for a ``zero_shot`` model.

    Args:
        points: the number of evenly spaced shares, or the shares themselves, which must include 1.

    Raises:
        InputError: it is neither.
    """
    if isinstance(points, int) and not isinstance(points, bool) and points >= 1:
        shares = [i / (points - 1) for i in range(points)] if points > 1 else [1.0]
    elif _are_shares(points):
        shares = sorted({float(share) for share in cast(Sequence[float], points)})
    else:
        raise InputError(
            f"alphas={points}; 1 evaluates the adapted model only, 2 the pretrained one too, 11 or [0,0.3,1] a curve "
            "of shares of the update from 0 to 1, which must include 1"
        )
    return shares if zero_shot else [alpha for alpha in shares if alpha > 0]


def _are_shares(points: Any) -> bool:
    if not isinstance(points, Sequence) or isinstance(points, str) or 1 not in points:
        return False
    return all(isinstance(share, int | float) and 0 <= share <= 1 for share in points)
