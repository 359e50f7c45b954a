"""The learned context of a run, from its settings, checked before any weights are loaded."""

from collections.abc import Sequence

from kravl.backbones.classifier import Classifier
from kravl.backbones.text.context import ContextSettings
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.evaluation.wise_ft import curve_points
from kravl.runtime.errors import InputError


def context_of(cfg: Config) -> ContextSettings | None:
    """What is learned in front of the class names; None where nothing is.

    Raises:
        InputError: a setting of the context without one, beside class weights, or with a WiSE-FT curve.
    """
    if not cfg.context_tokens:
        if cfg.context_init is not None or cfg.context_per_class:
            given = f"context_init={cfg.context_init!r}" if cfg.context_init is not None else "context_per_class=true"
            raise InputError(f"{given} is of a learned context, of which there is none; add context_tokens=16")
        return None
    if cfg.linear_head and not cfg.stages:
        raise InputError(
            f"linear_head=true trains class weights, and context_tokens={cfg.context_tokens} the prompts that they "
            "would come from; leave one of them out, or train one after the other (stages)"
        )
    return ContextSettings(cfg.context_tokens, cfg.context_init, cfg.context_per_class)


def check_curve(cfg: Config, alphas: int | Sequence[float]) -> None:
    """Raise InputError for points between the ends of a WiSE-FT curve where a context is learned.

    Between a prompt in words, which is where the curve begins, and learned vectors in its place there are no weights.
    """
    if cfg.context_tokens and any(0 < alpha < 1 for alpha in curve_points(alphas, zero_shot=True)):
        raise InputError(
            f"alphas={alphas}: a learned context (context_tokens={cfg.context_tokens}) takes the place of words, and "
            "there is no model between them; alphas=2 evaluates both ends, alphas=1 the learned one"
        )


def check_context(cfg: Config, class_names: Sequence[str], further: Sequence[str]) -> None:
    """Check a run's context against its backbone and its classes, those that are only evaluated (``further``) too.

    Raises:
        InputError: as `context_of` and `Classifier.check_context`, or contexts of single classes where others are
            scored.
    """
    if (context := context_of(cfg)) is None:
        return
    if context.per_class and further:
        raise InputError(
            f"context_per_class=true has no context for the {len(further)} classes of evaluation={cfg.evaluation.name} "
            f"that are not trained ({', '.join(further[:3])}, ...); leave it out, or evaluate trained classes alone"
        )
    resolve(cfg.backbone.build, Classifier, cfg.plugins).check_context(
        cfg.backbone.build, context, [*class_names, *further]
    )
