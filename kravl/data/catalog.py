"""The facts under datasets/<name>/: class names, prompt templates, and a card with source and licence."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import read_yaml

PLAIN = "a photo of a {}."
TEMPLATE_SETS = ("single", "plain", "imagenet7", "openai80")


def folder() -> Path:
    """The folder ``datasets``: inside an installed package, else beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "datasets"
    return installed if installed.is_dir() else package.parent / "datasets"


def class_names(name: str) -> tuple[str, ...] | None:
    """The lines of ``classes.txt`` in label order; None if the set has no such file."""
    lines = _lines(name, "classes.txt")
    return lines or None


def templates(name: str, choice: str) -> tuple[str, ...]:
    """Prompt templates, each with one ``{}`` for the class name.

    Args:
        choice: ``single`` (the set's own: the line of its ``templates.txt``, else the plain one), ``plain``,
            ``imagenet7`` or ``openai80`` (open_clip's lists), or a template itself.

    Raises:
        InputError: none of these.
    """
    if "{}" in choice:
        return (choice,)
    if choice == "single":
        return _lines(name, "templates.txt")[:1] or (PLAIN,)
    if choice == "plain":
        return (PLAIN,)
    if choice not in TEMPLATE_SETS:
        raise unknown("template set", choice, TEMPLATE_SETS)
    import open_clip  # two seconds to import, and only here needed

    functions = {"imagenet7": open_clip.SIMPLE_IMAGENET_TEMPLATES, "openai80": open_clip.OPENAI_IMAGENET_TEMPLATES}
    return tuple(function("{}") for function in functions[choice])


def card(name: str) -> dict[str, Any]:
    """What ``card.yaml`` says of the set; empty if there is none.

    Raises:
        InputError: it is not plain data of bounded size, or names a folder that leads out of the data root.
    """
    path = folder() / name / "card.yaml"
    if not path.is_file():
        return {}
    content = OmegaConf.to_container(read_yaml(path))
    assert isinstance(content, dict)
    for key in ("folders", "needs"):
        places = content.get(key) or []
        if not isinstance(places, list) or any(
            Path(str(p)).is_absolute() or ".." in Path(str(p)).parts for p in places
        ):
            raise InputError(f"{path}: {key} must be a list of folders below the data root, not {str(places)[:80]!r}")
    return {str(key): value for key, value in content.items()}


def _lines(name: str, file: str) -> tuple[str, ...]:
    path = folder() / name / file
    if not path.is_file():
        return ()
    return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
