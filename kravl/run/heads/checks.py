"""A head on features: checked before weights are loaded, and what of it is saved."""

import logging
from collections import Counter
from collections.abc import Sequence

from kravl.backbones.classifier import FEATURE_HEAD, Classifier
from kravl.backbones.heads.head import Head
from kravl.config.instantiate import build, resolve
from kravl.config.schema import Config, Optim
from kravl.data.datamodule import FewShotDataModule
from kravl.data.fewshot import MAX_VAL_SHOTS
from kravl.evaluation.wise_ft import curve_points
from kravl.runtime.errors import InputError, some_of

log = logging.getLogger(__name__)
WITHOUT_TEXT = "method=ncm, method=logistic_regression"


def check_head_settings(cfg: Config) -> None:
    """Hold the head of a run against its other settings; no image is needed.

    Raises:
        InputError: a head that needs text where there is none, settings that it would leave unused, points of a WiSE-FT
            curve that it does not have, or nothing to tune.
    """
    if not cfg.head:
        if cfg.tune != "none":
            raise InputError(f"tune={cfg.tune} selects the settings of a head on features; this method has none")
        return
    head = resolve(cfg.head, Head, cfg.plugins)
    build(cfg.head, Head, cfg.plugins)  # its settings are ones that it has
    if head.needs_text and not resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot:
        raise InputError(
            f"the head {head.__name__} needs text features, which {cfg.backbone.name} does not have; choose a CLIP "
            f"backbone, or a head without text ({WITHOUT_TEXT})"
        )
    _refuse_unused(cfg, head)
    check_alphas(cfg, cfg.alphas)
    if cfg.tune != "none" and not head.grid and not head.late_grid:
        raise InputError(f"tune={cfg.tune}: {head.__name__} has nothing to select; leave it out")
    if cfg.tune != "none" and cfg.evaluation.held_out:
        raise InputError(f"tune={cfg.tune} selects on the images that evaluation.held_out=true evaluates")


def check_head(cfg: Config, data: FewShotDataModule) -> None:
    """Both `check_head_settings` and `check_head_images`. Raises InputError as they do."""
    check_head_settings(cfg)
    check_head_images(cfg, data)


def check_head_images(cfg: Config, data: FewShotDataModule) -> None:
    """Hold the head of a run against the images that are drawn.

    Raises:
        InputError: a head that needs an image of every class where there is none, or nothing to tune it on.
    """
    if not cfg.head:
        return
    head = resolve(cfg.head, Head, cfg.plugins)
    counts = Counter(data.train_samples.labels)
    if negative := sorted(label for label in counts if label < 0):
        raise InputError(f"{cfg.data.name}: an image to train on has label {negative[0]}; labels are 0 and up")
    empty = [name for label, name in enumerate(data.source.class_names) if not counts[label]]
    if head.needs_every_class and empty:
        raise InputError(
            f"the head {head.__name__} needs an image of every class, and these have none to train on: "
            f"{some_of(empty, 5)}; leave them out of the set, or choose another head"
        )
    if cfg.tune != "none":
        _check_tuning(cfg, data)


def check_alphas(cfg: Config, alphas: int | Sequence[float]) -> None:
    """Raise InputError for points of a WiSE-FT curve that the head of ``cfg`` does not have; nothing is built."""
    if cfg.head:
        check_head_curve(resolve(cfg.head, Head, cfg.plugins), curve_points(alphas, zero_shot=True))


def check_head_curve(head: type[Head] | Head, alphas: list[float]) -> None:
    """Raise InputError for points between the pretrained and the adapted model of a head without such a curve."""
    if not head.starts_at_zero_shot and (between := [alpha for alpha in alphas if 0 < alpha < 1]):
        name = head.__name__ if isinstance(head, type) else type(head).__name__
        raise InputError(
            f"alphas has {between[0]:g}, and {name} does not start at zero-shot: between the two there is no WiSE-FT "
            "curve of its weights; alphas=2 evaluates both ends"
        )


def _refuse_unused(cfg: Config, head: type[Head]) -> None:
    """Settings of what trains by the trainer; those of its optimiser are told, as an experiment may have them."""
    given = {
        "sites": cfg.sites is not None or bool(cfg.targets),
        "unfreeze": bool(cfg.unfreeze),
        "linear_head": cfg.linear_head,
        "context_tokens": bool(cfg.context_tokens),
        "train_statistics": cfg.train_statistics,
        "optim.label_smoothing": cfg.optim.label_smoothing != 0,
        "optim.class_weights": cfg.optim.class_weights is not None,
        "optim.l2_sp": cfg.optim.l2_sp != 0,
    }
    if unused := [name for name, is_given in given.items() if is_given]:
        raise InputError(
            f"the head {head.__name__} is fitted on features of the pretrained model, by a rule of its own: "
            f"{', '.join(unused)} would change nothing; leave it out (sites=null)"
        )
    default = vars(Optim())
    unread = [key for key, value in vars(cfg.optim).items() if key != "epochs" and value != default[key]]
    if unread:
        log.info("optim.%s: not used, %s has settings of its own (head.*)", ", optim.".join(unread), head.__name__)


def _check_tuning(cfg: Config, data: FewShotDataModule) -> None:
    if not len(data.val_samples):
        raise InputError(
            f"tune={cfg.tune} needs validation images, of which {cfg.data.name} under split_protocol="
            f"{cfg.split_protocol} has none; coop, cliplora and tip draw them where the set has any"
        )
    if (most := max(Counter(data.val_samples.labels).values())) > MAX_VAL_SHOTS:
        raise InputError(
            f"tune={cfg.tune} selects on at most {MAX_VAL_SHOTS} validation images a class, and split_protocol="
            f"{cfg.split_protocol} with shots={cfg.shots} has {most}; coop and cliplora draw no more"
        )
    if tested := data.tested_validation():
        raise InputError(
            f"tune={cfg.tune}: {cfg.data.name} is tested on its validation images, {tested} of those that were drawn, "
            "and nothing may be selected on test images; give it test images of its own"
        )


def head_buffers(classifier: Classifier) -> list[str]:
    """Names, in the encoder, of the head's buffers that its fit sets: saved with what trains."""
    head = classifier.feature_head
    if head is None:
        return []
    saved = head.state_dict()
    return [f"{FEATURE_HEAD}.{name}" for name, _ in head.named_buffers() if name in saved]


def head_settings(cfg: Config) -> str | None:
    """The head's class and the settings that were given, in one line."""
    if not cfg.head:
        return None
    given = {key: value for key, value in sorted(cfg.head.items()) if not key.startswith("_")}
    return f"{str(cfg.head.get('_target_')).rpartition('.')[2]} {given}"
