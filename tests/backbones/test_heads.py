"""Heads against their papers, written out in float64: the first step by differences of the loss, and known traps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kravl.backbones.heads.clap import CLAP
from kravl.backbones.heads.clip_adapter import CLIPAdapter
from kravl.backbones.heads.cross_modal import CrossModal
from kravl.backbones.heads.fitting import Descent
from kravl.backbones.heads.head import Head, Problem, Support
from kravl.backbones.heads.logistic_regression import LogisticRegression
from kravl.backbones.heads.lp_plus_plus import LPPlusPlus
from kravl.backbones.heads.ncm import NearestClassMean
from kravl.backbones.heads.prolip import ProLIP
from kravl.backbones.heads.rla import RLA
from kravl.backbones.heads.taskres import TaskRes
from kravl.backbones.heads.tip_adapter import TipAdapter
from kravl.backbones.heads.tip_adapter_f import TipAdapterF
from kravl.backbones.heads.zs_lp import ZeroShotLinearProbe

C, D, SHOTS, S = 3, 6, 4, 20.0
Array = np.ndarray
RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(C), SHOTS)
N = len(LABELS)


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


F = unit(RNG.normal(size=(C, D))[LABELS] + RNG.normal(size=(N, D)))
T = unit(RNG.normal(size=(C, D)))
ONE_HOT = np.eye(C)[LABELS]
P = RNG.normal(size=(5, D))  # a projection, and features before it
WIDE = RNG.normal(size=(N, 5))


def cross_entropy(z: Array, labels: Array = LABELS) -> float:
    z = z - z.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def slope(loss: Callable[[Array], float], at: Array, h: float = 1e-6) -> Array:
    """The gradient of ``loss`` by central differences."""
    found = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[i] = h
        found[i] = (loss(at + step) - loss(at - step)) / (2 * h)
    return found


def made(cls: type[Head], views: Array | None = None, **settings: Any) -> tuple[Head, Support]:
    """A head in float64, and what it is to be fitted on: features (n, d), or (n, views, d)."""
    torch.manual_seed(0)
    features = F[:, None] if views is None else views
    text = torch.from_numpy(T)
    problem = Problem(C, features.shape[-1], N, S, text, torch.from_numpy(P))
    support = Support(torch.from_numpy(features), torch.from_numpy(LABELS), text, 1)
    return cls(problem, **settings).double(), support


def logits(head: Head, x: Array = F) -> Array:
    with torch.no_grad():
        return head(torch.from_numpy(x), torch.from_numpy(T)).numpy()


def value(tensor: torch.Tensor) -> Array:
    return tensor.detach().numpy().copy()


def adam(at: Array, gradient: Array, lr: float, eps: float = 1e-8, decay: float = 0.0) -> Array:
    """Its first step: both moments, once corrected, are the gradient and its square."""
    return at * (1 - lr * decay) - lr * gradient / (np.abs(gradient) + eps)


def tip_logits(keys: Array, x: Array = F, alpha: float = 1.0, beta: float = 5.5) -> Array:
    return S * x @ T.T + alpha * np.exp(-beta * (1 - x @ keys.T)) @ ONE_HOT


def test_tip_adapter_is_its_formula_on_the_mean_of_views():
    views = unit(F[:, None] + 0.2 * RNG.normal(size=(N, 4, D)))
    head, support = made(TipAdapter, views, alpha=0.7, beta=3.0)

    head.fit(support)

    np.testing.assert_allclose(logits(head), tip_logits(unit(views.mean(axis=1)), F, 0.7, 3.0), rtol=1e-7)


def test_tip_adapter_f_takes_the_step_of_adamw_on_its_keys():
    head, support = made(TipAdapterF, epochs=1)

    head.fit(support)

    gradient = slope(lambda keys: cross_entropy(tip_logits(keys)), F)
    np.testing.assert_allclose(value(head.keys), adam(F, gradient, 1e-3, eps=1e-4, decay=0.01), atol=1e-7)


def test_taskres_warms_up_and_normalises_both_sides():
    head, support = made(TaskRes, epochs=1, alpha=0.4)

    head.fit(support)

    def loss(x: Array) -> float:
        return cross_entropy(S * F @ unit(T + 0.4 * x).T)

    expected = adam(np.zeros((C, D)), slope(loss, np.zeros((C, D))), lr=1e-5)  # the first epoch is a warm-up
    np.testing.assert_allclose(value(head.residual), expected, atol=1e-9)
    assert TaskRes(Problem(C, D, N, S, torch.from_numpy(T))).epochs is None


def test_clip_adapter_takes_a_step_and_does_not_see_the_length_of_a_feature():
    head, support = made(CLIPAdapter, epochs=1, batch_size=64, lr=0.1, ratio=0.3, reduction=2)
    down, up = value(head.down.weight), value(head.up.weight)

    def loss(down: Array, up: Array) -> float:
        bottleneck = np.maximum(np.maximum(F @ down.T, 0) @ up.T, 0)
        return cross_entropy(S * unit(0.3 * bottleneck + 0.7 * F) @ T.T)

    head.fit(support)

    np.testing.assert_allclose(value(head.up.weight), up - 0.1 * slope(lambda u: loss(down, u), up), atol=1e-6)
    np.testing.assert_allclose(value(head.down.weight), down - 0.1 * slope(lambda d: loss(d, up), down), atol=1e-6)
    np.testing.assert_allclose(logits(head, 7.0 * F), logits(head), rtol=1e-9)


def test_zs_lp_takes_a_step_of_sgd_from_the_text():
    head, support = made(ZeroShotLinearProbe, epochs=1)

    head.fit(support)

    expected = T - 1e-5 * slope(lambda w: cross_entropy(S * F @ unit(w).T), T)
    np.testing.assert_allclose(value(head.prototypes), expected, atol=1e-10)


def test_clap_weighs_classes_by_scaled_zero_shot_and_stays_near_the_text():
    head, support = made(CLAP, epochs=300)
    free, _ = made(ZeroShotLinearProbe, epochs=300)

    head.fit(support)
    free.fit(support)

    multipliers = (softmax(S * F @ T.T) * ONE_HOT).sum(axis=0) / SHOTS
    unscaled = (softmax(F @ T.T) * ONE_HOT).sum(axis=0) / SHOTS  # the trap: the weights know the scale of the logits
    np.testing.assert_allclose(value(head.multipliers), multipliers, rtol=1e-6)
    assert np.abs(multipliers - unscaled).max() > 0.05
    moved = np.square(value(head.prototypes) - T).sum(axis=1)
    np.testing.assert_allclose(head.penalty(support.text).item(), np.mean(multipliers * moved), rtol=1e-6)
    assert moved.sum() < np.square(value(free.prototypes) - T).sum()


def simulated_lp(steps: int, accumulate: bool) -> tuple[Array, Array, Array]:
    """LP++ by hand: gradients of cross-entropy written out, momentum, and a blending that moves every tenth step."""
    z = F @ T.T
    w, b = ONE_HOT.T @ F, np.zeros(C)
    blend = np.full(C, 250.0 * np.mean([z[k == LABELS, k].mean() for k in range(C)]))
    lr, blend_lr = 4 * N / np.linalg.eigvalsh(F.T @ F).max(), N / (4 * np.square(z).sum(axis=0).max())
    velocity_w, velocity_b, total = np.zeros_like(w), np.zeros(C), np.zeros(C)
    for step in range(1, steps + 1):
        error = (softmax(F @ w.T + b + blend * z) - ONE_HOT) / N
        of_blend = (error * z).sum(axis=0)
        total = total + of_blend if accumulate else of_blend
        velocity_w, velocity_b = 0.9 * velocity_w + error.T @ F, 0.9 * velocity_b + error.sum(axis=0)
        w, b = w - lr * velocity_w, b - lr * velocity_b
        if step % 10 == 0:
            blend = blend - blend_lr * total
    return w, b, blend


@pytest.mark.parametrize("accumulate", [False, True])
def test_lp_plus_plus_is_its_formula_and_accumulates_a_gradient_on_request(accumulate: bool) -> None:
    head, support = made(LPPlusPlus, steps=30, accumulate=accumulate)

    head.fit(support)

    w, b, blend = simulated_lp(30, accumulate)
    np.testing.assert_allclose(value(head.blend), blend, rtol=1e-6)
    np.testing.assert_allclose(logits(head), F @ w.T + b + blend * (F @ T.T), rtol=1e-5, atol=1e-6)
    assert np.abs(blend - simulated_lp(30, not accumulate)[2]).max() > 1e-3


def test_cross_modal_takes_a_step_on_images_and_text_together():
    head, support = made(CrossModal, steps=1, batch_size=64, weight_decay=0.1)  # the halves are all there is

    head.fit(support)

    both, labels = np.concatenate([F, T]), np.concatenate([LABELS, np.arange(C)])
    gradient = slope(lambda w: cross_entropy(S * both @ w.T, labels), T)
    np.testing.assert_allclose(value(head.weight), adam(T, gradient, lr=1e-5, decay=0.1), atol=1e-9)


def test_rla_takes_a_step_from_the_identity_and_then_pays_for_leaving_it():
    head, support = made(RLA, steps=1, lr=1e-2)
    near, far = made(RLA, steps=200, strength=1.0)[0], made(RLA, steps=200, strength=0.0)[0]

    for each in (head, near, far):
        each.fit(support)

    gradient = slope(lambda a: cross_entropy(S * unit(F @ a.T) @ T.T), np.eye(D))  # the penalty has none there
    np.testing.assert_allclose(value(head.matrix), adam(np.eye(D), gradient, 1e-2, eps=1e-4), atol=1e-7)
    assert np.linalg.norm(value(near.matrix) - np.eye(D)) < 0.9 * np.linalg.norm(value(far.matrix) - np.eye(D))
    shots = np.square(value(head.matrix) - np.eye(D)).sum() / SHOTS
    np.testing.assert_allclose(head.penalty(None).item(), shots, rtol=1e-9)


def test_prolip_takes_a_step_of_the_projection_and_pays_for_leaving_the_pretrained_one():
    head, support = made(ProLIP, WIDE[:, None], steps=1, lr=1e-2, strength=0.3)
    near, far = made(ProLIP, WIDE[:, None], steps=200, lr=1e-2)[0], made(ProLIP, WIDE[:, None], steps=200, lr=1e-2)[0]
    far.choose({"strength": 0.0})

    np.testing.assert_allclose(logits(head, WIDE), S * unit(WIDE @ P) @ T.T, rtol=1e-5)
    for each in (head, near, far):
        each.fit(support)

    gradient = slope(lambda p: cross_entropy(S * unit(WIDE @ p) @ T.T), P)
    np.testing.assert_allclose(value(head.projection), adam(P, gradient, 1e-2, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(head.penalty(None).item(), 0.3 * np.square(value(head.projection) - P).sum(), rtol=1e-4)
    assert np.linalg.norm(value(near.projection) - P) < 0.9 * np.linalg.norm(value(far.projection) - P)


def test_class_means_are_means_of_unit_features():
    head, support = made(NearestClassMean, 3.0 * F[:, None])

    head.fit(support)

    means = np.stack([F[k == LABELS].mean(axis=0) for k in range(C)])
    np.testing.assert_allclose(logits(head), S * F @ unit(means).T, rtol=1e-6)


def test_logistic_regression_has_converged_to_the_minimum_that_scikit_learn_finds():
    linear_model = pytest.importorskip("sklearn.linear_model")
    head, support = made(LogisticRegression, c=5.0)

    head.fit(support)

    peer = linear_model.LogisticRegression(C=5.0, tol=1e-10, max_iter=10000).fit(F, LABELS)
    np.testing.assert_allclose(softmax(logits(head)), peer.predict_proba(F), atol=2e-3)
    w, error = value(head.weight), softmax(logits(head)) - ONE_HOT
    assert np.abs(error.T @ F / N + w / (5.0 * N)).max() < 1.1e-4  # of a convex loss: nowhere else is it lower
    assert np.abs(error.mean(axis=0)).max() < 1.1e-4


def test_logistic_regression_by_steps_is_clip_benchmarks():
    head, support = made(LogisticRegression, solver="adamw", epochs=1)

    head.fit(support)

    gradient = slope(lambda w: cross_entropy(F @ w.T), np.zeros((C, D)))
    np.testing.assert_allclose(value(head.weight), adam(np.zeros((C, D)), gradient, 0.1), atol=1e-4)


def test_the_rate_falls_by_a_cosine_after_a_warm_up():
    rate = Descent("sgd", 0.1, epochs=10, warmup=2).rate
    rising = Descent("sgd", 0.1, steps=10, warmup=4, rising=True).rate

    assert [rate(step, 10) for step in (0, 1, 2, 5)] == pytest.approx([1e-5, 1e-5, 0.0904508, 0.05], rel=1e-5)
    assert [rising(step, 10) for step in (0, 2, 5)] == pytest.approx([1e-5, 0.05, 0.05])


def test_a_fit_that_leaves_the_numbers_is_told():
    head, support = made(CrossModal, steps=3)
    poisoned = support._replace(text=support.text * float("inf"))

    with pytest.raises(FloatingPointError, match=r"CrossModal: weight is not finite after the fit; lower head\.lr"):
        head.fit(poisoned)


def test_mini_batches_see_each_image_once_an_epoch_and_the_views_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    views = np.broadcast_to(np.arange(1.0, 4.0)[None, :, None], (N, 3, D)) * (1 + np.arange(N))[:, None, None]
    head, support = made(TipAdapterF, views, epochs=4, batch_size=5)
    seen: list[Array] = []
    forward = TipAdapterF.forward
    monkeypatch.setattr(TipAdapterF, "forward", lambda s, x, t: (seen.append(value(x)[:, 0]), forward(s, x, t))[1])

    head.fit(support)

    epochs = [np.concatenate(seen[3 * e : 3 * e + 3]) for e in range(4)]
    assert [len(batch) for batch in seen] == [5, 5, 2] * 4
    for epoch, view in zip(epochs, (1, 2, 3, 1), strict=True):
        np.testing.assert_allclose(np.sort(epoch), view * (1 + np.arange(N)))
    assert not np.array_equal(epochs[0], epochs[3])
