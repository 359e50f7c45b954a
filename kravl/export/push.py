"""An export, or a run, on the Hub of Hugging Face: the files that kravl wrote and no others, private by default."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError
from huggingface_hub.utils import get_session

from kravl.export.target import ABOUT, CARD
from kravl.run.finished.labels import LABELS, read_labels
from kravl.runtime.errors import InputError, first_line, some_of
from kravl.runtime.files import json_object, read_text
from kravl.tracking.records import record_of
from kravl.tracking.run_folder import RunFolder, find_run

SECONDS = 10.0  # that the Hub has for its first answer
NOTHING_SENT = "nothing was sent"
PATIENCE = 120.0  # seconds without a byte, later
OF_RUN = ("adapter.safetensors", "metrics.json", "model.json")
IF_THERE = ("calibration.json",)
TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
TEXT = (".json", ".md", ".py", ".txt", ".yaml")
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
# of the Hub's client: no connection, no answer, a refusal, and an answer that is not the Hub's
REMOTE = (HTTPError, OSError, ValueError, LookupError, RuntimeError)


class PushError(RuntimeError):
    """The Hub does not answer, or refuses; what is on this machine is as it was."""


@dataclass(frozen=True)
class Parcel:
    """What is sent.

    Args:
        files: path in the repository -> where it is, or its content.
        left_out: what else is in the folder.
    """

    files: dict[str, Path | bytes]
    left_out: tuple[str, ...]

    def described_rest(self) -> str:
        """What is left out, in a line: files by name, those of a folder as their number."""
        folders = Counter(name.partition("/")[0] for name in self.left_out if "/" in name)
        plain = [name for name in self.left_out if "/" not in name]
        counted = [f"{folder}/ ({count} file{'' if count == 1 else 's'})" for folder, count in sorted(folders.items())]
        return ", ".join(each.replace("\n", "\\n") for each in [*plain, *counted])

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Path and bytes of each file."""
        for name, file in sorted(self.files.items()):
            yield name, len(file) if isinstance(file, bytes) else file.stat().st_size


def parcel(what: str, plugins: Sequence[str] = ()) -> Parcel:
    """The files of an export or of a run at the path ``what``.

    Of a run they are what `load_run` needs, its settings without folders of this machine, and a card.

    Raises:
        InputError: neither, an export or a run that is not whole, or a file that holds a token of the Hub.
    """
    if (Path(what) / ABOUT).is_file():
        root, files = Path(what), _of_export(Path(what))
    else:
        run = find_run(what)
        root, files = run.path, _of_run(run, plugins)
    for name, file in files.items():
        if any(part.startswith(".") for part in Path(name).parts):
            raise InputError(f"{root / ABOUT} lists {name!r}, a hidden file, which kravl does not write")
        if isinstance(file, Path) and (file.is_symlink() or not file.resolve().is_relative_to(root.resolve())):
            raise InputError(f"{file} is a link, or elsewhere; what is sent is in the folder itself")
        if name.endswith(TEXT) and TOKEN.search(file if isinstance(file, bytes) else file.read_bytes()):
            raise InputError(f"{root / name} holds what looks like a token of the Hub; remove it, nothing is sent")
    there = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    return Parcel(files, tuple(sorted(name for name in there if name not in files)))


def _of_export(folder: Path) -> dict[str, Path | bytes]:
    written = json_object(read_text(folder / ABOUT), str(folder / ABOUT)).get("files")
    if not isinstance(written, dict):
        raise InputError(
            f"{folder} does not say which files it has: kravl export RUN --to FORMAT --force writes it anew"
        )
    files: dict[str, Path | bytes] = {name: folder / name for name in (*written, ABOUT, CARD)}
    if broken := [name for name, size in written.items() if not _has(folder / name, size)]:
        raise InputError(f"{folder} is not whole: {some_of(broken, 5)} is missing, or of another size; export it again")
    if not (folder / CARD).is_file():
        raise InputError(f"{folder} is not whole: its card, {CARD}, is written last and is missing; export it again")
    return files


def _has(path: Path, size: object) -> bool:
    return path.is_file() and path.stat().st_size == size


def _of_run(folder: RunFolder, plugins: Sequence[str]) -> dict[str, Path | bytes]:
    if missing := [name for name in OF_RUN if not (folder.path / name).is_file()]:
        raise InputError(f"{folder.path} has no {missing[0]}, which loading it elsewhere takes; export it instead")
    record = record_of(folder)
    from kravl.run.finished.card import run_card  # with torch, which no export needs here
    from kravl.run.finished.restore import load_run

    run = load_run(folder, plugins=plugins)  # it loads: its files are whole
    calibrated = run.calibration.describe() if run.calibration else None
    card = run_card(record, run.record, run.classifier.zero_shot, calibrated)
    settings = yaml.safe_dump(record["config"], sort_keys=False, allow_unicode=True)
    known = {name: folder.path / name for name in (*OF_RUN, *IF_THERE) if (folder.path / name).is_file()}
    labels = _labels(folder.path / LABELS, len(run.class_names))
    return {**known, **labels, "config.yaml": settings.encode(), CARD: card.encode()}


def _labels(path: Path, classes: int) -> dict[str, Path | bytes]:
    """The labels of the classes that `kravl.fit` was given, and nothing else that the file may hold."""
    if path.is_symlink():
        raise InputError(f"{path} is a link, or elsewhere; what is sent is in the folder itself")
    labels = read_labels(path.parent, classes)
    return {} if labels is None else {LABELS: (json.dumps({"labels": labels}) + "\n").encode()}


def check_repository(name: str) -> None:
    """Raise InputError where ``name`` is not ``user/name``."""
    if not REPOSITORY.fullmatch(name) or "--" in name or ".." in name or name.endswith(".git"):
        raise InputError(f"{name[:80]!r} is no repository of the Hub: user/name, of letters, digits, '-', '_' and '.'")


def push(parcel: Parcel, repository: str, *, public: bool = False, force: bool = False) -> str:
    """Send the files in one commit, to a new repository or, with ``force``, to one that is there; returns its address.

    Files of an earlier commit that are not in this one stay.

    Raises:
        InputError: nobody is logged in, or the repository has files and not ``force``.
        PushError: the Hub does not answer, or refuses.
    """
    is_there = require_place(repository, force)
    api, sent = HfApi(), NOTHING_SENT
    try:
        get_session().timeout = PATIENCE
        if not is_there:
            api.create_repo(repository, private=not public)
            sent = "the repository was created and is empty; the same command fills it"
        operations = [CommitOperationAdd(name, file) for name, file in sorted(parcel.files.items())]
        return str(api.create_commit(repository, operations, commit_message="Upload by kravl").commit_url)
    except REMOTE as error:
        raise _refused(api, error, sent) from error


def require_place(repository: str, force: bool) -> bool:
    """Whether ``repository`` is on the Hub; asked before a run is loaded.

    Raises:
        InputError: nobody is logged in, or the repository has files and not ``force``.
        PushError: the Hub does not answer.
    """
    if get_token() is None:
        raise InputError("nobody is logged in to the Hub here: `hf auth login`, or HF_TOKEN in the environment")
    api = HfApi()
    try:
        there = _files_of(api, repository)
    except REMOTE as error:
        raise _refused(api, error, NOTHING_SENT) from error
    if there and not force:
        raise InputError(f"{repository} is on the Hub with {len(there)} files; --force commits on top of them")
    return there is not None


def _refused(api: HfApi, error: BaseException, sent: str) -> PushError:
    return PushError(f"the Hub ({api.endpoint}): {first_line(error)}; {sent}, and nothing here has changed")


def _files_of(api: HfApi, repository: str) -> list[str] | None:
    """The files in a repository besides what the Hub itself puts there; None where there is no such repository."""
    try:
        known = api.model_info(repository, timeout=SECONDS)
    except RepositoryNotFoundError:
        return None
    return [file.rfilename for file in known.siblings or [] if file.rfilename != ".gitattributes"]
