"""A run's adapted towers with class names that it was not trained on: open vocabulary."""

from collections.abc import Sequence

from kravl.backbones.classifier import Classifier
from kravl.backbones.heads.head import Head
from kravl.config.instantiate import resolve
from kravl.config.schema import Config
from kravl.data.templates import check_templates
from kravl.run.finished.model_record import Prompts
from kravl.run.finished.restore import LoadedRun
from kravl.runtime.errors import InputError


def check_other_classes(cfg: Config) -> None:
    """Raise InputError for a run whose method, or backbone, scores its trained classes alone; no weights are needed."""
    if not resolve(cfg.backbone.build, Classifier, cfg.plugins).zero_shot:
        raise _tied(f"{cfg.backbone.name} has no text tower")
    if cfg.linear_head and not cfg.stages:
        raise _tied("linear_head=true trained a row of weights for each of its classes")
    if cfg.context_per_class:
        raise _tied("context_per_class=true learned a context for each of its classes")
    if cfg.head:
        head = resolve(cfg.head, Head, cfg.plugins)
        if head.image_features is Head.image_features:
            raise _tied(f"the head {head.__name__} is of its classes, and leaves the features of images as they were")


def other_prompts(known: Prompts, given: Sequence[str] | None) -> tuple[str, ...]:
    """Templates for other classes: the ``given`` ones, else those ``known``, that the run was trained with.

    Raises:
        InputError: one that is none, or none ``given`` where the run has descriptions of its own classes.
    """
    if given:
        return check_templates("--prompt", given)
    own = tuple(prompt for prompt in known if isinstance(prompt, str))
    if len(own) != len(known):
        raise InputError(
            "the run was trained with descriptions of its own classes; --prompt 'a photo of a {}.' words others"
        )
    return own


def score_other_classes(run: LoadedRun, class_names: Sequence[str], prompts: Sequence[str]) -> list[int]:
    """Let the classifier of ``run`` score further classes; returns the columns of the logits that are theirs.

    Class weights that were trained in a stage of their own score the classes that they know, by name and prompts.

    Raises:
        InputError: a name that does not fit into the text tower's context.
    """
    run.classifier.add_classes(class_names, prompts)
    selective = run.cfg.linear_head and tuple(prompts) == run.record.prompts
    trained = {name: column for column, name in enumerate(run.class_names)} if selective else {}
    return [trained.get(name, len(run.class_names) + i) for i, name in enumerate(class_names)]


def _tied(reason: str) -> InputError:
    return InputError(
        f"--classes: {reason}, so that it scores no others; leave --classes out, or pass --model for zero-shot"
    )
