"""The data sets that a run's config names, listed without their images: nothing here loads torch.

A folder that is missing is told in a second, not after the libraries that train.
"""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from kravl.config.instantiate import build
from kravl.config.schema import Config, Evaluation
from kravl.data.catalog import OF_ANY_SET, OWN_TEMPLATE
from kravl.data.classes import name_classes
from kravl.data.source import Source
from kravl.data.sources.class_half import chosen_classes
from kravl.runtime.errors import InputError

log = logging.getLogger(__name__)


class Sources(NamedTuple):
    """What is trained on, and what is evaluated on besides its test images, by name."""

    training: Source
    evaluation: Mapping[str, Source]


def list_sources(cfg: Config) -> Sources:
    """Every set of a run.

    Raises:
        InputError: a set that does not exist, a setting that it does not have, or images that are not there.
    """
    training = training_source(cfg)
    return Sources(training, evaluation_sources(cfg.evaluation, training, cfg.plugins, cfg.data.templates))


def training_source(cfg: Config) -> Source:
    """The set that is trained on. Raises InputError as `list_sources`."""
    whole = build(cfg.data.source, Source, cfg.plugins, templates=cfg.data.templates)()
    name_classes(whole, cfg.data.class_names, cfg.data.descriptions)
    return chosen_classes(whole, cfg.data.classes)


def evaluation_sources(
    evaluation: Evaluation, source: Source, plugins: list[str], templates: Any = OWN_TEMPLATE
) -> dict[str, Source]:
    """The sets of an evaluation config; one with images that are trained on is left out, with a line that says so.

    A node is that of a source, or of a whole data config, as Hydra composes it with ``/data@sets.NAME: NAME``. The
    prompts of its own classes are the ``templates`` of the training set where those fit any set and the node has none.
    """
    sets = {}
    for name, node in evaluation.sets.items():
        _require_settings(name, node)
        prompts = _templates(node, templates)
        candidate = build(node.get("source") or node, Source, plugins, source=source, **prompts)()
        if candidate.overlaps(source.drawn_from()):
            log.info("evaluation set %s is what is trained on; left out", name)
        else:
            sets[name] = candidate
            if evaluation.classes == "own":
                name_classes(candidate, node.get("class_names"), node.get("descriptions"))
    return sets


def check_source_settings(cfg: Config) -> None:
    """Hold the settings of every set against its class; none is listed, its files need not be there.

    Raises:
        InputError: no such class, or a setting that it does not have.
    """
    build(cfg.data.source, Source, cfg.plugins)
    for name, node in cfg.evaluation.sets.items():
        _require_settings(name, node)
        build(node.get("source") or node, Source, cfg.plugins)


def _require_settings(name: str, node: Any) -> None:
    if not isinstance(node, Mapping):
        raise InputError(f"evaluation set {name}: {str(node)[:80]!r} stands where settings by name are expected")


def _templates(node: Mapping[str, Any], of_training: Any) -> dict[str, Any]:
    """What a set of an evaluation is built with besides the settings of its node."""
    of_node = node.get("templates", OWN_TEMPLATE) if "source" in node else OWN_TEMPLATE
    chosen = of_training if of_node == OWN_TEMPLATE and of_training in OF_ANY_SET else of_node
    return {} if chosen == OWN_TEMPLATE or "templates" in (node.get("source") or node) else {"templates": chosen}
