"""Facts about data sets as text: cards, class names, templates, and the folders that hold the images."""

from pathlib import Path
from typing import Any

from kravl.data import catalog
from kravl.data.templates import check_templates, is_template_file, read_templates
from kravl.runtime.errors import InputError, unknown
from kravl.runtime.files import no_folder, shipped
from kravl.runtime.yaml_files import read_yaml

PLAIN = "a photo of a {}."
OF_ANY_SET = ("plain", "imagenet7", "openai80")  # templates that fit whatever the classes are
OWN_TEMPLATE = "single"  # the set's own
TEMPLATE_SETS = (OWN_TEMPLATE, *OF_ANY_SET)


def folder() -> Path:
    """The folder ``datasets``."""
    return shipped("datasets")


def class_names(name: str) -> tuple[str, ...] | None:
    """The lines of ``classes.txt`` in label order; None if the set has no such file."""
    lines = _lines(name, "classes.txt")
    return lines or None


def templates(name: str, choice: object) -> tuple[str, ...]:
    """Prompt templates, each with one ``{}`` for the class name.

    Args:
        choice: ``single`` (the set's own: the line of its ``templates.txt``, else the plain one), ``plain``,
            ``imagenet7`` or ``openai80`` (open_clip's lists), a template itself, a list of them, or the path of a file
            of them (`read_templates`).

    Raises:
        InputError: none of these, or a template that has not one ``{}``.
    """
    if isinstance(choice, list | tuple):
        return check_templates(f"templates of {name}", choice)
    if not isinstance(choice, str) or "{" in choice or "}" in choice:
        return check_templates(f"templates of {name}", [choice])
    if choice == OWN_TEMPLATE:
        return check_templates(f"templates.txt of {name}", _lines(name, "templates.txt")[:1] or [PLAIN])
    if choice == "plain":
        return (PLAIN,)
    if choice not in TEMPLATE_SETS:
        if is_template_file(choice):
            return read_templates(choice)
        error = unknown("template set", choice, TEMPLATE_SETS)
        raise InputError(f"{error}; nor is it a template, which has {{}} for the class name, or a file of templates")
    import open_clip  # takes two seconds to import, and is needed only here

    functions = {"imagenet7": open_clip.SIMPLE_IMAGENET_TEMPLATES, "openai80": open_clip.OPENAI_IMAGENET_TEMPLATES}
    return tuple(function("{}") for function in functions[choice])


def card(name: str) -> dict[str, Any]:
    """The set's ``card.yaml``; empty if there is none.

    Raises:
        InputError: it is not plain data of bounded size, or names a folder that leads out of the data root.
    """
    path = folder() / name / "card.yaml"
    if not path.is_file():
        return {}
    content = read_yaml(path)
    for key in ("folders", "needs"):
        places = content.get(key) or []
        if not isinstance(places, list) or any(
            Path(str(p)).is_absolute() or ".." in Path(str(p)).parts for p in places
        ):
            raise InputError(f"{path}: {key} must be a list of folders below the data root, not {str(places)[:80]!r}")
    return content


def _lines(name: str, file: str) -> tuple[str, ...]:
    path = folder() / name / file
    if not path.is_file():
        return ()
    return tuple(line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def existing_folder(name: str, path: str | Path) -> Path:
    """``path`` as a folder.

    Raises:
        InputError: there is none; with the path tried, the setting to change, and where the images come from.
    """
    folder = Path(path)
    if not folder.is_dir():
        source = catalog.card(name).get("homepage")
        hint = f" (images: {source})" if source else ""
        raise InputError(f"{name}: {no_folder(folder)}; set data_root, or the root of this set{hint}")
    return folder


def find_folder(name: str, root: str | Path) -> Path:
    """The folder that holds everything that the set needs by its card.

    Users of CoOp, CLIP-LoRA and torchvision keep the same set under different names; nobody has to move it.

    Args:
        root: the data root, or the set's own folder.

    Raises:
        InputError: none of the folders tried has it; each is named, with what it lacks and where the images come from.
    """
    card = catalog.card(name)
    needs = [str(path) for path in card.get("needs", ())]
    tried = [Path(root) / str(folder) for folder in card.get("folders", ())] + [Path(root)]
    for folder in tried:
        if folder.is_dir() and all((folder / path).exists() for path in needs):
            return folder
    hint = f" (images: {card['homepage']})" if "homepage" in card else ""
    raise InputError(f"{name}: {_tried(tried, needs)}; set data_root, or the root of this set{hint}")


def find_split_file(name: str, folder: Path, root: str | Path, file: str) -> Path:
    """``file`` in the set's ``folder``, in another of the folders that the card names, or in ``root``.

    Raises:
        InputError: it is in none of them; each is named.
    """
    others = [Path(root) / str(other) for other in catalog.card(name).get("folders", ())]
    tried = list(dict.fromkeys([folder / file, *(other / file for other in others), Path(root) / file]))
    for path in tried:
        if path.is_file():
            return path
    listed = ", ".join(map(str, tried))
    raise InputError(f"{name}: no split file {listed}; set data_root, or data.source.split_file{_origin(name)}")


def _tried(folders: list[Path], needs: list[str]) -> str:
    absent = [str(folder) for folder in folders if not folder.is_dir()]
    lacking = [
        f"{folder} lacks {', '.join(path for path in needs if not (folder / path).exists())}"
        for folder in folders
        if folder.is_dir()
    ]
    return "; ".join([f"no folder {', '.join(absent)}", *lacking] if absent else lacking)


def _origin(name: str) -> str:
    urls = catalog.card(name).get("split_file", {}).get("urls", ())
    return f" (from {urls[0]})" if urls else ""
