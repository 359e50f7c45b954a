"""Where a set lies under the data root: each folder name of its card is tried, then the data root itself."""

from pathlib import Path

from kravl.data import catalog
from kravl.runtime.errors import InputError


def existing_folder(name: str, path: str | Path) -> Path:
    """``path`` as a folder.

    Raises:
        InputError: there is none; with the path tried, the setting to change, and where the images come from.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no folder"
        source = catalog.card(name).get("homepage")
        hint = f" (images: {source})" if source else ""
        raise InputError(f"{name}: {what} {folder}; set data_root, or the root of this set{hint}")
    return folder


def find_folder(name: str, root: str | Path) -> Path:
    """The folder that holds all that the card of ``name`` says it needs.

    Users of CoOp, CLIP-LoRA and torchvision keep one set under different names; none has to move it.

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
    return "; ".join([f"no folder {', '.join(absent)}"] * bool(absent) + lacking)


def _origin(name: str) -> str:
    urls = catalog.card(name).get("split_file", {}).get("urls", ())
    return f" (from {urls[0]})" if urls else ""
