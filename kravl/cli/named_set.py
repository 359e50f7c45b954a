"""From the name of a data set to its images: composed, checked and built as a run does it."""

from collections.abc import Sequence
from pathlib import Path

from kravl.config.compose import compose_checked, composing, register_configs, typed
from kravl.config.instantiate import build
from kravl.config.quoting import as_overrides, quoted
from kravl.config.schema import CONFIGS, Config
from kravl.data import catalog
from kravl.data.inspect.limits import allow_megapixels
from kravl.data.source import Samples, Source
from kravl.data.sources.split_file import SplitFile
from kravl.runtime.errors import unknown
from kravl.runtime.yaml_files import read_yaml

SPLITS = ("train", "val", "test")


def data_sets() -> dict[str, str]:
    """What can be named, and how a run takes it: a file of configs/data, or a set with a card that is evaluated on."""
    evaluated: dict[str, str] = {}
    for path in sorted((CONFIGS / "evaluation").glob("*.yaml")):
        for key, node in read_yaml(path).get("sets", {}).items():
            name = str(node.get("name", key))
            if catalog.card(name):
                evaluated.setdefault(name, f"evaluation={path.stem}")
    return evaluated | {path.stem: f"data={path.stem}" for path in sorted((CONFIGS / "data").glob("*.yaml"))}


def compose_run(name: str, data_root: str | None, overrides: Sequence[str] = ()) -> Config:
    """The config of a run on the data set ``name``, with further settings as on the command line of train.py.

    Raises:
        InputError: no such set, key or choice; the nearest is named.
    """
    known = data_sets()
    if name not in known:
        raise unknown("data set", name, known)
    register_configs()
    root = [] if data_root is None else [quoted("data_root", data_root)]
    arguments = as_overrides([known[name], *overrides, *root], "train")
    with composing():
        run: Config = typed(compose_checked(arguments, "train"))
    return run


def open_source(cfg: Config, name: str) -> Source:
    """The set ``name`` as a run on it would have it. Raises InputError where the images are not as ``cfg`` says."""
    allow_megapixels(cfg.loading.max_megapixels)
    from kravl.run.sources import training_source  # torch, which a mistyped name need not wait for

    return training_source(cfg) if _is_trained_on(name) else _evaluated(cfg, name)[0][1]


def images_by_split(cfg: Config, name: str, source: Source) -> dict[str, Samples]:
    """The images of ``source`` by split; of a set of several parts (domains, corruptions) the test images by part."""
    if not _is_trained_on(name):
        parts = _evaluated(cfg, name)
        return {key if len(parts) > 1 else "test": part.split("test") for key, part in parts}
    domains = [domain for domain in catalog.card(name).get("images", {}) if domain not in SPLITS]
    if not domains:
        return {split: source.split(split) for split in source.splits}
    whole = {key: cfg.data.source[key] for key in ("_target_", "name", "root")}
    return {d: build({**whole, "domain": d}, Source, cfg.plugins)().split("test") for d in domains}


def _is_trained_on(name: str) -> bool:
    return data_sets()[name].startswith("data=")


def _evaluated(cfg: Config, name: str) -> list[tuple[str, Source]]:
    found = {key: node for key, node in cfg.evaluation.sets.items() if node.get("name", key) == name}
    return [(key, build(settings, Source, cfg.plugins)()) for key, settings in found.items()]


def split_file_source(path: Path) -> Source:
    """The lists of a split file alone: its images need not be there."""
    return SplitFile(path.stem, str(path.parent), str(path.absolute()))
