"""Temperature scaling: logits divided by one number, so that probabilities are as sure as they are right.

Guo et al., ICML 2017 (https://arxiv.org/abs/1706.04599). No prediction changes, since no order of logits does.
"""

from math import log10

from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from kravl.evaluation.metrics import score
from kravl.evaluation.predict import Predictions
from kravl.runtime.errors import InputError

LOWEST, HIGHEST = 1e-3, 1e3  # what the fit looks between
TOLERANCE = 1e-6  # of the logarithm of a temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature at which ``logits`` (n, C) give their ``labels`` (n,) the smallest negative log-likelihood.

    That is convex in the inverse temperature, and so has one minimum between any two.

    Raises:
        InputError: there is none between the bounds: every image is right, and the surer the better, or the logits say
            nothing of the labels.
    """
    exact = logits.double()
    found = minimize_scalar(
        lambda log: float(F.cross_entropy(exact / 10**log, labels)),
        bounds=(log10(LOWEST), log10(HIGHEST)),
        method="bounded",
        options={"xatol": TOLERANCE},
    )
    temperature = float(10**found.x)
    right = int((exact.argmax(dim=1) == labels).sum())
    if right == len(labels):
        raise InputError(
            f"all {right} validation images are classified correctly: the surer the better, and no temperature is the "
            "best; it takes more images, or harder ones"
        )
    if not 2 * LOWEST < temperature < HIGHEST / 2:
        raise InputError(
            f"{right} of {len(labels)} validation images are classified correctly, and no temperature from {LOWEST:g} "
            f"to {HIGHEST:g} is the best: the logits say nothing of the classes"
        )
    return temperature


def nll_and_ece(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> tuple[float, float]:
    """Mean negative log-likelihood in nats, and the expected calibration error, of ``logits`` at a temperature."""
    scaled = logits.double() / temperature
    confidence, predicted = scaled.softmax(dim=1).max(dim=1)
    losses = F.cross_entropy(scaled, labels, reduction="none")
    metrics = score(Predictions(labels, labels, predicted, confidence, losses))
    return metrics["loss"], metrics["ece"]
